//! The tensors and files of a view.

use std::path::Path;

use super::note::Note;
use super::options::Options;
use super::side_files::CONFIG;
use super::tied::Tied;
use crate::checkpoint::Entry;
use crate::error::Result;
use crate::mapping::{Dropped, MappedTensor};
use crate::output::VirtualFile;

/// The tensors and files that a mount shows, and their origin.
#[derive(Debug)]
pub struct View {
    /// The system that wrote the checkpoint, such as `torchtitan`.
    pub system: String,
    /// Why it is taken for that system's.
    pub evidence: String,
    /// `model_type` of config.json.
    pub family: String,
    /// In the order in which they are sharded.
    pub tensors: Vec<MappedTensor>,
    pub dropped: Vec<Dropped>,
    pub tied: Vec<Tied>,
    /// The entries of the training state, where it has several.
    pub entries: Vec<Entry>,
    /// Warnings and remarks about this view.
    pub notes: Vec<Note>,
    pub files: Vec<VirtualFile>,
}

/// Opens the view of another source.
pub type Open<'o> = dyn Fn(&Path, &Options) -> Result<View> + 'o;

/// Files that a tokenizer is read from (transformers 5.23.0, tokenization_utils_base.py and tokenization_mistral_common.py).
const TOKENIZERS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.tiktoken",
    "tiktoken.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
];

impl View {
    /// Whether the view has a config.json and no tokenizer beside it.
    pub fn lacks_tokenizer(&self) -> bool {
        let has = |name: &str| self.files.iter().any(|file| file.path() == name);
        has(CONFIG) && !TOKENIZERS.iter().any(|name| has(name))
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.tensors
            .iter()
            .map(|tensor| tensor.tensor.bytes())
            .sum()
    }
}

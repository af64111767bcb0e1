//! A checkpoint as the Hugging Face directory that it becomes: read, mapped, checked, laid out.

mod adapter;
mod combine;
mod compare;
mod computed;
mod config;
mod copied;
mod copies;
mod declared;
mod dequantize;
mod detect_system;
mod dtype;
mod known_class;
mod known_family;
mod layers;
mod mapped;
mod merge;
mod names;
mod options;
mod other_class;
mod params;
mod quantize;
mod rounded;
mod table;
mod target;
mod tied;
mod unknown_family;

use std::path::Path;

use serde::Serialize;

use crate::checkpoint::{self, Checkpoint, Entry, Opening, SideFile};
use crate::error::{Error, Result};
use crate::mapping::{Dropped, Family, MappedTensor, Tables};
use crate::output::{self, VirtualFile};
use crate::run;

use computed::Stage;
use config::ConfigFile;
use mapped::Mapped;
pub use options::{DtypeChoice, MAX_SHARD_SIZE, MergedAdapter, Options, OutputFormat};
pub use table::{TableReport, check as check_table};
use target::{Model, Target};
pub use tied::Tied;

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

/// A remark on how a view came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether a user may have to act.
    pub is_warning: bool,
    pub text: String,
}

impl Note {
    fn remark(text: String) -> Self {
        let is_warning = false;
        Self { is_warning, text }
    }

    fn warning(text: String) -> Self {
        let is_warning = true;
        Self { is_warning, text }
    }
}

impl View {
    /// Opens a checkpoint without reading any weight, except to compare tied ones and to look for zeros where only zeros
    /// may be left out.
    ///
    /// # Errors
    /// Whatever is not understood, in one line.
    pub fn open(source: &Path, options: &Options) -> Result<Self> {
        let at_source = |error| match error {
            Error::Mapping(reason) => Error::checkpoint(source, reason),
            error => error,
        };
        options.check_system().map_err(at_source)?;
        let opening = Opening {
            system: options.system.as_deref(),
            accepts_rewritten: options.accepts_rewritten,
            budget: options.budget.clone(),
        };
        let checkpoint = run::open(source, &opening)?;
        let options = &options.of(&checkpoint);
        let view = match options.adapter || checkpoint.is_only_adapter() && options.merge.is_empty()
        {
            true => adapter::view(checkpoint, options),
            false => model(checkpoint, source, options),
        };
        view.map_err(at_source)
    }

    /// Whether the view has a config.json and no tokenizer beside it.
    pub fn lacks_tokenizer(&self) -> bool {
        let has = |name: &str| self.files.iter().any(|file| file.path() == name);
        has(config::NAME) && !TOKENIZERS.iter().any(|name| has(name))
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        self.tensors
            .iter()
            .map(|tensor| tensor.tensor.bytes())
            .sum()
    }
}

fn model(mut checkpoint: Checkpoint, source: &Path, options: &Options) -> Result<View> {
    options.check_weights()?;
    let tables = Tables::load(options.mapping.as_deref())?;
    let target = target::names_of(options, &tables)?;
    let mut side_files = side_files(&checkpoint, options)?;
    let mut config = ConfigFile::find(&checkpoint, &side_files, &tables, options)?;
    computed::dequantize(&mut checkpoint, &mut side_files, &mut config, options)?;
    let family = config.family(&tables, options);
    let evidence = evidence(&checkpoint);
    let mut notes = notes_of(&checkpoint);
    let dtype = options.dtype.resolve(&config)?;
    rounded::prefer(&mut checkpoint, dtype, family, &mut notes)?;
    let Mapped {
        system: table,
        outcome,
        tied,
        entries,
        spelling,
    } = mapped::map(
        &mut checkpoint,
        &tables,
        family,
        &mut config,
        options,
        &mut notes,
    )?;
    check_system(options, &checkpoint, &table)?;
    notes.extend(config.note().map(Note::warning));
    notes.extend(declared::doubt(config.values(), &checkpoint, &tables).map(Note::warning));
    let tensors = dtype::cast(outcome.tensors, dtype, family)?;
    config.state_dtype(dtype.or(options.dequantize));
    let stage = Stage {
        source,
        checkpoint: &checkpoint,
        side_files: &side_files,
        tables: &tables,
        family,
        options,
    };
    let mut tied = tied.into_iter();
    let mut head = tied.next();
    let tensors = stage.compute(tensors, &mut config, &mut head)?;
    notes.extend(stage.note()?);
    let model = Model {
        tables: &tables,
        family,
        config: &config,
        tensors: &tensors,
        tied: head.as_ref(),
        spelling,
        total_parameters: parameters(&tensors, family),
    };
    let Target { tensors, mut files } = match target {
        Some(target) => model.written(target, options, &mut notes)?,
        None => model.in_directory(options),
    };
    files.extend(config.file(&tensors));
    let others = { side_files.into_iter() }.filter(|file| file.path != config::NAME);
    files.extend(others.map(|SideFile { path, file }| output::source_file(&path, file)));
    Ok(View {
        system: checkpoint.system_with(&table).to_owned(),
        evidence,
        family: config.model_type().to_owned(),
        tensors,
        dropped: outcome.dropped,
        tied: head.into_iter().chain(tied).collect(),
        entries,
        notes,
        files,
    })
}

fn notes_of(checkpoint: &Checkpoint) -> Vec<Note> {
    let remarks = checkpoint.notes.iter().cloned().map(Note::remark);
    let warnings = checkpoint.warnings.iter().cloned().map(Note::warning);
    warnings.chain(remarks).collect()
}

/// Evidence of the system: the layout's files, and how it spells its names.
fn evidence(checkpoint: &Checkpoint) -> String {
    let mut tensors = checkpoint.tensors.iter();
    let example = tensors.find(|tensor| tensor.name.contains("layers"));
    match example.or(checkpoint.tensors.first()) {
        Some(tensor) => format!(
            "{}, names like {}",
            checkpoint.layout.evidence(),
            tensor.name
        ),
        None => checkpoint.layout.evidence(),
    }
}

/// The side files of `--config-from`, then those of the source that it lacks.
fn side_files(checkpoint: &Checkpoint, options: &Options) -> Result<Vec<SideFile>> {
    let mut files = match &options.config_from {
        Some(path) => checkpoint::side_files_in(path)?,
        None => Vec::new(),
    };
    for file in &checkpoint.side_files {
        if !files.iter().any(|other| other.path == file.path) {
            files.push(file.clone());
        }
    }
    Ok(files)
}

/// Refuses a `--system` that is not the checkpoint's, which would otherwise be passed over in silence.
fn check_system(options: &Options, checkpoint: &Checkpoint, table: &str) -> Result<()> {
    let own = [
        table,
        checkpoint.layout.word(),
        checkpoint.system_with(table),
    ];
    match options.system.as_deref() {
        Some(wanted) if !own.contains(&wanted) => {
            let layout = checkpoint.layout.word();
            Err(Error::Mapping(format!(
                "--system {wanted}: the names are {table}'s, the files {layout}'s; leave it out, or pass one of these two"
            )))
        }
        _ => Ok(()),
    }
}

/// Counts the parameters as `total_parameters` of the index does.
fn parameters(tensors: &[MappedTensor], family: Option<&Family>) -> u64 {
    let is_buffer =
        |tensor: &&MappedTensor| family.is_some_and(|family| family.is_buffer(&tensor.name));
    let all = tensors.iter().filter(|tensor| !is_buffer(tensor));
    all.map(|tensor| tensor.tensor.shape().elements()).sum()
}

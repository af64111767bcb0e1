//! Options of a view.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint, Opening};
use crate::error::{Error, Result};
use crate::mapping::Tables;
use crate::output::{self, Split};
use crate::source::Budget;
use crate::tensor::Dtype;

use super::output_format::OutputFormat;
use super::side_files::have_config;

/// Most bytes that `save_pretrained` puts into a shard by default (transformers 5.23.0).
pub const MAX_SHARD_SIZE: u64 = 5_000_000_000;

/// Element type of the shown weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// As the source has them.
    #[default]
    Keep,
    To(Dtype),
    /// The one that config.json names.
    Config,
}

/// The options of a view; [`Default`] is what the command line defaults to.
#[derive(Debug, Clone)]
pub struct Options {
    /// A Hugging Face folder whose config and tokenizer files are shown.
    pub config_from: Option<PathBuf>,
    /// The same for a checkpoint that has no config.json itself.
    pub usual_config_from: Option<PathBuf>,
    pub layout: OutputFormat,
    /// The system whose names a DCP or a `torch.save` file has.
    pub names: Option<String>,
    /// Most bytes of a chunk of a DCP.
    pub chunk_size: u64,
    pub dtype: DtypeChoice,
    pub split: Split,
    /// A TOML file of further families and systems.
    pub mapping: Option<PathBuf>,
    pub system: Option<String>,
    pub family: Option<String>,
    /// Attention heads, where no config.json tells.
    pub heads: Option<u64>,
    pub kv_heads: Option<u64>,
    /// The entry of a training state that is shown, where it holds several models.
    pub entry: Option<String>,
    /// Whether heads that a wrapper added to the model are shown.
    pub keep_extra: bool,
    /// Show the adapter of a LoRA training instead of the model.
    pub adapter: bool,
    /// lora_alpha of the adapter, where no file tells.
    pub lora_alpha: Option<f64>,
    /// Whether the output head is the embedding, where no config.json tells.
    pub tied: Option<bool>,
    /// Show a save although the times of its files say that it is being written over.
    pub accepts_rewritten: bool,
    /// For the metadata of all checkpoints that are opened with these options.
    pub budget: Budget,
    /// Show quantized weights as floats of this type.
    pub dequantize: Option<Dtype>,
    /// Checkpoints that are averaged with the source.
    pub average: Vec<PathBuf>,
    /// The weight of the source in the average, then those of the others; none for equal ones.
    pub weights: Vec<f64>,
    /// Checkpoints whose differences from the source are added, each with its weight.
    pub deltas: Vec<(PathBuf, f64)>,
    /// Adapters that are merged, in this order.
    pub merge: Vec<MergedAdapter>,
    /// Show linear weights as block fp8.
    pub quantizes: bool,
}

/// An adapter, and the weight with which it is merged.
#[derive(Debug, Clone, PartialEq)]
pub enum MergedAdapter {
    /// The one that the source itself holds.
    Own {
        weight: f64,
    },
    At {
        path: PathBuf,
        weight: f64,
    },
}

impl Options {
    /// Refuses what would fail with any checkpoint: files that are not there, or not what they should be.
    pub fn check(&self) -> Result<()> {
        self.check_weights()?;
        let tables = Tables::load(self.mapping.as_deref())?;
        self.layout.target(self.names.as_deref(), &tables)?;
        self.check_system()?;
        let config_from = self.config_from.as_deref();
        config_from.map_or(Ok(()), |path| checkpoint::side_files_in(path).map(drop))
    }

    /// The options for a checkpoint, which may have no config.json itself.
    pub(super) fn of(&self, checkpoint: &Checkpoint) -> Self {
        let has_own = checkpoint.params.is_some() || have_config(&checkpoint.side_files);
        let mut options = self.clone();
        if !has_own && options.config_from.is_none() {
            options.config_from = options.usual_config_from.take();
        }
        options
    }

    /// Refuses a system that no table and no layout knows.
    pub fn check_system(&self) -> Result<()> {
        let tables = Tables::load(self.mapping.as_deref())?;
        let names = tables.systems().map(|system| &*system.name);
        let known = BTreeSet::from_iter(names.chain(checkpoint::SYSTEMS));
        match self.system.as_deref() {
            Some(wanted) if !known.contains(wanted) => {
                let known = Vec::from_iter(known).join(", ");
                Err(Error::Mapping(format!(
                    "no system is called {wanted}; leave --system out, or pass one of {known}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl Options {
    /// The paths of members and adapters.
    pub fn others_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let merged = self.merge.iter_mut().filter_map(|merged| match merged {
            MergedAdapter::Own { .. } => None,
            MergedAdapter::At { path, .. } => Some(path),
        });
        let deltas = self.deltas.iter_mut().map(|(path, _)| path);
        self.average.iter_mut().chain(deltas).chain(merged)
    }

    /// The same with another adapter in the place of one.
    pub fn with_adapter(&self, number: usize, other: &Path) -> Self {
        let mut options = self.clone();
        if let Some(MergedAdapter::At { path, .. }) = options.merge.get_mut(number) {
            *path = other.to_owned();
        }
        options
    }

    /// As which a member or an adapter is opened, whose system is its own.
    pub(super) fn opening_of_other(&self) -> Opening<'_> {
        Opening {
            system: None,
            accepts_rewritten: self.accepts_rewritten,
            budget: self.budget.clone(),
        }
    }

    /// Refuses weights of an average that do not fit its members.
    pub fn check_weights(&self) -> Result<()> {
        let (weights, members) = (self.weights.len(), self.average.len() + 1);
        let refuse = |found: String| {
            Err(Error::Usage(format!(
                "--weights: {found}; give one for SOURCE, then one for each --average"
            )))
        };
        match weights {
            0 => Ok(()),
            _ if weights != members => refuse(format!("{weights} numbers for {members} sources")),
            _ if self.weights.iter().sum::<f64>() as f32 == 0.0 => {
                refuse("their sum is 0".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config_from: None,
            usual_config_from: None,
            layout: OutputFormat::Hf,
            names: None,
            chunk_size: output::CHUNK_SIZE,
            dtype: DtypeChoice::Keep,
            split: Split::AtMost(MAX_SHARD_SIZE),
            mapping: None,
            system: None,
            family: None,
            heads: None,
            kv_heads: None,
            entry: None,
            keep_extra: false,
            adapter: false,
            lora_alpha: None,
            tied: None,
            accepts_rewritten: false,
            budget: Budget::default(),
            dequantize: None,
            average: Vec::new(),
            weights: Vec::new(),
            deltas: Vec::new(),
            merge: Vec::new(),
            quantizes: false,
        }
    }
}

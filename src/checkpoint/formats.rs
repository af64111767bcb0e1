//! One module per format in which weights lie on disk.

pub mod consolidated;
pub mod dcp;
pub mod deepspeed;
pub mod fsdp_ranks;
pub mod megatron_args;
pub mod megatron_ranks;
pub mod nanotron;
mod numbered_files;
pub mod safetensors;
pub mod torch_file;
pub mod whole_files;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::folder::Folder;
use super::locate::layout::CheckpointFormat;
use super::names;
use crate::error::{Error, Result};
use crate::tensor::{Dtype, SourceTensor};
use dcp::LeftAlone;

/// The weights of a checkpoint as their files hold them, and what these tell about them.
#[derive(Default)]
pub struct SavedWeights {
    pub tensors: Vec<SourceTensor>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: BTreeSet<String>,
    /// Numbers of config.json that Megatron-LM's arguments tell, under config.json's names.
    pub declared: Map<String, Value>,
    pub notes: Vec<String>,
    /// Copies that several ranks hold of one tensor, though one of them would do.
    pub copies: Vec<SourceTensor>,
    /// Tensors that are stored a second time, rounded to another type, under the same names.
    pub rounded: Vec<SourceTensor>,
    /// Why the rounded tensors may be of another save, unless their elements agree.
    pub doubt: Option<String>,
    /// The type in which the model trains, where the weights are its masters of another type.
    pub trained_as: Option<Dtype>,
}

impl From<Vec<SourceTensor>> for SavedWeights {
    fn from(tensors: Vec<SourceTensor>) -> Self {
        Self {
            tensors,
            ..Self::default()
        }
    }
}

impl From<deepspeed::Saved> for SavedWeights {
    fn from(saved: deepspeed::Saved) -> Self {
        Self {
            notes: saved.notes,
            copies: saved.copies,
            rounded: saved.rounded,
            doubt: saved.doubt,
            trained_as: saved.trained_as,
            ..saved.tensors.into()
        }
    }
}

/// Reads the metadata of the weights in a folder.
///
/// # Errors
/// When they are incomplete, or what they say contradicts itself.
pub fn read(folder: &Folder, layout: &CheckpointFormat) -> Result<SavedWeights> {
    Ok(match layout {
        CheckpointFormat::Safetensors(files) => {
            whole_files::safetensors_files(folder, files)?.into()
        }
        CheckpointFormat::Torch(files) => {
            let read = whole_files::torch_files(folder, files)?;
            SavedWeights {
                notes: Vec::from_iter(left_alone(&read.optimizers)),
                dictionaries: read.dictionaries,
                ..read.tensors.into()
            }
        }
        CheckpointFormat::Consolidated(names) => consolidated::read(folder, names)?.into(),
        CheckpointFormat::Adapter => SavedWeights::default(),
        CheckpointFormat::Dcp => dcp_save(folder)?,
        CheckpointFormat::HfSharded => {
            let mut notes = Vec::new();
            let tensors = dcp::hf_sharded(folder, &mut notes)?;
            SavedWeights {
                notes,
                ..tensors.into()
            }
        }
        CheckpointFormat::FsdpRanks => {
            let fsdp_ranks::Ranks { tensors, copies } = fsdp_ranks::read(folder)?;
            SavedWeights {
                copies,
                ..tensors.into()
            }
        }
        CheckpointFormat::Nanotron => nanotron::read(folder)?.into(),
        CheckpointFormat::TorchCheckpointing => {
            let reason = "was written by torch_checkpointing, torchtitan's second backend, whose layout is not read; save with the DCP backend";
            return Err(Error::checkpoint(folder.path(), reason));
        }
        CheckpointFormat::DeepSpeed(None) => deepspeed::read(folder)?.into(),
        CheckpointFormat::DeepSpeed(Some(tag)) => deepspeed::read(&folder.subfolder(tag)?)?.into(),
        CheckpointFormat::MegatronRanks(names) => {
            let ranks = megatron_ranks::read(folder, names)?;
            SavedWeights {
                notes: Vec::from_iter(beside_models(&ranks.beside)),
                copies: ranks.copies,
                declared: ranks.declared,
                ..ranks.tensors.into()
            }
        }
    })
}

fn dcp_save(folder: &Folder) -> Result<SavedWeights> {
    let declared = megatron_args::declared_beside(folder)?;
    let read = dcp::read(folder, &names::optimizers_entry)?;
    Ok(SavedWeights {
        declared,
        notes: Vec::from_iter(left_alone(&read.left_alone)),
        dictionaries: read.dictionaries,
        ..read.tensors.into()
    })
}

/// A remark on the state of optimizers, which is not read.
fn left_alone(entries: &BTreeMap<String, LeftAlone>) -> Option<String> {
    let entry = |(entry, left): (&String, &LeftAlone)| match left.bytes {
        0 => format!("{entry} ({} tensors)", left.tensors),
        bytes => format!("{entry} ({} tensors, {bytes} bytes)", left.tensors),
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    (!entries.is_empty()).then(|| format!("left alone, as an optimizer's: {}", entries.join(", ")))
}

/// A remark on tensors that stand beside the models of a rank.
fn beside_models(entries: &BTreeSet<String>) -> Option<String> {
    let entries: Vec<&str> = entries.iter().map(|entry| &**entry).collect();
    let entries = entries.join(", ");
    (!entries.is_empty()).then(|| format!("left out, as it stands beside the model: {entries}"))
}

//! The formats in which weights are shown, and the names that go with each.

use crate::error::{Error, Result};
use crate::mapping::{MappedTensor, Tables, TargetNames};
use crate::output::{self, VirtualFile, Weights};

/// The format in which the weights of a view are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputFormat {
    /// Safetensors files and their index.
    #[default]
    Hf,
    /// A `.npy` file for each tensor.
    Npy,
    /// A folder of torch.distributed.checkpoint.
    Dcp,
    /// Files of `torch.save`.
    Torch,
    /// Meta's one file and its params.json.
    Meta,
}

impl OutputFormat {
    pub(super) fn weight_files(
        self,
        tensors: &[MappedTensor],
        weights: &Weights,
    ) -> Vec<VirtualFile> {
        match self {
            Self::Npy => output::npy_files(tensors),
            _ => output::weight_files(tensors, weights),
        }
    }

    /// The names that are asked for; `None` for the directory's own.
    ///
    /// # Errors
    /// When there are none, or they do not go with the format.
    pub(super) fn target<'t>(
        self,
        names: Option<&str>,
        tables: &'t Tables,
    ) -> Result<Option<&'t TargetNames>> {
        let default = match self {
            Self::Hf | Self::Npy => {
                return match names {
                    None => Ok(None),
                    Some(name) => Err(Error::Usage(format!(
                        "--names {name} goes with --as dcp, --as torch or --as meta; leave it out, or add one of them"
                    ))),
                };
            }
            Self::Dcp => None,
            Self::Torch => Some("hf"),
            Self::Meta => Some("meta"),
        };
        let Some(name) = names.or(default) else {
            return Err(Error::Usage(format!(
                "--as dcp needs --names, the names of the system that reads it: {}",
                known_targets(tables)
            )));
        };
        if self == Self::Meta && name != "meta" {
            return Err(Error::Usage(format!(
                "--as meta is Meta's own layout, and --names {name} asks for other names: leave it out, or pass --as torch"
            )));
        }
        let unknown = || {
            Error::Usage(format!(
                "--names {name} is not known; pass {}",
                known_targets(tables)
            ))
        };
        let target = tables.targets().find(|target| target.name == name);
        target.map(Some).ok_or_else(unknown)
    }
}

/// All names that can be written, each with the families that have them.
pub fn known_targets(tables: &Tables) -> String {
    let one = |target: &TargetNames| match target.name.as_str() {
        "hf" => "hf (all)".to_owned(),
        name => format!("{name} ({})", target.families(tables).join(", ")),
    };
    let all: Vec<String> = tables.targets().map(one).collect();
    all.join("; ")
}

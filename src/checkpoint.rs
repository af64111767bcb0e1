//! A checkpoint on disk: where each named tensor's bytes are, the side files, and which system wrote it.

pub mod doubt;
pub mod folder;
pub mod foreign;
pub mod formats;
mod hub;
pub mod links;
pub mod locate;
pub mod lora;
mod names;
pub mod rewritten;
pub mod save_names;
mod side_files;
mod tensor_error;
pub mod tracker;
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::source::{Budget, SourceFile, place};
use crate::tensor::Dtype;
pub use crate::tensor::SourceTensor;

use folder::Folder;
use formats::whole_files;
pub use hub::folder as hub_folder;
use locate::LocatedCheckpoint;
pub use locate::layout::CheckpointFormat;
use locate::layout::{self, Files};
pub use names::{
    Entry, Knows, Normalised, State, any_shared_roots, form_of, is_added_head, is_copy, is_counter,
    normalise, number, one_of_each_form, shared_roots, unwrapped,
};
pub use rewritten::Rewritten;
pub use side_files::SideFile;

/// PEFT's config of an adapter.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// A checkpoint, read as far as its metadata goes.
#[derive(Debug)]
pub struct Checkpoint {
    pub layout: CheckpointFormat,
    /// The folder of the weights.
    folder: PathBuf,
    /// The weights, under the system's own names.
    pub tensors: Vec<SourceTensor>,
    /// The adapter among the weights.
    own_adapter: Vec<SourceTensor>,
    /// Folders with what goes with the weights, the nearest first.
    beside: Vec<Folder>,
    pub side_files: Vec<SideFile>,
    /// params.json of Meta, Mistral or Lingua.
    pub params: Option<Map<String, Value>>,
    /// Numbers of config.json that Megatron-LM's arguments tell, under config.json's names.
    pub declared: Map<String, Value>,
    pub notes: Vec<String>,
    /// Warnings about the checkpoint.
    pub warnings: Vec<String>,
    /// Copies that several ranks hold of one tensor, though one of them would do.
    pub copies: Vec<SourceTensor>,
    /// Tensors that are stored a second time, rounded to another type, under the same names.
    pub rounded: Vec<SourceTensor>,
    /// Why the rounded tensors may be of another save, unless their elements agree.
    pub doubt: Option<String>,
    /// The type in which the model trains, where the weights are its masters of another type.
    pub trained_as: Option<Dtype>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: BTreeSet<String>,
}

/// The adapter of a LoRA training.
#[derive(Debug)]
pub struct Adapter {
    /// Under PEFT's names, or with PEFT's parts in modules of another system's names.
    pub tensors: Vec<SourceTensor>,
    /// adapter_config.json.
    pub config: Option<Arc<SourceFile>>,
    /// verl's lora_train_meta.json, from which an adapter_config.json can be made.
    pub training: Option<Map<String, Value>>,
}

/// How a checkpoint is opened.
#[derive(Debug, Clone, Default)]
pub struct Opening<'a> {
    /// Picks one where there are several.
    pub system: Option<&'a str>,
    /// Opens a save although its times say that it is being written over.
    pub accepts_rewritten: bool,
    /// For its metadata.
    pub budget: Budget,
}

/// Opens the checkpoint at `source`. `system` picks one where there are several.
///
/// # Errors
/// When there is none, when it is incomplete, or when what it says contradicts itself.
pub fn open(source: &Path, system: Option<&str>) -> Result<Checkpoint> {
    let opening = Opening {
        system,
        ..Opening::default()
    };
    open_with(source, &opening)
}

/// As [`open`], with more to choose.
pub fn open_with(source: &Path, opening: &Opening<'_>) -> Result<Checkpoint> {
    let located = locate::find(source, opening.system, &opening.budget)?;
    let folder = &located.weights;
    let mut saved = formats::read(folder, &located.layout)?;
    let mut names = saved.tensors.iter().map(|tensor| &*tensor.name);
    names.try_for_each(|name| tensor_error::refuse_flat(folder.path(), name))?;
    // After all that is told from the bytes, which says more.
    let warning = match opening.accepts_rewritten {
        true => None,
        false => doubt::check(folder, &located.layout)?,
    };
    names::below_shared(&mut saved.tensors, &mut saved.dictionaries);
    let (tensors, own_adapter) = lora::split(saved.tensors);
    if tensors.is_empty() && own_adapter.is_empty() && located.layout != CheckpointFormat::Adapter {
        return Err(Error::checkpoint(
            source,
            "holds no weights; name the folder or file of the model",
        ));
    }
    let notes = located.note.clone().into_iter();
    let notes = notes.chain(versions::written_by(&located.beside));
    Ok(Checkpoint {
        tensors,
        own_adapter,
        side_files: side_files_of(&located)?,
        params: json_beside(&located.beside, "params.json")?,
        declared: saved.declared,
        notes: notes.chain(saved.notes).collect(),
        warnings: Vec::from_iter(warning),
        copies: saved.copies,
        folder: located.weights.path().to_owned(),
        rounded: saved.rounded,
        doubt: saved.doubt,
        trained_as: saved.trained_as,
        dictionaries: saved.dictionaries,
        layout: located.layout,
        beside: located.beside,
    })
}

/// The side files of a Hugging Face folder: the folder itself, its config.json, or the repository's folder in a hub cache,
/// whose `refs/main` names the snapshot.
pub fn side_files_in(path: &Path) -> Result<Vec<SideFile>> {
    side_files::side_files(&config_folder(path)?)
}

/// adapter_config.json in the same folder, where it has one.
pub fn adapter_config_in(path: &Path) -> Result<Option<Arc<SourceFile>>> {
    let folder = config_folder(path)?;
    let is_there = folder.exists(ADAPTER_CONFIG);
    is_there
        .then(|| json_file(&folder, ADAPTER_CONFIG))
        .transpose()
}

fn config_folder(path: &Path) -> Result<Folder> {
    if !place::exists(path)? {
        let wanted = "name the model's Hugging Face folder as --config-from, or a model that the hub's local cache has, such as org/model";
        return Err(Error::absent(path, wanted));
    }
    let folder = match path.parent() {
        Some(parent) if place::is_file(path) => Folder::open(parent)?,
        _ => Folder::open(path)?,
    };
    locate::snapshot(folder)
}

/// The words by which a checkpoint's system is called, beside those of the mapping's tables.
pub const SYSTEMS: [&str; 17] = [
    "dcp",
    "deepspeed",
    "hf-sharded",
    "huggingface",
    "huggingface-bin",
    "lingua",
    "litgpt",
    "megatron",
    "meta",
    "mistral",
    "nanotron",
    "olmo-core",
    "peft",
    "prime-rl",
    "torchtitan",
    "verl",
    "verl-megatron",
];

impl Checkpoint {
    /// Whether there is an adapter and no model under it.
    pub fn is_only_adapter(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The adapter among the weights, or the one in files beside them.
    ///
    /// # Errors
    /// When there is none.
    pub fn adapter(&self) -> Result<Adapter> {
        let tensors = self.adapter_tensors()?;
        if tensors.is_empty() {
            return Err(Error::Mapping(
                "holds no adapter; leave --adapter out".to_owned(),
            ));
        }
        let config = self
            .beside
            .iter()
            .find(|folder| folder.exists(ADAPTER_CONFIG));
        Ok(Adapter {
            tensors,
            config: config
                .map(|folder| json_file(folder, ADAPTER_CONFIG))
                .transpose()?,
            training: json_beside(&self.beside, "lora_train_meta.json")?,
        })
    }

    /// Whether there is an adapter that the weights are yet without: among them, or beside those of verl, which saves the base
    /// as it was. torchtune merges before it saves both.
    pub fn holds_unmerged_adapter(&self) -> bool {
        let is_verls = matches!(
            self.layout,
            CheckpointFormat::FsdpRanks | CheckpointFormat::MegatronRanks(_)
        );
        !self.own_adapter.is_empty()
            || is_verls
                && self
                    .adapter_tensors()
                    .is_ok_and(|tensors| !tensors.is_empty())
    }

    /// The tensors of the adapter, none where there is none.
    pub fn adapter_tensors(&self) -> Result<Vec<SourceTensor>> {
        match &*self.own_adapter {
            [] => adapter_beside(&self.beside),
            own => Ok(own.to_vec()),
        }
    }

    /// # Errors
    /// When as many files are there as `found` of `promised` rows say, and a checkpoint needs others.
    pub fn check_share(&self, found: u64, promised: u64) -> Result<()> {
        self.layout.check_share(&self.folder, found, promised)
    }

    /// Whether the weights lie beside a file `mark`, or, where that ends in `_`, in a folder `markN`.
    pub fn has_mark(&self, mark: &str) -> bool {
        let is_numbered = |folder: &Folder| {
            let name = folder.path().file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix(mark));
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        match mark.ends_with('_') {
            true => self.beside.iter().any(is_numbered),
            false => self.beside.iter().any(|folder| folder.exists(mark)),
        }
    }

    /// Returns whether the weights are those of a Hugging Face directory, by the names of their files.
    pub fn is_hugging_face(&self) -> bool {
        match &self.layout {
            CheckpointFormat::Safetensors(_) | CheckpointFormat::HfSharded => true,
            CheckpointFormat::Torch(files) => {
                let own = |name: &String| name.starts_with("pytorch_model");
                files.index.is_some() || files.names.iter().all(own)
            }
            _ => false,
        }
    }

    /// Whether the tensors come in the order of the model, as in a state dict.
    pub fn has_own_order(&self) -> bool {
        matches!(
            self.layout,
            CheckpointFormat::Torch(_)
                | CheckpointFormat::FsdpRanks
                | CheckpointFormat::Dcp
                | CheckpointFormat::DeepSpeed(_)
        )
    }

    /// The system that writes such names in such a layout.
    pub fn system_with<'a>(&'a self, names: &'a str) -> &'a str {
        match (&self.layout, names) {
            (CheckpointFormat::Dcp, "meta") if self.params.is_some() => "lingua",
            (CheckpointFormat::Dcp, "meta") => "torchtitan",
            (CheckpointFormat::Dcp | CheckpointFormat::HfSharded, "huggingface") => "dcp",
            (_, "megatron") if !self.side_files.is_empty() => "verl-megatron",
            (CheckpointFormat::Torch(_), "meta") => "meta",
            (_, "torchtitan" | "torchtune" | "torchtune-main" | "megatron") => names,
            (_, "litgpt" | "nanotron" | "olmo-core" | "prime-rl") => names,
            (layout, _) => layout.word(),
        }
    }
}

/// The side files of all folders that go with the weights; of two of one name the nearer counts.
fn side_files_of(located: &LocatedCheckpoint) -> Result<Vec<SideFile>> {
    let mut files: Vec<SideFile> = Vec::new();
    for folder in &located.beside {
        let mut own = side_files::side_files(folder)?;
        own.retain(|file| !is_own_config(folder, file));
        for file in own {
            if !files.iter().any(|other| other.path == file.path) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Whether a file is OLMo-core's config of a training, which it calls config.json too.
fn is_own_config(folder: &Folder, file: &SideFile) -> bool {
    file.path == "config.json" && folder.has_folder("model_and_optim")
}

fn json_beside(folders: &[Folder], name: &str) -> Result<Option<Map<String, Value>>> {
    let folder = folders.iter().find(|folder| folder.exists(name));
    folder.map(|folder| folder.json(name)).transpose()
}

/// A file that is shown as it is, and is an object of JSON.
fn json_file(folder: &Folder, name: &str) -> Result<Arc<SourceFile>> {
    folder.json::<Map<String, Value>>(name)?;
    folder.open_file(name)
}

fn adapter_beside(folders: &[Folder]) -> Result<Vec<SourceTensor>> {
    for folder in folders {
        if let Some(name) = layout::adapter_file(folder)? {
            let (whole, parts) = lora::split(adapter_file(folder, &name)?);
            return Ok(whole
                .into_iter()
                .map(lora::saved_whole)
                .chain(parts)
                .collect());
        }
    }
    Ok(Vec::new())
}

fn adapter_file(folder: &Folder, name: &str) -> Result<Vec<SourceTensor>> {
    let files = Files {
        names: vec![name.to_owned()],
        index: None,
    };
    match name.ends_with(".safetensors") {
        true => whole_files::safetensors_files(folder, &files),
        false => {
            let mut saved = whole_files::torch_files(folder, &files)?;
            names::below_shared(&mut saved.tensors, &mut saved.dictionaries);
            Ok(saved.tensors)
        }
    }
}

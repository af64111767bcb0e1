//! Which kinds of checkpoint lie in a folder, told by the names of its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::contents;
use super::tag::tag;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::deepspeed::files::is_deepspeeds;
use crate::checkpoint::formats::{consolidated, nanotron};
use crate::checkpoint::tracker::{Said, Tracker};
use crate::error::{Error, Result};

/// A way in which a checkpoint lies on disk, and the files that are its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// `.metadata` and `.distcp` files of torch.distributed.checkpoint.
    Dcp,
    /// Shards of HuggingFaceStorageWriter: `shard-00001-model-00001-of-00001.safetensors`.
    HfSharded,
    /// `model_world_size_W_rank_R.pt`, one file for each rank.
    FsdpRanks,
    /// Whole tensors in safetensors files.
    Safetensors(Files),
    /// Whole tensors in files of torch.save.
    Torch(Files),
    /// `consolidated.00.pth`, one file for each tensor-parallel rank.
    Consolidated(Vec<String>),
    /// `adapter_model.*` or `adapter_E.pt` without a model.
    Adapter,
    /// `mp_rank_00` or `mp_rank_00_000` folders of Megatron.
    MegatronRanks(Vec<String>),
    /// `model/` of nanotron: a folder for each module, a file for each parameter and rank.
    Nanotron,
    /// `*_model_states.pt` and `*_optim_states.pt` of DeepSpeed, here or in the folder that `latest` names.
    DeepSpeed(Option<String>),
    /// `model_0.pt` beside `train_state_0.pt` of torch_checkpointing, torchtitan's second backend.
    TorchCheckpointing,
}

/// The names of files with whole tensors, and of the index that says what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub names: Vec<String>,
    pub index: Option<String>,
}

impl CheckpointFormat {
    /// The word by which `--system` picks this layout.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dcp => "dcp",
            Self::HfSharded => "hf-sharded",
            Self::FsdpRanks => "verl",
            Self::Safetensors(files) if files.names.iter().any(|name| is_consolidated(name)) => {
                "mistral"
            }
            Self::Safetensors(_) => "huggingface",
            Self::Torch(_) => "huggingface-bin",
            Self::Consolidated(_) => "meta",
            Self::Adapter => "peft",
            Self::MegatronRanks(_) => "megatron",
            Self::Nanotron => "nanotron",
            Self::DeepSpeed(_) => "deepspeed",
            Self::TorchCheckpointing => "torch_checkpointing",
        }
    }

    /// # Errors
    /// When as many files are there as `found` of `promised` rows say, and a checkpoint needs others.
    pub fn check_share(&self, folder: &Path, found: u64, promised: u64) -> Result<()> {
        match self {
            Self::Consolidated(names) => consolidated::check_share(folder, names, found, promised),
            _ => Ok(()),
        }
    }

    /// The file that a save of this layout writes last. Layouts that have none of their own are marked by the tracker of
    /// their run, if by anything.
    pub fn marker(&self) -> Option<&str> {
        match self {
            Self::Dcp => Some(".metadata"),
            Self::Nanotron => Some(nanotron::METADATA),
            Self::Safetensors(files) | Self::Torch(files) => files.index.as_deref(),
            Self::DeepSpeed(_)
            | Self::HfSharded
            | Self::FsdpRanks
            | Self::Consolidated(_)
            | Self::Adapter
            | Self::MegatronRanks(_)
            | Self::TorchCheckpointing => None,
        }
    }

    /// Whether ranks may end after `tracker` names their save. DeepSpeed's first rank writes `latest` as soon as its own
    /// files are done; all ranks have ended before the next save begins.
    pub fn may_outlast(&self, tracker: &Tracker) -> bool {
        matches!(self, Self::DeepSpeed(_)) && tracker.said == Said::Named && tracker.is_deepspeeds()
    }

    /// The folder of the save that is seen in `folder`.
    pub fn save_in(&self, folder: &Folder) -> PathBuf {
        match self {
            Self::DeepSpeed(Some(tag)) => folder.path().join(tag),
            _ => folder.path().to_owned(),
        }
    }

    /// The files with the weights, which a save writes before its marker.
    pub fn data_files(&self, folder: &Folder) -> Result<Vec<String>> {
        let own = |is_data: &dyn Fn(&str) -> bool| {
            let mut names = folder.names()?;
            names.retain(|name| is_data(name));
            Ok(names)
        };
        match self {
            Self::Dcp => own(&|name| name.ends_with(".distcp")),
            Self::HfSharded => own(&is_hf_shard),
            Self::Nanotron => nanotron::files(folder),
            Self::FsdpRanks => own(&is_rank),
            Self::DeepSpeed(None) => own(&is_deepspeeds),
            Self::DeepSpeed(Some(tag)) => {
                let mut names = folder.subfolder(tag)?.names()?;
                names.retain(|name| is_deepspeeds(name));
                Ok(names.iter().map(|name| format!("{tag}/{name}")).collect())
            }
            Self::Adapter | Self::TorchCheckpointing => {
                own(&|name| is_torch(name) || name.ends_with(".safetensors"))
            }
            Self::Safetensors(files) | Self::Torch(files) => Ok(files.names.clone()),
            Self::Consolidated(names) => Ok(names.clone()),
            Self::MegatronRanks(ranks) => {
                let mut files = Vec::new();
                for rank in ranks {
                    let names = folder.subfolder(rank)?.names()?;
                    files.extend(names.iter().map(|name| format!("{rank}/{name}")));
                }
                Ok(files)
            }
        }
    }

    /// Folders with files of the weights inside the one that the layout is seen in.
    pub fn inner_folders(&self) -> &[String] {
        match self {
            Self::MegatronRanks(ranks) => ranks,
            Self::DeepSpeed(tag) => tag.as_slice(),
            _ => &[],
        }
    }

    /// The evidence for it.
    pub fn evidence(&self) -> String {
        let files = |names: &[String]| match names {
            [one] => one.clone(),
            [first, .., last] => format!("{first} to {last}"),
            [] => String::new(),
        };
        match self {
            Self::Dcp => ".metadata of torch.distributed.checkpoint".to_owned(),
            Self::HfSharded => "shard-*-model-*.safetensors of HuggingFaceStorageWriter".to_owned(),
            Self::Adapter => "adapter_model.* or adapter_*.pt without a model".to_owned(),
            Self::Nanotron => format!("{} beside {}/", nanotron::METADATA, nanotron::MODEL),
            Self::TorchCheckpointing => "files of torch_checkpointing".to_owned(),
            Self::DeepSpeed(None) => "*_model_states.pt of DeepSpeed".to_owned(),
            Self::DeepSpeed(Some(tag)) => format!("{tag}/*_model_states.pt of DeepSpeed"),
            Self::FsdpRanks => "model_world_size_*_rank_*.pt".to_owned(),
            Self::Safetensors(own) | Self::Torch(own) => files(&own.names),
            Self::Consolidated(names) | Self::MegatronRanks(names) => files(names),
        }
    }
}

/// The file of an adapter: PEFT's (peft 0.21.2), or else torchtune's in its own keys, which since 0.5 lies beside PEFT's
/// and before was `adapter_E.pt` for each epoch.
pub fn adapter_file(folder: &Folder) -> Result<Option<String>> {
    const NAMES: [&str; 3] = [
        "adapter_model.safetensors",
        "adapter_model.bin",
        "adapter_model.pt",
    ];
    if let Some(name) = NAMES.into_iter().find(|name| folder.exists(name)) {
        return Ok(Some(name.to_owned()));
    }
    let mut names = folder.names()?;
    names.retain(|name| is_epochs_adapter(name));
    match &*names {
        [] => Ok(None),
        [name] => Ok(Some(name.clone())),
        several => {
            let reason = format!("holds several adapters; name one: {}", several.join(", "));
            Err(Error::checkpoint(folder.path(), reason))
        }
    }
}

fn is_epochs_adapter(name: &str) -> bool {
    let epoch = name
        .strip_prefix("adapter_")
        .and_then(|rest| rest.strip_suffix(".pt"));
    epoch.is_some_and(|epoch| epoch.parse::<u64>().is_ok())
}

/// How names of files of torch.save end, as far as their writers keep to it.
const TORCH_ENDS: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pth.tar"];

/// All layouts that the folder's own names show.
pub fn layouts(folder: &Folder) -> Result<Vec<CheckpointFormat>> {
    let names = folder.names()?;
    let pick = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        names.iter().filter(|name| wanted(name)).cloned().collect()
    };
    let has = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
    let mut found = Vec::new();
    if has(&|name| name == nanotron::METADATA) && folder.has_folder(nanotron::MODEL) {
        return Ok(vec![CheckpointFormat::Nanotron]);
    }
    if is_torch_checkpointing(&names) {
        return Ok(vec![CheckpointFormat::TorchCheckpointing]);
    }
    if has(&|name| name == ".metadata" || name.ends_with(".distcp")) {
        found.push(CheckpointFormat::Dcp);
    }
    if has(&is_hf_shard) {
        found.push(CheckpointFormat::HfSharded);
    }
    if has(&is_rank) {
        found.push(CheckpointFormat::FsdpRanks);
    }
    let consolidated = pick(&|name| is_consolidated(name) && is_torch(name));
    if !consolidated.is_empty() {
        found.push(CheckpointFormat::Consolidated(consolidated));
    }
    let safetensors =
        |name: &str| name.ends_with(".safetensors") && !is_hf_shard(name) && !is_beside(name);
    let (mistral, own): (Vec<_>, Vec<_>) = pick(&safetensors)
        .into_iter()
        .partition(|name| is_consolidated(name));
    for own in [mistral, own].into_iter().filter(|own| !own.is_empty()) {
        let index = index(folder, &names, ".safetensors.index.json", &own)?;
        found.push(CheckpointFormat::Safetensors(Files { names: own, index }));
    }
    let (ranks, others): (Vec<String>, Vec<String>) = folder
        .folders()?
        .into_iter()
        .partition(|name| name.starts_with("mp_rank_"));
    let has_others = !found.is_empty() || !ranks.is_empty() || !others.is_empty();
    let torch = torch_files(folder, &names, found.first(), has_others)?;
    if !torch.names.is_empty() {
        found.push(CheckpointFormat::Torch(torch));
    }
    if !ranks.is_empty() {
        found.push(CheckpointFormat::MegatronRanks(ranks));
    }
    if found.is_empty() && adapter_file(folder)?.is_some() {
        found.push(CheckpointFormat::Adapter);
    }
    let tag = match tag(folder, &names) {
        // The states may be deleted to save space, and the weights kept.
        Err(_) if !found.is_empty() => None,
        tag => tag?,
    };
    if tag.is_some() || has(&is_deepspeeds) {
        found.push(CheckpointFormat::DeepSpeed(tag));
    }
    Ok(found)
}

/// The files of torch.save that hold weights. Beside other checkpoints and above folders a file counts if it holds a
/// matrix, beside a `.metadata` if it has the name of Hugging Face's: training keeps files of its own there.
fn torch_files(
    folder: &Folder,
    names: &[String],
    first: Option<&CheckpointFormat>,
    has_others: bool,
) -> Result<Files> {
    let is_known = |name: &str| {
        is_consolidated(name)
            || is_beside(name)
            || is_rank(name)
            || is_odd(name)
            || is_deepspeeds(name)
    };
    let candidates = names.iter().filter(|name| !is_known(name));
    let (torch, others): (Vec<&String>, Vec<&String>) = candidates.partition(|name| is_torch(name));
    let mut torch: Vec<String> = torch.into_iter().cloned().collect();
    let index = match torch.is_empty() {
        true => None,
        false => index(folder, names, ".bin.index.json", &torch)?,
    };
    if first == Some(&CheckpointFormat::Dcp) {
        torch.retain(|name| name.starts_with("pytorch_model"));
    }
    if first.is_none() {
        let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
        torch.extend(contents::torch_files_of_other_names(folder, &others));
    }
    if index.is_none() && (has_others || contents::forms(&torch) > 1) {
        let models = contents::with_models(folder, &torch);
        if has_others || !models.is_empty() {
            torch = models;
        }
    }
    torch.sort_unstable();
    let index = index.filter(|_| !torch.is_empty());
    Ok(Files {
        names: torch,
        index,
    })
}

/// The file names of one checkpoint out of `names`: all, unless they end in the numbers of several epochs.
///
/// torchtune up to 0.4 puts the epoch behind the name: `hf_model_0001_0.pt`, `model-00001-of-00004_0.safetensors`.
pub fn one_epoch(folder: &Folder, names: &[String]) -> Result<()> {
    let epochs: BTreeSet<&str> = names.iter().filter_map(|name| epoch(name)).collect();
    if epochs.len() < 2 {
        return Ok(());
    }
    let epochs: Vec<&str> = epochs.into_iter().collect();
    Err(Error::checkpoint(
        folder.path(),
        format!(
            "holds the files of epochs {}; put those of one epoch in a folder of their own",
            epochs.join(", ")
        ),
    ))
}

fn epoch(name: &str) -> Option<&str> {
    let stem = name.rsplit_once('.')?.0;
    let (front, epoch) = stem.rsplit_once('_')?;
    let known = [
        "hf_model_",
        "model-",
        "ft-model-",
        "torchtune_model",
        "meta_model",
    ];
    let is_number = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && known.iter().any(|start| front.starts_with(start))).then_some(epoch)
}

/// The one index of files that begin as it does: `consolidated...` or not.
fn index(folder: &Folder, names: &[String], end: &str, files: &[String]) -> Result<Option<String>> {
    let same_kind =
        |name: &str| files.iter().any(|file| is_consolidated(file)) == is_consolidated(name);
    let mut indexes = names
        .iter()
        .filter(|name| name.ends_with(end) && same_kind(name));
    match (indexes.next(), indexes.next()) {
        (Some(one), Some(two)) => {
            let reason =
                format!("holds two indexes, {one} and {two}; move one of the two checkpoints away");
            Err(Error::checkpoint(folder.path(), reason))
        }
        (index, _) => Ok(index.cloned()),
    }
}

/// torch_checkpointing 0.1.1 writes `metadata.pkl` and, for each rank, a file for each entry of the state.
fn is_torch_checkpointing(names: &[String]) -> bool {
    let has = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
    let other_entry = |name: &str| name.ends_with("_0.pt") && name != "model_0.pt";
    has(&|name| name == "metadata.pkl") || has(&|name| name == "model_0.pt") && has(&other_entry)
}

fn is_hf_shard(name: &str) -> bool {
    name.starts_with("shard-") && name.contains("-model-") && name.ends_with(".safetensors")
}

fn is_consolidated(name: &str) -> bool {
    name.starts_with("consolidated")
}

fn is_torch(name: &str) -> bool {
    TORCH_ENDS.iter().any(|end| name.ends_with(end))
}

/// Names that other layouts have, or their indexes.
fn is_odd(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".distcp")
}

/// Files that training keeps beside the weights, and adapters.
fn is_beside(name: &str) -> bool {
    const STARTS: [&str; 14] = [
        "adapter_",
        "optimizer",
        "optim_",
        "scheduler",
        "scaler",
        "rng_state",
        "random_states",
        "training_args",
        "trainer_state",
        "extra_state",
        "recipe_state",
        "common.pt",
        "meta.pt",
        "data.pt",
    ];
    STARTS.iter().any(|start| name.starts_with(start))
}

fn is_rank(name: &str) -> bool {
    name.starts_with("model_world_size_") && name.ends_with(".pt")
}

//! `mp_rank_TT` and `mp_rank_TT_PPP` folders: one file for each tensor-parallel and pipeline-parallel rank.
//!
//! Layouts: Megatron-LM `iter_NNNNNNN/mp_rank_TT[_PPP]/model_optim_rng.pt`; verl of spring 2025 `mp_rank_TT[_PPP]/model.pt`,
//! a dict or a list of dicts, one for each virtual stage (scripts/legacy_model_merger.py).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::megatron_args;
use super::numbered_files::NumberedFiles;
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::SourceTensor;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::names::{is_weight, unwrapped};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::Tensor;

/// Tensors of one rank's virtual stage, by name.
type Stage = BTreeMap<String, Tensor>;

/// The file of one rank.
struct Rank {
    /// The name of its folder.
    name: String,
    path: PathBuf,
    file: TorchFile,
}

/// By tensor-parallel and pipeline-parallel rank.
type Ranks = BTreeMap<(u64, u64), Rank>;

/// Every tensor with its parts in the order of the tensor-parallel ranks, layers numbered through all stages. Also what the
/// arguments of the training tell of config.json.
///
/// # Errors
/// When ranks are missing, are of different iterations, or hold rows in an order that no table knows.
pub fn read(folder: &Folder, names: &[String]) -> Result<(Vec<SourceTensor>, Map<String, Json>)> {
    let (files, ranks) = ranks(folder, names)?;
    let (tensor_ranks, pipeline_ranks) = extent(folder, &files, &ranks)?;
    check_iterations(folder, &ranks)?;
    let mut declared = ranks
        .values()
        .map(|rank| megatron_args::declared(&rank.file));
    let declared = declared
        .find(|declared| !declared.is_empty())
        .unwrap_or_default();
    let mut stages: BTreeMap<(u64, u64), Vec<Stage>> = BTreeMap::new();
    for ((tensor_rank, pipeline_rank), rank) in &ranks {
        for (virtual_stage, stage) in stages_of(rank)? {
            let parts = stages.entry((virtual_stage, *pipeline_rank)).or_default();
            if parts.len() as u64 != *tensor_rank {
                return Err(Error::checkpoint(
                    folder.path(),
                    format!(
                        "{} has a stage that other ranks lack: {INCOMPLETE}",
                        rank.name
                    ),
                ));
            }
            parts.push(stage);
        }
    }
    let mut tensors = BTreeMap::new();
    let mut first_layer = 0;
    for ((_, pipeline_rank), parts) in &stages {
        if parts.len() as u64 != tensor_ranks || *pipeline_rank >= pipeline_ranks {
            let reason = format!("the tensor-parallel ranks hold different stages: {INCOMPLETE}");
            return Err(Error::checkpoint(folder.path(), reason));
        }
        first_layer = add(folder, parts, first_layer, &mut tensors)?;
    }
    Ok((tensors.into_values().collect(), declared))
}

/// Adds one stage's tensors, its layers numbered from `first_layer` on. The number of the next stage's first layer.
fn add(
    folder: &Folder,
    parts: &[Stage],
    first_layer: u64,
    tensors: &mut BTreeMap<String, SourceTensor>,
) -> Result<u64> {
    let mut next = first_layer;
    let [first, rest @ ..] = parts else {
        return Ok(next);
    };
    if let Some(other) = rest.iter().find(|part| !part.keys().eq(first.keys())) {
        let odd = other
            .keys()
            .chain(first.keys())
            .find(|name| other.contains_key(*name) != first.contains_key(*name));
        let name = odd.map_or("", String::as_str);
        let reason = format!("is in the files of some tensor-parallel ranks only: {INCOMPLETE}");
        return Err(Error::tensor(folder.path(), name, reason));
    }
    for name in first.keys() {
        let parts: Vec<Tensor> = parts
            .iter()
            .filter_map(|part| part.get(name))
            .cloned()
            .collect();
        let (name, layer) = renumbered(name, first_layer);
        next = next.max(layer.map_or(0, |layer| layer + 1));
        // The last stage keeps a copy of a tied embedding for its own use of it.
        let tensor = SourceTensor::new(name.clone(), parts);
        tensors.entry(name).or_insert(tensor);
    }
    Ok(next)
}

/// The name with its layer counted from the model's first, and that layer.
fn renumbered(name: &str, first_layer: u64) -> (String, Option<u64>) {
    let mut components: Vec<String> = name.split('.').map(str::to_owned).collect();
    let at = components
        .iter()
        .position(|component| component == "layers")
        .map(|at| at + 1);
    let number = at.and_then(|at| components.get(at)?.parse::<u64>().ok());
    match (
        at,
        number.and_then(|number| number.checked_add(first_layer)),
    ) {
        (Some(at), Some(layer)) => {
            components[at] = layer.to_string();
            (components.join("."), Some(layer))
        }
        _ => (name.to_owned(), None),
    }
}

/// # Errors
/// When the first rank's arguments tell of more or fewer ranks.
fn check_stated_extent(folder: &Folder, first: &TorchFile, extent: (u64, u64)) -> Result<()> {
    let size = |key: &str| first.get(&["args", key]).and_then(|size| size.as_u64());
    let Some(tensor) = size("tensor_model_parallel_size") else {
        return Ok(());
    };
    let pipeline = size("pipeline_model_parallel_size").unwrap_or(1);
    if (tensor, pipeline) == extent {
        return Ok(());
    }
    let (tensor_ranks, pipeline_ranks) = extent;
    let reason = format!(
        "holds mp_rank_* of {tensor_ranks} tensor-parallel and {pipeline_ranks} pipeline-parallel ranks, where its args say {tensor} and {pipeline}: {INCOMPLETE}"
    );
    Err(Error::checkpoint(folder.path(), reason))
}

/// Their folders, `mp_rank_TT_EEE` or `mp_rank_TT_PPP_EEE`, look like those of pipeline-parallel ranks.
fn refuse_expert_ranks(folder: &Folder, ranks: &Ranks) -> Result<()> {
    let count = ranks.values().find_map(|rank| {
        let size = rank.file.get(&["args", "expert_model_parallel_size"])?;
        size.as_u64().filter(|count| *count > 1)
    });
    count.map_or(Ok(()), |count| {
        let reason = format!(
            "was saved by {count} expert-parallel ranks, whose mp_rank_* files are not read: save with --ckpt-format torch_dist"
        );
        Err(Error::checkpoint(folder.path(), reason))
    })
}

fn check_iterations(folder: &Folder, ranks: &Ranks) -> Result<()> {
    let iterations = ranks.values().filter_map(|rank| {
        let iteration = rank.file.get(&["iteration"])?.as_u64()?;
        Some((iteration, &rank.name))
    });
    let iterations: Vec<_> = iterations.collect();
    let odd = iterations.iter().find(|(own, _)| *own != iterations[0].0);
    let Some(((own, name), (other, first))) = odd.zip(iterations.first()) else {
        return Ok(());
    };
    let reason = format!(
        "{first} is of iteration {other}, {name} of {own}: two saves are mixed; copy one of them whole"
    );
    Err(Error::checkpoint(folder.path(), reason))
}

fn open(folder: &Folder, name: &str) -> Result<Rank> {
    let rank = folder.subfolder(name)?;
    let known = ["model_optim_rng.pt", "model.pt", "model_rng.pt"];
    let Some(file) = known.iter().find(|file| rank.exists(file)) else {
        let reason = format!("holds none of {}: {INCOMPLETE}", known.join(", "));
        return Err(Error::checkpoint(rank.path(), reason));
    };
    Ok(Rank {
        name: name.to_owned(),
        path: rank.path().join(file),
        file: TorchFile::open(rank.open_file(file)?)?,
    })
}

/// The weights of one rank's file, by virtual stage.
fn stages_of(Rank { path: at, file, .. }: &Rank) -> Result<BTreeMap<u64, Stage>> {
    refuse_old_order(file)
        .and_then(|()| megatron_args::refuse_interleaved(file))
        .map_err(|reason| Error::checkpoint(at, reason))?;
    let mut stages: BTreeMap<u64, Stage> = BTreeMap::new();
    for (path, value) in file.tensors(&|path| is_weight(&path.join(".")))? {
        let (stage, tensor_name) = stage_of(&path);
        match value? {
            Value::Plain(tensor) => stages.entry(stage).or_default().insert(tensor_name, tensor),
            _ => {
                let reason =
                    "is sharded inside of a rank's file; save with --ckpt-format torch_dist";
                return Err(Error::tensor(at, &tensor_name, reason));
            }
        };
    }
    Ok(stages)
}

/// Before version 2.0 the rows of query_key_value lay in another order (Megatron-LM, checkpointing.py, fix_query_key_value_ordering).
fn refuse_old_order(file: &TorchFile) -> std::result::Result<(), String> {
    let version = file.get(&["checkpoint_version"]);
    match version.and_then(|version| {
        version
            .as_f64()
            .or(version.as_i64().map(|version| version as f64))
    }) {
        Some(version) if version < 2.0 => Err(format!(
            "checkpoint_version {version} orders query_key_value as Megatron did before 2.0; load and save it with a newer Megatron-LM"
        )),
        // Without a version Megatron-LM takes it for 0.
        None if file.get(&["model", "language_model"]).is_some() => Err(
            "has the old names and no checkpoint_version, so that the order of query_key_value is not known; load and save it with a newer Megatron-LM"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// `model`, `model0`, `model1` or the index of a list tell the virtual stage.
fn stage_of(path: &[String]) -> (u64, String) {
    let (first, rest) = match path {
        [first, rest @ ..] if !rest.is_empty() => (&**first, rest),
        _ => ("", path),
    };
    let number = first.strip_prefix("model").unwrap_or(first);
    let name = |path: &[String]| unwrapped(&path.join(".")).into_owned();
    match number.parse() {
        Ok(stage) => (stage, name(rest)),
        Err(_) if first == "model" => (0, name(rest)),
        Err(_) => (0, name(path)),
    }
}

/// Tensor-parallel and pipeline-parallel rank of each folder.
fn ranks(folder: &Folder, names: &[String]) -> Result<(NumberedFiles, Ranks)> {
    let mut files = NumberedFiles::parse(folder.path(), "mp_rank_{}", names)?;
    if files.is_empty() {
        files = NumberedFiles::parse(folder.path(), "mp_rank_{}_{}", names)?;
    }
    if let Some(name) = names
        .iter()
        .find(|name| !files.names().any(|own| own == *name))
    {
        let reason = format!(
            "{name} is no mp_rank_TT or mp_rank_TT_PPP; files of expert-parallel ranks are not read: save with --ckpt-format torch_dist"
        );
        return Err(Error::checkpoint(folder.path(), reason));
    }
    let mut ranks = BTreeMap::new();
    for (numbers, name) in files.iter() {
        let number = |place: usize| numbers.get(place).copied().unwrap_or(0);
        ranks.insert((number(0), number(1)), open(folder, name)?);
    }
    Ok((files, ranks))
}

/// How many ranks there are of each kind; all combinations must be there, and no more than the arguments tell.
fn extent(folder: &Folder, files: &NumberedFiles, ranks: &Ranks) -> Result<(u64, u64)> {
    refuse_expert_ranks(folder, ranks)?;
    let (tensor, pipeline) = (files.extent(0), files.extent(1).max(1));
    match files.extent(1) {
        0 => files.require_ranks(tensor)?,
        stages => files.require(&[0..tensor, 0..stages])?,
    }
    if let Some(rank) = ranks.get(&(0, 0)) {
        check_stated_extent(folder, &rank.file, (tensor, pipeline))?;
    }
    Ok((tensor, pipeline))
}

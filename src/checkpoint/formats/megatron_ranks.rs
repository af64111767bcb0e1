//! `mp_rank_TT[_PPP][_EEE]` folders: one file for each tensor-parallel, pipeline-parallel and expert-parallel rank.
//!
//! Layouts: Megatron-LM `iter_NNNNNNN/mp_rank_TT[_PPP][_EEE]/model_optim_rng.pt`; verl of spring 2025 `mp_rank_TT[_PPP]/model.pt`,
//! a dict or a list of dicts, one for each virtual stage (scripts/legacy_model_merger.py).

mod experts;
mod grid;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::megatron_args;
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::SourceTensor;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::names::{is_optimizers, unwrapped};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::Tensor;
use experts::{Stage, is_expert, local_expert};
use grid::{Rank, RankFiles, ranks};

/// The beginning of names of multi-token prediction.
const PREDICTION: &str = "mtp.";

/// The contents of the files of all ranks together.
#[derive(Debug, Default)]
pub struct Ranks {
    pub tensors: Vec<SourceTensor>,
    /// The copies that expert-parallel ranks hold of one tensor.
    pub copies: Vec<SourceTensor>,
    /// Values of config.json that the arguments of the training tell.
    pub declared: Map<String, Json>,
    /// Entries with tensors that stand beside the models, such as the random state.
    pub beside: BTreeSet<String>,
}

/// The tensors of the ranks of one pipeline stage.
#[derive(Default)]
struct Parts {
    /// By tensor-parallel rank.
    dense: BTreeMap<u64, Stage>,
    /// Experts by expert-parallel rank, then by tensor-parallel rank.
    experts: BTreeMap<u64, BTreeMap<u64, Stage>>,
}

/// Every tensor with its parts in the order of the tensor-parallel ranks, layers numbered through all stages, experts
/// through all expert-parallel ranks.
///
/// # Errors
/// When ranks are missing, are of different iterations, or hold rows in an order that no table knows.
pub fn read(folder: &Folder, names: &[String]) -> Result<Ranks> {
    let (files, sizes) = ranks(folder, names)?;
    check_iterations(folder, &files)?;
    let declared = files
        .values()
        .map(|rank| megatron_args::declared(&rank.file));
    let declared = { declared }.find(|declared| !declared.is_empty());
    let mut stages: BTreeMap<(u64, u64), Parts> = BTreeMap::new();
    let (mut copies, mut beside) = (Vec::new(), BTreeSet::new());
    for ((tensor_rank, pipeline_rank, expert_rank), rank) in &files {
        for (virtual_stage, stage) in stages_of(rank, &mut beside)? {
            let parts = stages.entry((virtual_stage, *pipeline_rank)).or_default();
            let is_divided = |(name, _): &(String, Tensor)| sizes.expert > 1 && is_expert(name);
            let (experts, dense): (Stage, Stage) = stage.into_iter().partition(is_divided);
            if *tensor_rank == 0 && (virtual_stage, *pipeline_rank) == (0, 0) {
                copies.extend(
                    dense
                        .iter()
                        .next()
                        .map(|(name, tensor)| (name.clone(), tensor.clone())),
                );
            }
            parts.dense.entry(*tensor_rank).or_insert(dense);
            if !experts.is_empty() {
                let own = parts.experts.entry(*expert_rank).or_default();
                own.insert(*tensor_rank, experts);
            }
        }
    }
    let mut tensors = BTreeMap::new();
    let mut first_layer = 0;
    for parts in stages.values() {
        if parts.dense.len() as u64 != sizes.tensor {
            let reason = format!("the tensor-parallel ranks hold different stages: {INCOMPLETE}");
            return Err(Error::checkpoint(folder.path(), reason));
        }
        let dense: Vec<&Stage> = parts.dense.values().collect();
        let next = add(folder, &dense, first_layer, None, &mut tensors)?;
        let refuse = |reason: String| Error::checkpoint(folder.path(), reason);
        if let Some((rank, _)) = parts.experts.iter().next()
            && parts.experts.len() as u64 != sizes.expert
        {
            let reason = format!(
                "expert-parallel rank {rank} of {} holds experts, and others do not: {INCOMPLETE}",
                sizes.expert
            );
            return Err(refuse(reason));
        }
        for (rank, stages) in &parts.experts {
            let first = experts::first(*rank, stages, sizes.expert, sizes.experts);
            let first = Some(first.map_err(refuse)?);
            let stages: Vec<&Stage> = stages.values().collect();
            add(folder, &stages, first_layer, first, &mut tensors)?;
        }
        first_layer = next;
    }
    Ok(Ranks {
        tensors: tensors.into_values().collect(),
        copies: copied(copies),
        declared: declared.unwrap_or_default(),
        beside,
    })
}

/// One tensor with the copies that several ranks have of it.
fn copied(copies: Vec<(String, Tensor)>) -> Vec<SourceTensor> {
    match &*copies {
        [(name, _), _, ..] => {
            let own = copies.iter().filter(|(other, _)| other == name);
            let parts: Vec<Tensor> = own.map(|(_, tensor)| tensor.clone()).collect();
            vec![SourceTensor::new(name.clone(), parts)]
        }
        _ => Vec::new(),
    }
}

/// Adds one stage's tensors, its layers numbered from `first_layer` on, its experts from `first_expert` on. Returns the
/// number of the next stage's first layer.
fn add(
    folder: &Folder,
    parts: &[&Stage],
    first_layer: u64,
    first_expert: Option<u64>,
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
        let name = match (first_expert, local_expert(name)) {
            (Some(first), Some((front, number, back))) => {
                format!("{front}{}{back}", first.saturating_add(number))
            }
            _ => name.clone(),
        };
        let (name, layer) = renumbered(&name, first_layer);
        next = next.max(layer.map_or(0, |layer| layer + 1));
        // The last stage keeps a copy of a tied embedding for its own use of it.
        let tensor = SourceTensor::new(name.clone(), parts);
        tensors.entry(name).or_insert(tensor);
    }
    Ok(next)
}

/// The name with its layer counted from the model's first, and that layer. The last stage numbers the modules of multi-token
/// prediction, which stand behind all layers, by themselves.
fn renumbered(name: &str, first_layer: u64) -> (String, Option<u64>) {
    if name.starts_with(PREDICTION) {
        return (name.to_owned(), None);
    }
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

fn check_iterations(folder: &Folder, ranks: &RankFiles) -> Result<()> {
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

/// The weights of one rank's file, by virtual stage. Names in `beside` what is no weight of the models.
fn stages_of(
    Rank { path: at, file, .. }: &Rank,
    beside: &mut BTreeSet<String>,
) -> Result<BTreeMap<u64, Stage>> {
    refuse_old_order(file)
        .and_then(|()| megatron_args::refuse_interleaved(file))
        .map_err(|reason| Error::checkpoint(at, reason))?;
    let mut stages: BTreeMap<u64, Stage> = BTreeMap::new();
    let is_models =
        |path: &[String]| path.len() > 1 && path.first().is_some_and(|first| is_model(first));
    let found = file.tensors(&|path| !is_optimizers(&path.join(".")))?;
    let has_models = found.iter().any(|(path, _)| is_models(path));
    for (path, value) in found {
        // Beside the model, or the models of virtual stages, a rank keeps its random state and its schedule.
        if has_models && !is_models(&path) {
            beside.extend(path.into_iter().next());
            continue;
        }
        let (stage, tensor_name) = stage_of(&path);
        let Value::Plain(tensor) = value? else {
            let reason = "is sharded inside of a rank's file; save with --ckpt-format torch_dist";
            return Err(Error::tensor(at, &tensor_name, reason));
        };
        let own = stages.entry(stage).or_default();
        if own.insert(tensor_name.clone(), tensor).is_some() {
            let reason = "is there twice, with and without a wrapper's prefix; save it once";
            return Err(Error::tensor(at, &tensor_name, reason));
        }
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

/// Returns whether a key of a rank's file is that of its model, or of one of its virtual stages.
fn is_model(key: &str) -> bool {
    let number = key.strip_prefix("model");
    number.is_some_and(|number| number.is_empty() || number.parse::<u64>().is_ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_through_all_stages_and_predictions_are_not() {
        let own = |name| renumbered(name, 4);
        assert_eq!(
            own("decoder.layers.1.input_layernorm.weight"),
            (
                "decoder.layers.5.input_layernorm.weight".to_owned(),
                Some(5)
            )
        );
        assert_eq!(
            own("mtp.layers.0.enorm.weight"),
            ("mtp.layers.0.enorm.weight".to_owned(), None)
        );
    }
}

//! `mp_rank_TT[_PPP][_EEE]` folders: one file for each tensor-parallel, pipeline-parallel and expert-parallel rank.
//!
//! Layouts: Megatron-LM `iter_NNNNNNN/mp_rank_TT[_PPP][_EEE]/model_optim_rng.pt`; verl of spring 2025 `mp_rank_TT[_PPP]/model.pt`,
//! a dict or a list of dicts, one for each virtual stage (scripts/legacy_model_merger.py).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::megatron_args;
use super::numbered_files::{MOST, NumberedFiles, Numbers};
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::SourceTensor;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::names::{is_optimizers, unwrapped};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::Tensor;

/// What the names of a layer's experts have.
const EXPERTS: &str = "mlp.experts.";

/// Tensors of one rank's virtual stage, by name.
type Stage = BTreeMap<String, Tensor>;

/// The file of one rank.
struct Rank {
    /// The name of its folder.
    name: String,
    path: PathBuf,
    file: TorchFile,
}

/// By tensor-parallel, pipeline-parallel and expert-parallel rank.
type RankFiles = BTreeMap<(u64, u64, u64), Rank>;

/// What the files of all ranks hold together.
#[derive(Debug, Default)]
pub struct Ranks {
    pub tensors: Vec<SourceTensor>,
    /// The copies that expert-parallel ranks hold of one tensor.
    pub copies: Vec<SourceTensor>,
    /// What the arguments of the training tell of config.json.
    pub declared: Map<String, Json>,
}

/// What the ranks of one pipeline stage hold.
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
    let mut copies = Vec::new();
    for ((tensor_rank, pipeline_rank, expert_rank), rank) in &files {
        for (virtual_stage, stage) in stages_of(rank)? {
            let parts = stages.entry((virtual_stage, *pipeline_rank)).or_default();
            let is_expert =
                |(name, _): &(String, Tensor)| sizes.expert > 1 && name.contains(EXPERTS);
            let (experts, dense): (Stage, Stage) = stage.into_iter().partition(is_expert);
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
        add_experts(folder, parts, &sizes, first_layer, &mut tensors)?;
        first_layer = next;
    }
    Ok(Ranks {
        tensors: tensors.into_values().collect(),
        copies: copied(copies),
        declared: declared.unwrap_or_default(),
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

/// Adds the experts of one stage, each under its number in the whole model.
fn add_experts(
    folder: &Folder,
    parts: &Parts,
    sizes: &Sizes,
    first_layer: u64,
    tensors: &mut BTreeMap<String, SourceTensor>,
) -> Result<()> {
    let count = |stages: &BTreeMap<u64, Stage>| {
        let names = stages.values().flat_map(BTreeMap::keys);
        let numbers = names.map(|name| local_expert(name).map(|(_, number, _)| number));
        numbers
            .collect::<Option<BTreeSet<u64>>>()
            .map(|numbers| numbers.len() as u64)
    };
    for (rank, stages) in &parts.experts {
        let is_whole = parts.experts.len() as u64 == sizes.expert;
        let Some(own) = count(stages) else {
            let reason = "holds experts without numbers, of which each rank has some; save with --ckpt-format torch_dist";
            return Err(Error::checkpoint(folder.path(), reason));
        };
        let told = sizes.experts.unwrap_or(own.saturating_mul(sizes.expert));
        if !is_whole || own.saturating_mul(sizes.expert) != told {
            let reason = format!(
                "expert-parallel rank {rank} of {} holds {own} of {told} experts: {INCOMPLETE}",
                sizes.expert
            );
            return Err(Error::checkpoint(folder.path(), reason));
        }
        let stages: Vec<&Stage> = stages.values().collect();
        add(
            folder,
            &stages,
            first_layer,
            Some(rank.saturating_mul(own)),
            tensors,
        )?;
    }
    Ok(())
}

/// The number of an expert in its rank, and the text around it: `mlp.experts.local_experts.3.linear_fc1.weight`,
/// `mlp.experts.linear_fc1.weight3`.
fn local_expert(name: &str) -> Option<(&str, u64, &str)> {
    const STARTS: [&str; 3] = ["local_experts.", "linear_fc1.weight", "linear_fc2.weight"];
    let at = name.find(EXPERTS)? + EXPERTS.len();
    let inner = name.get(at..)?;
    let start = STARTS.iter().find(|start| inner.starts_with(**start))?;
    let (front, rest) = name.split_at(at + start.len());
    let end = rest
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, back) = rest.split_at(end);
    Some((front, digits.parse().ok()?, back))
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
    let is_models =
        |path: &[String]| path.len() > 1 && path.first().is_some_and(|first| is_model(first));
    let found = file.tensors(&|path| !is_optimizers(&path.join(".")))?;
    let has_models = found.iter().any(|(path, _)| is_models(path));
    for (path, value) in found {
        // Beside the model, or the models of virtual stages, a rank keeps its random state and its schedule.
        if has_models && !is_models(&path) {
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

/// How many ranks there are of each kind.
struct Sizes {
    tensor: u64,
    pipeline: u64,
    expert: u64,
    /// Ranks among which one expert is split.
    expert_tensor: u64,
    /// How many experts a layer has, where the arguments say it.
    experts: Option<u64>,
}

/// The file of each rank. All must be there, and no more than the arguments of the training tell.
///
/// `mp_rank_TT_NNN` is of a pipeline-parallel rank or, where the arguments tell of one stage, of an expert-parallel one.
fn ranks(folder: &Folder, names: &[String]) -> Result<(RankFiles, Sizes)> {
    const PATTERNS: [&str; 3] = ["mp_rank_{}", "mp_rank_{}_{}", "mp_rank_{}_{}_{}"];
    let parsed = PATTERNS
        .iter()
        .map(|pattern| NumberedFiles::parse(folder.path(), pattern, names));
    let parsed = parsed.collect::<Result<Vec<_>>>()?;
    let places = parsed.iter().position(|files| !files.is_empty());
    let fits = |name: &&String| places.is_some_and(|at| parsed[at].names().any(|own| own == *name));
    let odd = names.iter().find(|name| !fits(name));
    let (Some(places), None) = (places, odd) else {
        let name = odd.map_or("", String::as_str);
        let reason = format!(
            "{name} is no mp_rank_TT, mp_rank_TT_PPP or mp_rank_TT_PPP_EEE like the others; move it away"
        );
        return Err(Error::checkpoint(folder.path(), reason));
    };
    let files = &parsed[places];
    let mut opened = Vec::new();
    for (numbers, name) in files.iter() {
        opened.push((Numbers::from(numbers), open(folder, name)?));
    }
    let said = opened
        .first()
        .map(|(_, rank)| Said::of(&rank.file))
        .unwrap_or_default();
    let is_of_experts = places == 1 && said.pipeline.unwrap_or(1) == 1 && said.expert > 1;
    let (pipeline_place, expert_place) = if is_of_experts { (2, 1) } else { (1, 2) };
    let extent = |place: usize| files.extent(place).max(1);
    let sizes = Sizes {
        tensor: extent(0),
        pipeline: extent(pipeline_place),
        expert: extent(expert_place),
        expert_tensor: said.expert_tensor.unwrap_or(extent(0)),
        experts: said.experts,
    };
    said.check(folder, &sizes)?;
    let numbers = |tensor, pipeline, expert| {
        let all = if is_of_experts {
            [tensor, expert, pipeline]
        } else {
            [tensor, pipeline, expert]
        };
        Numbers::from(&all[..=places])
    };
    let wanted = sizes
        .ranks()
        .map(|(tensor, pipeline, expert)| numbers(tensor, pipeline, expert));
    files.require_each(wanted.collect())?;
    let number = |numbers: &Numbers, place: usize| numbers.get(place).copied().unwrap_or(0);
    let key = |numbers: &Numbers| {
        (
            number(numbers, 0),
            number(numbers, pipeline_place),
            number(numbers, expert_place),
        )
    };
    Ok((
        opened
            .into_iter()
            .map(|(numbers, rank)| (key(&numbers), rank))
            .collect(),
        sizes,
    ))
}

impl Sizes {
    /// The ranks that save a file: of those that hold copies of the same experts, the first (Megatron-LM,
    /// training/checkpointing.py, `save_checkpoint`).
    fn ranks(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let (tensor, expert_tensor, expert) = (self.tensor, self.expert_tensor.max(1), self.expert);
        let inner = expert_tensor.saturating_mul(expert).max(tensor).min(MOST);
        (0..self.pipeline.min(MOST)).flat_map(move |pipeline| {
            let rank = move |index: u64| (index % tensor, pipeline, index / expert_tensor % expert);
            (0..inner).map(rank)
        })
    }
}

/// What the arguments of the training tell of its ranks.
#[derive(Default)]
struct Said {
    tensor: Option<u64>,
    pipeline: Option<u64>,
    expert: u64,
    expert_tensor: Option<u64>,
    experts: Option<u64>,
}

impl Said {
    fn of(file: &TorchFile) -> Self {
        let size = |key: &str| file.get(&["args", key]).and_then(|size| size.as_u64());
        Self {
            tensor: size("tensor_model_parallel_size"),
            pipeline: size("pipeline_model_parallel_size"),
            expert: size("expert_model_parallel_size").unwrap_or(1),
            expert_tensor: size("expert_tensor_parallel_size"),
            experts: size("num_experts"),
        }
    }

    /// # Errors
    /// When there are more or fewer ranks.
    fn check(&self, folder: &Folder, sizes: &Sizes) -> Result<()> {
        let Some(tensor) = self.tensor else {
            return Ok(());
        };
        let said = (tensor, self.pipeline.unwrap_or(1), self.expert);
        if said == (sizes.tensor, sizes.pipeline, sizes.expert) {
            return Ok(());
        }
        let reason = format!(
            "holds mp_rank_* of {} tensor-parallel, {} pipeline-parallel and {} expert-parallel ranks, where its args say {}, {} and {}: {INCOMPLETE}",
            sizes.tensor, sizes.pipeline, sizes.expert, said.0, said.1, said.2
        );
        Err(Error::checkpoint(folder.path(), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_are_told_by_their_number_in_the_rank() {
        let one = |name| local_expert(name).map(|(_, number, back)| (number, back));
        assert_eq!(
            one("decoder.layers.0.mlp.experts.local_experts.12.linear_fc1.weight"),
            Some((12, ".linear_fc1.weight"))
        );
        assert_eq!(
            one("decoder.layers.0.mlp.experts.linear_fc2.weight3"),
            Some((3, ""))
        );
        assert_eq!(one("decoder.layers.0.mlp.experts.weight1"), None);
        assert_eq!(
            one("decoder.layers.0.mlp.shared_experts.linear_fc1.weight"),
            None
        );
    }

    #[test]
    fn one_rank_of_those_with_the_same_experts_saves_them() {
        let ranks = |tensor, expert_tensor, expert| {
            let sizes = Sizes {
                tensor,
                pipeline: 1,
                expert,
                expert_tensor,
                experts: None,
            };
            sizes
                .ranks()
                .map(|(tensor, _, expert)| (tensor, expert))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            ranks(2, 2, 2),
            BTreeSet::from([(0, 0), (1, 0), (0, 1), (1, 1)])
        );
        assert_eq!(ranks(2, 1, 2), BTreeSet::from([(0, 0), (1, 1)]));
        assert_eq!(
            ranks(1, 1, 4),
            BTreeSet::from([(0, 0), (0, 1), (0, 2), (0, 3)])
        );
        assert_eq!(ranks(4, 4, 1).len(), 4);
    }
}

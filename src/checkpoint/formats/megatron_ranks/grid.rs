//! Which tensor-parallel, pipeline-parallel and expert-parallel rank wrote each file, and whether all are there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::numbered_files::{MOST, NumberedFiles, Numbers};
use crate::checkpoint::formats::torch_file::TorchFile;
use crate::error::{Error, INCOMPLETE, Result};

/// The file of one rank.
pub struct Rank {
    /// The name of its folder.
    pub name: String,
    pub path: PathBuf,
    pub file: TorchFile,
}

/// By tensor-parallel, pipeline-parallel and expert-parallel rank.
pub type RankFiles = BTreeMap<(u64, u64, u64), Rank>;

/// How many ranks there are of each kind.
pub struct Sizes {
    pub tensor: u64,
    pub pipeline: u64,
    pub expert: u64,
    /// Ranks among which one expert is split.
    expert_tensor: u64,
    /// How many experts a layer has, where the arguments say it.
    pub experts: Option<u64>,
}

/// The file of each rank. All must be there, and no more than the arguments of the training tell.
///
/// `mp_rank_TT_NNN` is of a pipeline-parallel rank or, where the arguments tell of one stage, of an expert-parallel one.
pub fn ranks(folder: &Folder, names: &[String]) -> Result<(RankFiles, Sizes)> {
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

/// The training's ranks, as its arguments tell them.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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

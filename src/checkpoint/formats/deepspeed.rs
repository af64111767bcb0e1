//! DeepSpeed's folder of one save: `*_model_states.pt` with the model's state dict, and `*_optim_states.pt` with the F32
//! masters, which ZeRO keeps flattened and divided among the ranks.
//!
//! Every parameter is a part of a flat array. ZeRO-1 and 2 lay the parameters of a group one after the other and give each
//! rank an equal stretch of that; ZeRO-3 divides each parameter, so that a rank's group holds a stretch of each in turn:
//!
//! ```text
//! ZeRO-2, 2 ranks   a a a a a b b | b b b c c c .        the group is padded at its end
//! ZeRO-3, 2 ranks   a a a b b b c c | a a . b b . c .    each parameter is padded at its end
//! ```
//!
//! Formats: DeepSpeed 0.14.4 to 0.19.8 `runtime/engine.py`, `utils/zero_to_fp32.py` and `checkpoint/ds_to_universal.py`.

pub mod files;
mod flat_groups;
mod model_states;
mod optim_states;
mod same_save;
mod tensor_parallel;
mod universal;
mod weights;

use std::collections::BTreeMap;

use crate::checkpoint::folder::Folder;
use crate::error::Result;
use crate::parallel;
use crate::tensor::{Dtype, SourceTensor};
use files::Files;
use model_states::ModelStates;
use optim_states::OptimStates;

/// The tensors of a model in a save of DeepSpeed.
#[derive(Debug, Default)]
pub struct Saved {
    /// The F32 masters, and what no optimizer has: frozen parameters and buffers.
    pub tensors: Vec<SourceTensor>,
    /// The model's own weights of those tensors: the masters, rounded to the type in which it trains.
    pub rounded: Vec<SourceTensor>,
    /// Of the smallest parameter that tensor-parallel ranks replicate, their copies.
    pub copies: Vec<SourceTensor>,
    pub notes: Vec<String>,
    /// Why model and optimizer states may be of two steps, unless their elements agree.
    pub doubt: Option<String>,
    /// The type in which the model trains, where that is none of the masters'.
    pub trained_as: Option<Dtype>,
}

/// The files of one tensor-parallel rank, by data-parallel rank.
#[derive(Debug, Default)]
struct TensorRank {
    models: Vec<ModelStates>,
    optims: Vec<OptimStates>,
}

/// Reads the save in `folder`, and no tensor of it.
///
/// # Errors
/// When a rank is missing, too many are there, or files are of two saves; and for pipelines and experts, which lie in files
/// of their own.
pub fn read(folder: &Folder) -> Result<Saved> {
    let files = Files::of(folder)?;
    let is_universal = universal::is_universal(folder);
    let ranks = tensor_ranks(folder, &files, is_universal)?;
    let first = same_save::check(&files, &ranks, is_universal)?;
    if is_universal {
        return universal::read(folder, &ranks);
    }
    if first.groups.is_none() {
        return without_zero(first, &ranks);
    }
    let mut all = Vec::with_capacity(ranks.len());
    for rank in &ranks {
        let masters = flat_groups::masters(rank)?;
        all.push(weights::weights(
            masters,
            &rank.models,
            &first.shared,
            false,
        )?);
    }
    let mut saved = match (&*ranks, all.pop()) {
        ([rank], Some(tensors)) => Saved {
            rounded: weights::rounded(rank, &tensors),
            tensors,
            ..Saved::default()
        },
        (_, last) => {
            all.extend(last);
            tensor_parallel::join(first, &all)?
        }
    };
    saved.doubt = same_save::doubt(&ranks);
    saved.trained_as = weights::trained_as(first);
    saved.notes.extend(said(&ranks));
    Ok(saved)
}

/// The files of all ranks, each read as far as its structure goes.
fn tensor_ranks(folder: &Folder, files: &Files, is_universal: bool) -> Result<Vec<TensorRank>> {
    let threads = parallel::usual_threads();
    let (model_files, optim_files) = match is_universal {
        true => (files.models(), Vec::new()),
        false => (files.models(), files.optims()),
    };
    let models = parallel::map(threads, &model_files, |file| {
        ModelStates::read(folder, file)
    });
    let optims = parallel::map(threads, &optim_files, |file| {
        OptimStates::read(folder, &file.name)
    });
    let mut ranks: BTreeMap<u64, TensorRank> = BTreeMap::new();
    for (file, model) in model_files.iter().zip(models) {
        ranks.entry(file.tensor).or_default().models.push(model?);
    }
    for (file, optim) in optim_files.iter().zip(optims) {
        ranks.entry(file.tensor).or_default().optims.push(optim?);
    }
    Ok(ranks.into_values().collect())
}

/// A training without ZeRO: the state dict of each tensor-parallel rank is whole.
fn without_zero(first: &ModelStates, ranks: &[TensorRank]) -> Result<Saved> {
    let models = ranks.iter().filter_map(|rank| rank.models.first());
    let all: Vec<Vec<SourceTensor>> = models.map(own_weights).collect();
    if all.len() > 1 {
        return tensor_parallel::join(first, &all);
    }
    Ok(Saved {
        tensors: all.into_iter().flatten().collect(),
        ..Saved::default()
    })
}

/// The state dict of one rank.
fn own_weights(model: &ModelStates) -> Vec<SourceTensor> {
    let tensors = model.module.iter().cloned();
    let tensors = tensors.map(|(name, tensor)| SourceTensor::whole(name, tensor));
    tensors.collect()
}

/// A remark on the save's writer, and the choice that there is.
fn said(ranks: &[TensorRank]) -> Vec<String> {
    let Some((model, optim)) = ranks
        .first()
        .and_then(|rank| rank.models.first().zip(rank.optims.first()))
    else {
        return Vec::new();
    };
    let version = model.version.as_deref().unwrap_or("of an unknown version");
    let (stage, world) = (optim.stage.word(), optim.world);
    vec![format!(
        "written by DeepSpeed {version}: {stage} of {world} ranks"
    )]
}

#[cfg(test)]
mod tests;

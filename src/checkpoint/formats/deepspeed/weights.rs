//! All tensors of one tensor-parallel rank in the model's order: masters, frozen parameters, buffers and shared names.

use std::collections::{HashMap, HashSet};

use super::TensorRank;
use super::model_states::ModelStates;
use super::optim_states::Stage;
use crate::error::Result;
use crate::tensor::{Dtype, Shape, SourceTensor, Tensor};

/// Every tensor of the model, each from where its elements are. Those of tensor-parallel ranks that `are_joined` have other
/// shapes than in the state dict of one.
pub fn weights(
    mut divided: HashMap<String, Tensor>,
    models: &[ModelStates],
    shared: &HashMap<String, String>,
    are_joined: bool,
) -> Result<Vec<SourceTensor>> {
    let Some(first) = models.first() else {
        return Ok(Vec::new());
    };
    for (name, shape) in &first.frozen_shapes {
        divided.insert(name.clone(), frozen(name, shape, models)?);
    }
    let mut tensors = Vec::with_capacity(first.module.len());
    for (name, saved) in &first.module {
        let tensor = weight(name, saved, first, &divided, shared, are_joined)?;
        tensors.push(SourceTensor::whole(name.as_str(), tensor));
    }
    let names: HashSet<&str> = first.module.iter().map(|(name, _)| &**name).collect();
    let others = trained(first).chain(&first.frozen_shapes);
    for (name, _) in others.filter(|(name, _)| !names.contains(name.as_str())) {
        let tensor = divided.get(name).cloned();
        tensors.extend(tensor.map(|tensor| SourceTensor::whole(name.as_str(), tensor)));
    }
    Ok(tensors)
}

/// One tensor of the state dict: divided among the ranks by its own name or the one that it shares, or as it is.
fn weight(
    name: &str,
    saved: &Tensor,
    first: &ModelStates,
    divided: &HashMap<String, Tensor>,
    shared: &HashMap<String, String>,
    are_joined: bool,
) -> Result<Tensor> {
    let is_empty = first.is_divided && saved.shape().dims() == [0] && !first.buffers.contains(name);
    let fits = |tensor: &&Tensor| is_empty || are_joined || tensor.shape() == saved.shape();
    let target = || divided.get(shared.get(name)?).filter(fits);
    match divided.get(name).or_else(target) {
        Some(tensor) if fits(&tensor) => Ok(tensor.clone()),
        Some(tensor) => {
            let (own, other) = (saved.shape(), tensor.shape());
            let reason = format!(
                "has shape {own} in module and {other} in param_shapes: files of two saves are mixed; copy one of them whole"
            );
            Err(first.refuse(name, reason))
        }
        None if is_empty => {
            let reason =
                "is divided among the ranks, and param_shapes does not tell how; take another save";
            Err(first.refuse(name, reason))
        }
        None => Ok(saved.clone()),
    }
}

/// The weights of `tensors` as the model has them: under ZeRO-1 and 2 its state dict holds the masters, rounded.
pub fn rounded(rank: &TensorRank, tensors: &[SourceTensor]) -> Vec<SourceTensor> {
    let is_whole = rank
        .optims
        .first()
        .is_some_and(|optim| optim.stage == Stage::Groups);
    let Some(first) = rank.models.first().filter(|_| is_whole) else {
        return Vec::new();
    };
    let module: HashMap<&str, &Tensor> = first
        .module
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let as_trained = |master: &SourceTensor| {
        let [tensor] = &*master.parts else {
            return None;
        };
        let own = module.get(&*master.name)?;
        let is_rounded =
            tensor.dtype() == Dtype::F32 && matches!(own.dtype(), Dtype::BF16 | Dtype::F16);
        let is_same = is_rounded && own.shape() == tensor.shape();
        is_same.then(|| SourceTensor::whole(master.name.clone(), (*own).clone()))
    };
    tensors.iter().filter_map(as_trained).collect()
}

/// The type of the trained parameters in the state dict, empty or not, where it has fewer bits than the masters.
pub fn trained_as(first: &ModelStates) -> Option<Dtype> {
    let (name, _) = trained(first).next()?;
    let (_, own) = first.module.iter().find(|(own, _)| own == name)?;
    Some(own.dtype()).filter(|dtype| matches!(dtype, Dtype::BF16 | Dtype::F16))
}

/// The names and shapes of all trained parameters.
pub fn trained(model: &ModelStates) -> impl Iterator<Item = &(String, Shape)> {
    model.groups.iter().flatten().flatten()
}

/// A frozen parameter: whole in the first file, or divided among all.
fn frozen(name: &str, shape: &Shape, models: &[ModelStates]) -> Result<Tensor> {
    let mut fragments = Vec::with_capacity(models.len());
    for model in models {
        match model.frozen.get(name) {
            Some(fragment) if fragment.shape() == shape => return Ok(fragment.clone()),
            Some(fragment) => fragments.push(fragment.clone()),
            None => {
                return Err(model.refuse(
                    name,
                    "is frozen, and frozen_param_fragments lacks it; take another save",
                ));
            }
        }
    }
    let width = shape.elements().div_ceil(fragments.len().max(1) as u64);
    let is_stretch = |fragment: &&Tensor| fragment.shape().dims() == [width];
    match models
        .iter()
        .zip(&fragments)
        .find(|(_, fragment)| !is_stretch(fragment))
    {
        Some((model, odd)) => {
            let reason = format!(
                "has shape {} in frozen_param_fragments, where each of {} ranks has {width} elements of shape {shape}: two saves are mixed; copy one of them whole",
                odd.shape(),
                fragments.len()
            );
            Err(model.refuse(name, reason))
        }
        None => Tensor::concat(&fragments, 0)?
            .narrow(0, 0, shape.elements())?
            .reshape(shape.dims()),
    }
}

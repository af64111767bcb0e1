//! Parameters that are adapted by themselves (`target_parameters`), such as those of fused experts.

use std::collections::BTreeMap;

use super::OTHER;
use super::settings::Settings;
use super::update::{Factors, Update};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::mapping::MappedTensor;
use crate::tensor::Tensor;

/// The parameters that modules of transformers 5 have, in the order in which they have them.
const ORDER: [&str; 12] = [
    "weight",
    "bias",
    "gate_up_proj",
    "gate_up_proj_bias",
    "gate_proj",
    "up_proj",
    "up_proj_bias",
    "w1",
    "w2",
    "w3",
    "down_proj",
    "down_proj_bias",
];

/// Families whose fused experts are [experts, in, out] (`is_transposed` in transformers); others are [experts, out, in].
const TRANSPOSED: [&str; 5] = [
    "gpt_oss",
    "llama4",
    "llama4_text",
    "aria",
    "openai_privacy_filter",
];

/// The updates of modules' parameters by the number of wrappers around each: PEFT wraps a module once for each parameter, in
/// the module's own order, so that the first is innermost and its name has the most `base_layer`.
#[derive(Default)]
pub struct Nested {
    modules: BTreeMap<String, BTreeMap<usize, (MappedTensor, MappedTensor)>>,
}

impl Nested {
    pub fn add(&mut self, module: String, depth: usize, left: &MappedTensor, right: &MappedTensor) {
        let updates = self.modules.entry(module).or_default();
        updates.insert(depth, (left.clone(), right.clone()));
    }

    pub fn merge(self, weights: &mut Weights<'_>, settings: &Settings) -> Result<()> {
        for (module, updates) in self.modules {
            let parameters = ORDER
                .iter()
                .map(|parameter| format!("{module}.{parameter}"));
            let parameters: Vec<String> = parameters.filter(|name| settings.adapts(name)).collect();
            let depths = updates.keys().copied().rev();
            if parameters.len() != updates.len() || !depths.eq((0..updates.len()).rev()) {
                return Err(Error::Mapping(format!(
                    "{module}: {} updates for parameters {parameters:?} of target_parameters; {OTHER}",
                    updates.len()
                )));
            }
            for (name, (left, right)) in parameters.iter().zip(updates.values().rev()) {
                let factors = Factors {
                    left,
                    right,
                    magnitude: None,
                };
                merge_parameter(weights, name, factors, settings)?;
            }
        }
        Ok(())
    }
}

fn sides(name: &str, tensor: &Tensor) -> Result<[u64; 2]> {
    match tensor.shape().dims() {
        [rows, columns] => Ok([*rows, *columns]),
        _ => Err(Error::Mapping(format!(
            "{name}: an update of shape {} is no matrix; {OTHER}",
            tensor.shape()
        ))),
    }
}

fn merge_parameter(
    weights: &mut Weights<'_>,
    name: &str,
    factors: Factors<'_>,
    settings: &Settings,
) -> Result<()> {
    let (left, right) = (&factors.left.tensor, &factors.right.tensor);
    let sources = factors.sources();
    let ([out, all], [all_of_right, columns]) = (sides(name, left)?, sides(name, right)?);
    let misfit = |found: &str| {
        Err(Error::Mapping(format!(
            "{name}: lora_A of shape {} and lora_B of {} {found}; {OTHER}",
            right.shape(),
            left.shape()
        )))
    };
    if all != all_of_right {
        return misfit("have different ranks");
    }
    let fused = weights
        .find(name)
        .map(|number| weights.dims(number))
        .transpose()?;
    let experts = match fused.as_deref() {
        Some([experts, _, _]) => *experts,
        Some([_, _]) => 1,
        Some(_) => return misfit("adapt no matrix"),
        None => weights.experts()?,
    };
    if experts == 0 || !all.is_multiple_of(experts) {
        return misfit(&format!("have a rank that {experts} experts do not share"));
    }
    let rank = all / experts;
    let scale = settings.scale(name, rank)?;
    // Experts are outermost in lora_A, innermost in lora_B.
    let lefts = left.reshape(&[out, rank, experts])?.permute(&[2, 0, 1])?;
    let rights = right.reshape(&[experts, rank, columns])?;
    let is_swapped = match fused.as_deref() {
        Some([_, rows, width]) if out != columns => [*rows, *width] == [columns, out],
        Some([_, _, _]) => weights.has_transposed_experts(&TRANSPOSED),
        _ => false,
    };
    let (lefts, rights) = match is_swapped {
        true => (rights.transpose()?, lefts.transpose()?),
        false => (lefts, rights),
    };
    let lefts = match fused.as_deref() {
        Some([_, _]) => lefts.reshape(&[out, rank])?,
        _ => lefts,
    };
    for (number, own, left) in weights.in_files(name, &lefts)? {
        let dims = weights.dims(number)?;
        let update = |left: Tensor, expert: u64| -> Result<Update> {
            let right = rights.narrow(0, expert, 1)?;
            let (rank, columns) = right.sides();
            Ok(Update {
                left,
                right: right.reshape(&[rank, columns])?,
                magnitude: None,
                scale,
                rounds_update: true,
                sources: sources.clone(),
            })
        };
        match (left.shape().rank(), expert_of(&own)) {
            (3, _) => {
                let base = weights.tensors.get(number).map(|own| own.tensor.clone());
                let Some(base) = base.filter(|base| base.shape().dims()[0] == experts) else {
                    return misfit("fit no fused experts");
                };
                let merged = (0..experts).map(|expert| {
                    let matrix = |tensor: &Tensor| {
                        let one = tensor.narrow(0, expert, 1)?;
                        let (rows, columns) = one.sides();
                        one.reshape(&[rows, columns])
                    };
                    update(matrix(&left)?, expert)?.merged(&matrix(&base)?)
                });
                let merged = merged
                    .collect::<Result<Vec<_>>>()
                    .and_then(|all| Tensor::stack(&all));
                match merged {
                    Ok(merged) => weights.set(number, merged, &sources),
                    Err(_) => return misfit(&format!("do not fit a parameter of shape {dims:?}")),
                }
            }
            (2, Some(expert)) if expert < experts => {
                weights.update(number, &own, update(left, expert)?)?;
            }
            (2, None) if experts == 1 => weights.update(number, &own, update(left, 0)?)?,
            _ => return misfit(&format!("do not fit {own}")),
        }
    }
    Ok(())
}

/// The number behind `experts.` in the name of a file's tensor.
fn expert_of(name: &str) -> Option<u64> {
    let (_, rest) = name.split_once(".experts.")?;
    rest.split('.').next()?.parse().ok()
}

impl Weights<'_> {
    /// The number of experts that config.json tells.
    fn experts(&self) -> Result<u64> {
        let keys = [
            "num_local_experts",
            "num_experts",
            "n_routed_experts",
            "moe_num_experts",
        ];
        let mut found = keys
            .iter()
            .filter_map(|key| self.base.config.get(key)?.as_u64());
        let lacks = || Error::Mapping("config.json tells no number of experts".to_owned());
        found.next().ok_or_else(lacks)
    }

    fn has_transposed_experts(&self, families: &[&str]) -> bool {
        let model_type = self.base.config.model_type().unwrap_or_default();
        families.contains(&model_type)
    }
}

//! Parameters that are adapted by themselves (`target_parameters`), such as those of fused experts.

use std::collections::BTreeMap;

use super::settings::Settings;
use super::update::{Factors, Update};
use super::weights::{OTHER, Weights};
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
    let fused = weights.find(name).map(|number| weights.dims(number));
    let fused = fused.transpose()?;
    let shared = Shared::split(weights, name, &factors, fused.as_deref(), settings)?;
    for (number, own, left) in weights.in_files(name, &shared.lefts)? {
        match (left.shape().rank(), expert_of(&own)) {
            (3, _) => shared.merge_fused(weights, number, &left)?,
            (2, Some(expert)) if expert < shared.experts => {
                weights.update(number, &own, shared.update(left, expert)?)?;
            }
            (2, None) if shared.experts == 1 => {
                weights.update(number, &own, shared.update(left, 0)?)?;
            }
            _ => return Err(shared.misfit(&format!("do not fit {own}"))),
        }
    }
    Ok(())
}

fn misfit(name: &str, factors: &Factors<'_>, found: &str) -> Error {
    Error::Mapping(format!(
        "{name}: lora_A of shape {} and lora_B of {} {found}; {OTHER}",
        factors.right.tensor.shape(),
        factors.left.tensor.shape()
    ))
}

/// The update of a parameter that experts share.
struct Shared<'f> {
    name: &'f str,
    factors: &'f Factors<'f>,
    experts: u64,
    scale: f32,
    /// [experts, rows, rank], or [rows, rank] of a parameter that is a matrix.
    lefts: Tensor,
    /// [experts, rank, columns].
    rights: Tensor,
}

impl<'f> Shared<'f> {
    /// `fused` is the shape of the parameter where it is one tensor.
    fn split(
        weights: &Weights<'_>,
        name: &'f str,
        factors: &'f Factors<'f>,
        fused: Option<&[u64]>,
        settings: &Settings,
    ) -> Result<Self> {
        let (left, right) = (&factors.left.tensor, &factors.right.tensor);
        let ([out, all], [all_of_right, columns]) = (sides(name, left)?, sides(name, right)?);
        if all != all_of_right {
            return Err(misfit(name, factors, "have different ranks"));
        }
        let experts = match fused {
            Some([experts, _, _]) => *experts,
            Some([_, _]) => 1,
            Some(_) => return Err(misfit(name, factors, "adapt no matrix")),
            None => weights.experts()?,
        };
        if experts == 0 || !all.is_multiple_of(experts) {
            let found = format!("have a rank that {experts} experts do not share");
            return Err(misfit(name, factors, &found));
        }
        let rank = all / experts;
        // Experts are outermost in lora_A, innermost in lora_B.
        let lefts = left.reshape(&[out, rank, experts])?.permute(&[2, 0, 1])?;
        let rights = right.reshape(&[experts, rank, columns])?;
        let is_swapped = match fused {
            Some([_, rows, width]) if out != columns => [*rows, *width] == [columns, out],
            Some([_, _, _]) => weights.has_transposed_experts(&TRANSPOSED),
            _ => false,
        };
        let (lefts, rights) = match is_swapped {
            true => (rights.transpose()?, lefts.transpose()?),
            false => (lefts, rights),
        };
        let lefts = match fused {
            Some([_, _]) => lefts.reshape(&[out, rank])?,
            _ => lefts,
        };
        Ok(Self {
            name,
            factors,
            experts,
            scale: settings.scale(name, rank)?,
            lefts,
            rights,
        })
    }

    fn misfit(&self, found: &str) -> Error {
        misfit(self.name, self.factors, found)
    }

    /// The update of one expert by its left factor.
    fn update(&self, left: Tensor, expert: u64) -> Result<Update> {
        Ok(Update {
            left,
            right: matrix_of(&self.rights, expert)?,
            magnitude: None,
            scale: self.scale,
            rounds_update: true,
            sources: self.factors.sources(),
        })
    }

    /// Merges the updates of all experts, which are one tensor in the files.
    fn merge_fused(&self, weights: &mut Weights<'_>, number: usize, lefts: &Tensor) -> Result<()> {
        let base = weights.tensors.get(number).map(|own| own.tensor.clone());
        let has_all = |base: &Tensor| base.shape().dims().first() == Some(&self.experts);
        let Some(base) = base.filter(has_all) else {
            return Err(self.misfit("fit no fused experts"));
        };
        let merged = (0..self.experts).map(|expert| {
            let update = self.update(matrix_of(lefts, expert)?, expert)?;
            update.merged(&matrix_of(&base, expert)?)
        });
        let merged: Result<Vec<Tensor>> = merged.collect();
        let dims = weights.dims(number)?;
        let merged = merged.and_then(|all| Tensor::stack(&all));
        let merged = merged
            .map_err(|_| self.misfit(&format!("do not fit a parameter of shape {dims:?}")))?;
        weights.set(number, merged, &self.factors.sources());
        Ok(())
    }
}

/// One of several matrices that are one tensor.
fn matrix_of(all: &Tensor, number: u64) -> Result<Tensor> {
    let one = all.narrow(0, number, 1)?;
    let (rows, columns) = one.sides();
    one.reshape(&[rows, columns])
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

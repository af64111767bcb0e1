//! The experts of expert-parallel ranks, which each rank numbers from 0 on.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::INCOMPLETE;
use crate::tensor::Tensor;

/// The part of a name that a layer's experts have.
const EXPERTS: &str = "mlp.experts.";

/// Tensors of one rank's virtual stage, by name.
pub type Stage = BTreeMap<String, Tensor>;

/// Returns whether a tensor is of a layer's experts.
pub fn is_expert(name: &str) -> bool {
    name.contains(EXPERTS)
}

/// Returns the number in the whole model of the first expert that expert-parallel rank `rank` holds. `stages` are those of
/// its tensor-parallel ranks; `told` is how many experts a layer has, where the training says it.
///
/// # Errors
/// When an expert has no number, or the ranks do not hold all.
pub fn first(
    rank: u64,
    stages: &BTreeMap<u64, Stage>,
    ranks: u64,
    told: Option<u64>,
) -> Result<u64, String> {
    let names = stages.values().flat_map(BTreeMap::keys);
    let numbers = names.map(|name| local_expert(name).map(|(_, number, _)| number));
    let Some(numbers) = numbers.collect::<Option<BTreeSet<u64>>>() else {
        return Err(
            "holds experts without numbers, of which each rank has some; save with --ckpt-format torch_dist"
                .to_owned(),
        );
    };
    let own = numbers.len() as u64;
    let told = told.unwrap_or(own.saturating_mul(ranks));
    match own.saturating_mul(ranks) == told {
        true => Ok(rank.saturating_mul(own)),
        false => Err(format!(
            "expert-parallel rank {rank} of {ranks} holds {own} of {told} experts: {INCOMPLETE}"
        )),
    }
}

/// The number of an expert in its rank, and the text around it: `mlp.experts.local_experts.3.linear_fc1.weight`,
/// `mlp.experts.linear_fc1.weight3`.
pub fn local_expert(name: &str) -> Option<(&str, u64, &str)> {
    const STARTS: [&str; 5] = [
        "local_experts.",
        "linear_fc1.weight",
        "linear_fc2.weight",
        "linear_fc1.bias",
        "linear_fc2.bias",
    ];
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
        assert_eq!(
            one("decoder.layers.0.mlp.experts.linear_fc1.bias10"),
            Some((10, ""))
        );
        assert_eq!(one("decoder.layers.0.mlp.experts.weight1"), None);
        assert_eq!(
            one("decoder.layers.0.mlp.shared_experts.linear_fc1.weight"),
            None
        );
    }
}

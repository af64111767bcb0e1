//! Contributions of rules that run backwards to one tensor, put together: tiles, slices of a new first axis, and what a rule
//! does before it cuts.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::apply::MappedTensor;
use super::config::ConfigScope;
use super::expression::Scope;
use super::operation::{Operation, Sized, size};
use super::table::Rule;
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::{Shape, Tensor};

/// The contribution of one tensor of the directory to one of the system.
pub struct Contribution<'a> {
    pub rule: &'a Rule,
    /// The slices of the first axes that it is, where the rule cuts these.
    pub index: Vec<u64>,
    /// The operation that takes it out of the whole, where it is a part.
    pub tile: Option<&'a Operation>,
    pub tensor: Tensor,
    pub sources: SmallVec<[Arc<str>; 1]>,
    pub scope: ConfigScope<'a>,
}

/// The tensor of all contributions to `name`.
///
/// # Errors
/// When they leave out a part, or two of them are the same.
pub fn assemble(name: &str, contributions: Vec<Contribution>) -> Result<MappedTensor> {
    let mut slices: BTreeMap<&[u64], Vec<&Contribution>> = BTreeMap::new();
    for each in &contributions {
        slices.entry(&each.index).or_default().push(each);
    }
    let axes = slices.keys().next().map_or(0, |index| index.len());
    let tensors = slices.values().map(|parts| whole(parts));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let mut tensor = match (axes, &*tensors) {
        (0, [tensor]) => tensor.clone(),
        _ => stacked(&slices.keys().copied().collect::<Vec<_>>(), &tensors)?,
    };
    if let Some(first) = contributions.first() {
        for operation in first.rule.pre.iter().rev() {
            tensor = operation.invert(&tensor, &first.scope)?;
        }
    }
    let mut sources: SmallVec<[Arc<str>; 1]> = SmallVec::new();
    for source in contributions.into_iter().flat_map(|each| each.sources) {
        if sources.last() != Some(&source) {
            sources.push(source);
        }
    }
    Ok(MappedTensor {
        name: name.into(),
        tensor,
        sources,
    })
}

/// Slices at every index of the first axes, in the order of the indices.
fn stacked(indices: &[&[u64]], tensors: &[Tensor]) -> Result<Tensor> {
    let incomplete = || {
        Error::Mapping(format!(
            "its {} slices are not numbered from 0 on: {INCOMPLETE}",
            tensors.len()
        ))
    };
    let last = indices.last().ok_or_else(incomplete)?;
    let lengths: Vec<u64> = last.iter().map(|index| index.saturating_add(1)).collect();
    let total = Shape::new(&lengths).map(|shape| shape.elements());
    // Sorted and distinct, none beyond the last in its first axis; the others are checked one by one.
    let inside = |index: &&[u64]| index.iter().zip(&lengths).all(|(i, length)| i < length);
    if total != Some(tensors.len() as u64) || !indices.iter().all(inside) {
        return Err(incomplete());
    }
    let stack = Tensor::stack(tensors)?;
    let rest = stack.shape().dims().get(1..).unwrap_or_default();
    stack.reshape(&[&lengths, rest].concat())
}

/// The tensor of its parts.
fn whole(parts: &[&Contribution]) -> Result<Tensor> {
    match parts {
        [only] if only.tile.is_none() => Ok(only.tensor.clone()),
        [first, second, ..] if parts.iter().any(|part| part.tile.is_none()) => {
            Err(Error::Mapping(format!(
                "both {} and {} would be it",
                first.sources[0], second.sources[0]
            )))
        }
        _ => tiled(parts),
    }
}

fn tiled(parts: &[&Contribution]) -> Result<Tensor> {
    let missing = || Error::Mapping(format!("a part of it is missing: {INCOMPLETE}"));
    match parts.first().and_then(|part| part.tile) {
        Some(Operation::Narrow(_)) => narrowed(parts, &missing),
        Some(Operation::Blocks(_)) => blocks(parts, &missing),
        _ => Err(missing()),
    }
}

/// Ranges along one dimension, which must follow each other up to its end.
fn narrowed(parts: &[&Contribution], missing: &dyn Fn() -> Error) -> Result<Tensor> {
    let dim_of = |part: &Contribution| match part.tile {
        Some(Operation::Narrow([dim, ..])) => size(dim, &part.scope),
        _ => Err(missing()),
    };
    let first = parts.first().ok_or_else(missing)?;
    let dim = dim_of(first)? as usize;
    let sizes = parts.iter().map(|part| part.tensor.shape().dims().get(dim));
    let total = sizes.map(|size| size.copied().unwrap_or(0)).sum();
    let mut ranges = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(Operation::Narrow([_, start, length])) = part.tile else {
            return Err(missing());
        };
        let whole = Whole { part, dim, total };
        let range = (size(start, &whole)?, size(length, &whole)?);
        let own = part.tensor.shape().dims().get(dim).copied();
        if dim_of(part)? as usize != dim || own != Some(range.1) {
            return Err(missing());
        }
        ranges.push((range, part.tensor.clone()));
    }
    in_order(ranges, total, dim, missing)
}

/// Blocks of each group of rows, which must be all of the group.
fn blocks(parts: &[&Contribution], missing: &dyn Fn() -> Error) -> Result<Tensor> {
    let mut group = None;
    let mut ranges = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(Operation::Blocks([rows, blocks, start, count])) = part.tile else {
            return Err(missing());
        };
        let sized = Sized {
            tensor: &part.tensor,
            scope: &part.scope,
        };
        let (rows, blocks) = (size(rows, &sized)?, size(blocks, &sized)?);
        if *group.get_or_insert((rows, blocks)) != (rows, blocks) {
            return Err(missing());
        }
        let (start, count) = (size(start, &sized)?, size(count, &sized)?);
        let (all, rest) = part
            .tensor
            .shape()
            .dims()
            .split_first()
            .ok_or_else(missing)?;
        let taken = rows.checked_mul(count).filter(|taken| *taken > 0);
        let taken = taken
            .filter(|taken| all.is_multiple_of(*taken))
            .ok_or_else(missing)?;
        let split = [&[all / taken, count, rows], rest].concat();
        ranges.push(((start, count), part.tensor.reshape(&split)?));
    }
    let (_, blocks) = group.ok_or_else(missing)?;
    let whole = in_order(ranges, blocks, 1, missing)?;
    match whole.shape().dims() {
        [groups, blocks, rows, rest @ ..] => {
            let joined = [&[groups * blocks * rows], rest].concat();
            whole.reshape(&joined)
        }
        _ => Err(missing()),
    }
}

/// Tensors one after the other along `dim`, by their ranges, which must cover `total`.
fn in_order(
    mut ranges: Vec<((u64, u64), Tensor)>,
    total: u64,
    dim: usize,
    missing: &dyn Fn() -> Error,
) -> Result<Tensor> {
    ranges.sort_by_key(|(range, _)| *range);
    let mut covered = 0u64;
    for ((start, length), _) in &ranges {
        if *start != covered {
            return Err(missing());
        }
        covered = covered.saturating_add(*length);
    }
    if covered != total {
        return Err(missing());
    }
    let tensors: Vec<Tensor> = ranges.into_iter().map(|(_, tensor)| tensor).collect();
    Tensor::concat(&tensors, dim)
}

/// The sizes of the whole that a part is cut out of.
struct Whole<'a> {
    part: &'a Contribution<'a>,
    dim: usize,
    total: u64,
}

impl Scope for Whole<'_> {
    fn number(&self, name: &str) -> std::result::Result<i64, String> {
        let dim = name
            .strip_prefix('d')
            .and_then(|digits| digits.parse::<usize>().ok());
        match dim {
            Some(dim) if self.dim == dim => {
                i64::try_from(self.total).map_err(|_| format!("{name} is {}", self.total))
            }
            _ => {
                let tensor = &self.part.tensor;
                let scope = &self.part.scope;
                Sized { tensor, scope }.number(name)
            }
        }
    }

    fn list(&self, name: &str) -> std::result::Result<Vec<i64>, String> {
        self.part.scope.list(name)
    }
}

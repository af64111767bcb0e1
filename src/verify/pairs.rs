//! The tensors of two views by their names: those that one side alone has, and how the others differ.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::compare::elements;
use super::finding::DifferentElements;
use super::reading::Reading;
use super::values::is_number;
use crate::error::Result;
use crate::mapping::MappedTensor;
use crate::parallel;
use crate::tensor::Tensor;

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kind {
    pub dtype: &'static str,
    pub shape: Vec<u64>,
}

/// A name that one side or both have, and what they have there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    pub name: String,
    pub here: Option<Kind>,
    pub there: Option<Kind>,
    /// The elements that differ, where there are some and the two can be compared.
    pub elements: Option<DifferentElements>,
}

/// Pairs the tensors of two views, those of `there` alone last. Without `reading` no element is read.
///
/// # Errors
/// When a source cannot be read: a difference is told of whole tensors only.
pub fn pairs(
    here: &[MappedTensor],
    there: &[MappedTensor],
    reading: Option<&Reading<'_>>,
) -> Result<Vec<Pair>> {
    let theirs: HashMap<&str, &Tensor> = there.iter().map(by_name).collect();
    let pair = |mapped: &MappedTensor| {
        let other = theirs.get(&*mapped.name).copied();
        Pair::of(&mapped.name, Some(&mapped.tensor), other, reading)
    };
    let mut pairs = match reading {
        Some(reading) => parallel::map(reading.threads, here, pair),
        None => here.iter().map(pair).collect(),
    };
    let ours: HashSet<&str> = here.iter().map(|mapped| &*mapped.name).collect();
    let missing = there.iter().filter(|mapped| !ours.contains(&*mapped.name));
    pairs.extend(missing.map(|mapped| Pair::of(&mapped.name, None, Some(&mapped.tensor), None)));
    pairs.into_iter().collect()
}

/// Bytes of `here` that a comparison of the two reads.
pub fn compared_bytes(here: &[MappedTensor], there: &[MappedTensor]) -> u64 {
    let theirs: HashMap<&str, &Tensor> = there.iter().map(by_name).collect();
    let is_compared = |mapped: &&MappedTensor| {
        let other = theirs.get(&*mapped.name);
        other.is_some_and(|other| are_comparable(&mapped.tensor, other))
    };
    let compared = here.iter().filter(is_compared);
    compared.map(|mapped| mapped.tensor.bytes()).sum()
}

fn by_name(mapped: &MappedTensor) -> (&str, &Tensor) {
    (&mapped.name, &mapped.tensor)
}

fn are_comparable(here: &Tensor, there: &Tensor) -> bool {
    let dtypes = [here.dtype(), there.dtype()];
    let are_like = dtypes[0] == dtypes[1] || dtypes.into_iter().all(is_number);
    are_like && here.shape() == there.shape()
}

impl Kind {
    fn of(tensor: &Tensor) -> Self {
        Self {
            dtype: tensor.dtype().name(),
            shape: tensor.shape().dims().to_vec(),
        }
    }
}

impl Pair {
    fn of(
        name: &str,
        here: Option<&Tensor>,
        there: Option<&Tensor>,
        reading: Option<&Reading<'_>>,
    ) -> Result<Self> {
        let elements = match (here, there, reading) {
            (Some(here), Some(there), Some(reading)) if are_comparable(here, there) => {
                elements(here, there, reading)?
            }
            _ => None,
        };
        Ok(Self {
            name: name.to_owned(),
            here: here.map(Kind::of),
            there: there.map(Kind::of),
            elements,
        })
    }

    /// Whether both sides have it, and nothing that was compared differs.
    pub fn is_equal(&self) -> bool {
        self.here == self.there && self.elements.is_none()
    }
}

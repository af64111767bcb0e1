//! Whether the checkpoint keeps what config.json promises: names and shapes.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::apply::MappedTensor;
use super::config::{Config, ConfigScope};
use super::contradiction::Comparison;
use super::expression::{Expression, Scope};
use super::family::{Family, FamilyTensor};
use super::pattern::Bindings;
use crate::error::{Error, Result};

/// A tensor that the family has under a config.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    pub name: String,
    /// `None` for a size that config.json does not tell.
    pub shape: Vec<Option<u64>>,
    /// Whether a checkpoint without it is wrong.
    pub required: bool,
    /// Without this one it is not what its name says.
    pub mark: Option<String>,
    pub(super) of: &'a FamilyTensor,
}

impl Expected<'_> {
    pub(super) fn fits(&self, dims: &[u64]) -> bool {
        dims.len() == self.shape.len()
            && dims
                .iter()
                .zip(&self.shape)
                .all(|(size, want)| want.is_none_or(|want| want == *size))
    }

    /// Found and promised size of the one axis along which `dims` differ.
    fn ratio(&self, dims: &[u64]) -> Option<(u64, u64)> {
        let sizes = dims.iter().copied().zip(self.shape.iter().copied());
        let mut differing =
            sizes.filter(|(found, promised)| promised.is_some_and(|size| size != *found));
        let (found, promised) = differing.next()?;
        let is_one = dims.len() == self.shape.len() && differing.next().is_none();
        Some((found, promised?)).filter(|_| is_one)
    }

    /// # Errors
    /// When a tensor of the shape `dims` is not this one.
    pub fn check_shape(&self, dims: &[u64]) -> Result<()> {
        match self.fits(dims) {
            true => Ok(()),
            false => Err(Error::Mapping(format!(
                "config.json contradicts the tensors: {}",
                self.contradiction(dims)
            ))),
        }
    }

    pub(super) fn contradiction(&self, dims: &[u64]) -> String {
        let size = |size: &Option<u64>| size.map_or("_".to_owned(), |size| size.to_string());
        let sizes: Vec<String> = self.shape.iter().map(size).collect();
        format!(
            "{} is {dims:?}, config.json says [{}] ({})",
            self.name,
            sizes.join(", "),
            self.of.meaning()
        )
    }

    /// The key of each size of the shape in config.json, its value there, and the one in `dims`.
    pub(super) fn sizes(&self, dims: &[u64]) -> impl Iterator<Item = (&Expression, u64, u64)> {
        let told = self.of.shape.iter().zip(&self.shape).zip(dims.to_vec());
        told.filter_map(|((expression, said), found)| Some((expression.as_ref()?, (*said)?, found)))
    }
}

/// Whether the family ties the output head to the embedding under this config.
pub fn is_tied(family: &Family, config: &Config) -> Result<bool> {
    let scope = ConfigScope {
        config,
        defaults: &family.defaults,
        bindings: Bindings::new(),
    };
    let tied = scope
        .number("tie_word_embeddings")
        .map_err(Error::Mapping)?;
    Ok(tied != 0)
}

/// Puts the tensors in the family's order.
///
/// # Errors
/// One line with every kind of contradiction: missing tensors, unexpected ones, other shapes than config.json says.
pub fn check(
    family: &Family,
    config: &Config,
    expected: &[Expected<'_>],
    tensors: Vec<MappedTensor>,
) -> Result<Vec<MappedTensor>> {
    let (mut ordered, listed): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| family.passes(&tensor.name));
    let passed = ordered.len();
    let mut found: HashMap<Arc<str>, MappedTensor> = listed
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let marks = expected.iter().filter_map(|promise| promise.mark.clone());
    let marks: HashSet<String> = marks.filter(|mark| found.contains_key(&**mark)).collect();
    let may_be = |promise: &&Expected<'_>| {
        promise
            .mark
            .as_ref()
            .is_none_or(|mark| marks.contains(mark))
    };
    let unmarked = expected
        .iter()
        .filter(|promise| found.contains_key(&*promise.name));
    let unmarked = unmarked.filter_map(|promise| promise.mark.as_deref());
    let mut missing: Vec<&str> = unmarked.filter(|mark| !marks.contains(*mark)).collect();
    missing.dedup();
    let mut kept = Vec::new();
    for promise in expected.iter().filter(may_be) {
        match found.remove(&*promise.name) {
            Some(tensor) => {
                kept.push(promise);
                ordered.push(tensor);
            }
            None if promise.required => missing.push(&*promise.name),
            None => {}
        }
    }
    let mut unexpected: Vec<Arc<str>> = found.into_keys().collect();
    unexpected.sort();
    let shapes = ordered[passed..]
        .iter()
        .map(|tensor| tensor.tensor.shape().dims());
    let comparison = Comparison {
        family,
        config,
        kept: kept.into_iter().zip(shapes).collect(),
        missing,
        unexpected,
    };
    comparison.verdict().map(|()| ordered)
}

/// The one ratio, found to promised, in which half of the matrices and all tensors of another shape differ along one axis.
pub fn shortfall(expected: &[Expected], tensors: &[MappedTensor]) -> Option<(u64, u64)> {
    let found: HashMap<&str, &[u64]> = tensors
        .iter()
        .map(|tensor| (&*tensor.name, tensor.tensor.shape().dims()))
        .collect();
    let pairs = expected
        .iter()
        .filter_map(|promise| Some((promise, *found.get(&*promise.name)?)));
    let (fitting, differing): (Vec<_>, Vec<_>) =
        pairs.partition(|(promise, dims)| promise.fits(dims));
    let matrices = fitting.iter().filter(|(_, dims)| dims.len() > 1).count();
    let mut ratios = differing.iter().map(|(promise, dims)| promise.ratio(dims));
    let first = ratios.next()??;
    let same = |(found, promised): (u64, u64)| {
        u128::from(found) * u128::from(first.1) == u128::from(promised) * u128::from(first.0)
    };
    let is_one = differing.len() >= matrices && ratios.all(|ratio| ratio.is_some_and(same));
    is_one.then_some(first)
}

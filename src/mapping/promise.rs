//! Whether the checkpoint keeps what config.json promises: names and shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use super::apply::MappedTensor;
use super::config::{Config, ConfigScope};
use super::expression::Scope;
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
    pub(super) of: &'a FamilyTensor,
}

impl Expected<'_> {
    fn fits(&self, dims: &[u64]) -> bool {
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

    fn contradiction(&self, dims: &[u64]) -> String {
        format!(
            "{} is {dims:?}, config.json says {} ({})",
            self.name,
            self.sizes(),
            self.of.meaning()
        )
    }

    fn sizes(&self) -> String {
        let size = |size: &Option<u64>| size.map_or("_".to_owned(), |size| size.to_string());
        let sizes: Vec<String> = self.shape.iter().map(size).collect();
        format!("[{}]", sizes.join(", "))
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
    expected: &[Expected<'_>],
    tensors: Vec<MappedTensor>,
) -> Result<Vec<MappedTensor>> {
    let (mut ordered, listed): (Vec<_>, Vec<_>) = tensors
        .into_iter()
        .partition(|tensor| family.passes(&tensor.name));
    let mut found: HashMap<Arc<str>, MappedTensor> = listed
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let mut complaints = Complaints::default();
    for promise in expected {
        match found.remove(&*promise.name) {
            None if promise.required => complaints.missing.push(promise.name.clone()),
            None => {}
            Some(tensor) => {
                let shape = tensor.tensor.shape().dims();
                if !promise.fits(shape) {
                    let (form, _) = super::pattern::form_of(&promise.name);
                    let told = || promise.contradiction(shape);
                    complaints.shapes.entry(form).or_insert_with(told);
                }
                ordered.push(tensor);
            }
        }
    }
    complaints.unexpected = found.into_keys().map(|name| name.to_string()).collect();
    complaints.unexpected.sort();
    complaints.verdict().map(|()| ordered)
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

#[derive(Default)]
struct Complaints {
    missing: Vec<String>,
    unexpected: Vec<String>,
    /// One for each form of name.
    shapes: BTreeMap<String, String>,
}

impl Complaints {
    fn verdict(self) -> Result<()> {
        let shapes: Vec<String> = self.shapes.into_values().collect();
        let all = [
            listed("missing", &self.missing, ", "),
            listed(
                "not in the model that config.json describes",
                &self.unexpected,
                ", ",
            ),
            listed("config.json contradicts the tensors", &shapes, "; "),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() {
            Ok(())
        } else {
            Err(Error::Mapping(all.join("; ")))
        }
    }
}

/// The first few of `items`, and how many more there are.
fn listed(what: &str, items: &[String], separator: &str) -> Option<String> {
    const SHOWN: usize = 8;
    if items.is_empty() {
        return None;
    }
    let shown = items[..items.len().min(SHOWN)].join(separator);
    let more = match items.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{what}: {shown}{more}"))
}

//! The weights that adapters are merged into, by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mapping::{self, Config, Family, MappedTensor, System};
use crate::tensor::{SourceTensor, Tensor};

/// The words for an adapter that does not belong to the base.
pub const OTHER: &str = "it is an adapter of another model";

/// The model that the weights are of.
pub struct Base<'a> {
    pub config: &'a Config,
    pub family: Option<&'a Family>,
    /// The rules by which transformers' names in memory become those of files.
    pub system: Option<&'a System>,
    /// The embedding, and the head that is tied to it.
    pub embedding: String,
    pub head: String,
    pub is_tied: bool,
}

pub struct Weights<'a> {
    pub base: Base<'a>,
    pub tensors: Vec<MappedTensor>,
    pub(super) numbers: HashMap<Arc<str>, usize>,
    /// Whole tensors that adapters up to this one brought, and the number of the adapter.
    pub(super) replaced: HashMap<Arc<str>, usize>,
    pub(super) adapter: usize,
    /// Whether the head was tied and no longer is.
    pub is_untied: bool,
}

/// Refuses an adapter that does not belong to the base.
pub(super) fn foreign<T>(name: &str, found: &str) -> Result<T> {
    Err(Error::Mapping(format!(
        "{name}: {found}; {OTHER}, or --merge is given the wrong base"
    )))
}

impl<'a> Weights<'a> {
    pub fn new(base: Base<'a>, tensors: Vec<MappedTensor>) -> Self {
        let numbers = tensors.iter().enumerate();
        let numbers = numbers.map(|(number, tensor)| (tensor.name.clone(), number));
        Self {
            base,
            numbers: numbers.collect(),
            tensors,
            replaced: HashMap::new(),
            adapter: 0,
            is_untied: false,
        }
    }

    pub fn begin_adapter(&mut self) {
        self.adapter += 1;
    }

    /// The number of a tensor. A tied head is its embedding, and a model without a head may be named without its prefix.
    pub fn find(&self, name: &str) -> Option<usize> {
        let prefixed = format!("model.{name}");
        let own = self.numbers.get(name);
        let own = own.or(self
            .numbers
            .get(&*prefixed)
            .filter(|_| self.base.config.is_base()));
        let tied = self.base.is_tied && !self.is_untied && name == self.base.head;
        own.or_else(|| self.numbers.get(&*self.base.embedding).filter(|_| tied))
            .copied()
    }

    pub(super) fn tensor(&self, number: usize) -> Result<&MappedTensor> {
        let lacks = || Error::Mapping(format!("there is no weight {number}"));
        self.tensors.get(number).ok_or_else(lacks)
    }

    /// Puts a tensor that is computed from a weight and from tensors of these names in the weight's place.
    pub fn set(&mut self, number: usize, tensor: Tensor, sources: &[Arc<str>]) {
        if let Some(own) = self.tensors.get_mut(number) {
            own.tensor = tensor;
            own.sources.extend(sources.iter().cloned());
        }
    }

    pub fn dims(&self, number: usize) -> Result<Vec<u64>> {
        Ok(self.tensor(number)?.tensor.shape().dims().to_vec())
    }

    /// The weights of the files that a matrix in memory is cut into: their names, and the rows of the matrix that each has.
    pub fn in_files(&self, name: &str, rows: &Tensor) -> Result<Vec<(usize, String, Tensor)>> {
        if let Some(number) = self.find(name) {
            return Ok(vec![(number, name.to_owned(), rows.clone())]);
        }
        let (Some(family), Some(system)) = (self.base.family, self.base.system) else {
            return foreign(name, "the base has no such weight");
        };
        let source = SourceTensor::whole(name, rows.clone());
        let outcome = mapping::apply(system, family, self.base.config, &[source])?;
        let found = outcome.tensors.into_iter().map(|part| {
            let number = self.find(&part.name);
            number.map(|number| (number, part.name.to_string(), part.tensor))
        });
        match found.collect::<Option<Vec<_>>>() {
            Some(found) if !found.is_empty() => Ok(found),
            _ => foreign(name, "the base has no such weight"),
        }
    }
}

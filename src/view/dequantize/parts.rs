//! The tensors of a checkpoint by name, of which quantized weights take their parts.

use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::Blocks;
use super::weight::Weight;
use crate::checkpoint::SourceTensor;
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Tensor};

/// The file and the name of a tensor, for messages.
pub fn described(tensor: &SourceTensor) -> String {
    let mut file = String::new();
    for part in &tensor.parts {
        part.each_stored(&mut |stored| file = format!("{}: ", stored.file().path().display()));
    }
    format!("{file}{}", tensor.name)
}

pub struct Parts {
    tensors: Vec<Option<SourceTensor>>,
    numbers: HashMap<Arc<str>, usize>,
}

impl Parts {
    pub fn new(tensors: Vec<SourceTensor>) -> Self {
        let names = tensors.iter().enumerate();
        let numbers = names.map(|(number, tensor)| (tensor.name.clone(), number));
        Self {
            numbers: numbers.collect(),
            tensors: tensors.into_iter().map(Some).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn into_tensors(self) -> impl Iterator<Item = Option<SourceTensor>> {
        self.tensors.into_iter()
    }

    pub fn name(&self, number: usize) -> Option<Arc<str>> {
        let tensor = self.tensors.get(number)?.as_ref()?;
        Some(tensor.name.clone())
    }

    fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(*self.numbers.get(name)?)?.as_ref()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn take(&mut self, name: &str) -> Option<SourceTensor> {
        let number = self.numbers.get(name)?;
        self.tensors.get_mut(*number)?.take()
    }

    /// A tensor that is whole.
    pub fn sole(&self, name: &str) -> Option<Tensor> {
        match &*self.get(name)?.parts {
            [tensor] => Some(tensor.clone()),
            _ => None,
        }
    }

    /// Takes the parts of a weight, whose codes are the tensor of this name, and returns its floats.
    pub fn floats(
        &mut self,
        name: &str,
        weight: &Weight,
        blocks: &Blocks,
        to: Dtype,
    ) -> Result<Tensor> {
        let refused = |error| match (error, self.get(name)) {
            (Error::Mapping(reason), Some(tensor)) => {
                let tensor = described(tensor);
                Error::Mapping(format!("{tensor}: {reason}; take a complete save"))
            }
            (error, _) => error,
        };
        let floats = weight.floats(blocks, to).map_err(refused)?;
        for part in &weight.parts {
            self.take(part);
        }
        Ok(floats)
    }
}

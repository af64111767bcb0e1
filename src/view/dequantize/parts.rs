//! The tensors of a checkpoint by name, of which quantized weights take their parts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::checkpoint::SourceTensor;
use crate::tensor::Tensor;

/// The file and the name of a tensor, for messages.
pub fn described(tensor: &SourceTensor) -> String {
    let mut file = String::new();
    for part in &tensor.parts {
        part.each_stored(&mut |stored| file = format!("{}: ", stored.file().path().display()));
    }
    format!("{file}{}", tensor.name)
}

/// The last component of a dotted name.
pub fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
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

    pub fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(*self.numbers.get(name)?)?.as_ref()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn take(&mut self, name: &str) -> Option<SourceTensor> {
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
}

//! Tensors as torch's formats hold them: a name, and bytes of the source or zeros.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::{Error, Result};
use crate::tensor::{Dtype, Shape, Tensor};

/// A tensor to be written under a name.
#[derive(Debug, Clone)]
pub struct Item {
    pub name: Arc<str>,
    pub content: Content,
    /// The names of the source's tensors that it is made of.
    pub sources: SmallVec<[Arc<str>; 1]>,
    /// The number of an earlier item whose storage this one shares, as tied weights do.
    pub shares: Option<usize>,
}

/// The elements of an item.
#[derive(Debug, Clone)]
pub enum Content {
    Tensor(Tensor),
    /// Elements that readers want and the source does not have.
    Zeros(Dtype, Shape),
}

impl Item {
    pub fn dtype(&self) -> Dtype {
        match &self.content {
            Content::Tensor(tensor) => tensor.dtype(),
            Content::Zeros(dtype, _) => *dtype,
        }
    }

    pub fn shape(&self) -> &Shape {
        match &self.content {
            Content::Tensor(tensor) => tensor.shape(),
            Content::Zeros(_, shape) => shape,
        }
    }

    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Tensor(tensor) => tensor.bytes(),
            Content::Zeros(dtype, shape) => shape.elements() * dtype.bytes().unwrap_or(1),
        }
    }

    pub fn tensor(&self) -> Option<&Tensor> {
        match &self.content {
            Content::Tensor(tensor) => Some(tensor),
            Content::Zeros(..) => None,
        }
    }

    /// # Errors
    /// When torch has no such element type.
    pub fn check(&self) -> Result<()> {
        match self.dtype().torch_name() {
            Some(_) => Ok(()),
            None => Err(Error::Mapping(format!(
                "{}: torch has no tensors of type {}; show it with --as hf",
                self.name,
                self.dtype()
            ))),
        }
    }
}

//! A tensor and the name that its system gave it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::node::Tensor;

/// A tensor of a checkpoint under its own name there.
#[derive(Debug, Clone)]
pub struct SourceTensor {
    pub name: Arc<str>,
    /// The name in the checkpoint, with what wrappers and training loops put around it.
    pub origin: Arc<str>,
    /// The shards of a tensor-parallel checkpoint whose names alone tell how to join them, in rank order; else the one
    /// whole tensor.
    pub parts: SmallVec<[Tensor; 1]>,
}

impl SourceTensor {
    /// Memory that one of a shard takes for as long as it is shown: its names, its place and what is made of it.
    pub const COST: u64 = 500;

    pub fn new(name: impl Into<Arc<str>>, parts: impl Into<SmallVec<[Tensor; 1]>>) -> Self {
        let name = name.into();
        Self {
            origin: name.clone(),
            name,
            parts: parts.into(),
        }
    }

    pub fn whole(name: impl Into<Arc<str>>, tensor: Tensor) -> Self {
        Self::new(name, [tensor])
    }

    /// The same under another name.
    pub fn renamed(self, name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }
}

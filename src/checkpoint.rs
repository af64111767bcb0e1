//! What lies on disk: where each named tensor's bytes are, the side files, and which system wrote it.

use std::sync::Arc;

use crate::tensor::Tensor;

/// A tensor under the name that its system gave it.
#[derive(Debug, Clone)]
pub struct SourceTensor {
    pub name: Arc<str>,
    /// The shards of a tensor-parallel checkpoint whose names alone tell how to join them, in rank order; else the one
    /// whole tensor.
    pub parts: Vec<Tensor>,
}

//! The nodes of the algebra: a tensor is a type, a shape and an expression.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use super::dtype::Dtype;
use super::kernel::Kernel;
use super::reshape::Group;
use super::shape::{Dims, Shape};
use super::stored::{Stored, unit_bytes};

/// An immutable, lazily evaluated array. Cloning copies a pointer.
#[derive(Debug, Clone)]
pub struct Tensor(Arc<Node>);

/// The identity of a tensor. It does not keep the tensor, nor its files open; no later tensor has the same.
#[derive(Debug, Clone)]
pub struct Identity(Weak<Node>);

impl Identity {
    /// Returns whether the tensor has been dropped.
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

#[derive(Debug)]
struct Node {
    dtype: Dtype,
    shape: Shape,
    expression: Expression,
}

#[derive(Debug)]
pub(super) enum Expression {
    Stored(Stored),
    Narrow {
        of: Tensor,
        dim: usize,
        start: u64,
    },
    Tiled(Tiling),
    /// Dimension i of the result is dimension `axes[i]` of `of`.
    Permute {
        of: Tensor,
        axes: Box<[usize]>,
    },
    Reshape {
        of: Tensor,
        groups: Box<[Group]>,
    },
    /// Elements that a kernel makes of those of its inputs.
    Computed {
        kernel: Kernel,
        inputs: Box<[Tensor]>,
    },
}

/// A tensor placed inside a larger one, its first element at `offsets`.
#[derive(Debug, Clone)]
pub struct Tile {
    pub offsets: Dims,
    pub tensor: Tensor,
}

/// A validated cover. Along one axis the tiles are sorted, so that a read finds its first tile by bisection.
#[derive(Debug)]
pub(super) struct Tiling {
    pub(super) tiles: Box<[Tile]>,
    pub(super) axis: Option<usize>,
    /// How far along the axis each tile and those before it reach.
    pub(super) reach: Box<[u64]>,
}

impl Tensor {
    pub fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    pub fn shape(&self) -> &Shape {
        &self.0.shape
    }

    /// Size of the whole tensor in bytes.
    pub fn bytes(&self) -> u64 {
        self.units() * self.unit()
    }

    /// Bytes of the smallest piece that can be addressed: an element, or a byte of a type smaller than one.
    pub fn unit(&self) -> u64 {
        unit_bytes(self.0.dtype)
    }

    /// Returns the tensor's identity, equal for clones alone.
    pub fn identity(&self) -> Identity {
        Identity(Arc::downgrade(&self.0))
    }

    pub(super) fn expression(&self) -> &Expression {
        &self.0.expression
    }

    /// Stored units: elements, or bytes where an element is less than a byte.
    pub(super) fn units(&self) -> u64 {
        match self.0.dtype.bytes() {
            Some(_) => self.0.shape.elements(),
            None => self.0.shape.elements() * self.0.dtype.bits() / 8,
        }
    }

    pub(super) fn new(dtype: Dtype, shape: Shape, expression: Expression) -> Self {
        Self(Arc::new(Node {
            dtype,
            shape,
            expression,
        }))
    }
}

//! Shapes whose element count is known not to overflow.

use std::fmt;

use smallvec::SmallVec;

use super::dtype::Dtype;
use crate::error::{Error, Result};

/// Most dimensions of a tensor. Models have at most five; reshapes of the algebra add two or three.
pub const MAX_RANK: usize = 8;

/// Sizes or strides, one for each dimension. Most weights have two.
pub type Dims = SmallVec<[u64; 2]>;

/// Sizes by dimension, at most [`MAX_RANK`] of them, with a product that fits 63 bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Dims,
    elements: u64,
}

impl Shape {
    /// `None` for too many dimensions or too many elements. Sizes are multiplied without regard to zeros, so
    /// that no partial product overflows later.
    pub fn new(dims: &[u64]) -> Option<Self> {
        let bound = dims
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul((*size).max(1)))?;
        let fits = dims.len() <= MAX_RANK && bound <= i64::MAX as u64;
        fits.then(|| Self {
            dims: dims.into(),
            elements: dims.iter().product(),
        })
    }

    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    pub fn elements(&self) -> u64 {
        self.elements
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}

/// Strides of row-major order, in elements. A zero size counts as one.
pub(super) fn row_major(dims: &[u64]) -> Dims {
    let mut strides = Dims::from_elem(1, dims.len());
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i].max(1);
    }
    strides
}

/// The shape in stored units.
pub(super) fn units(dtype: Dtype, shape: &Shape) -> Result<Shape> {
    if dtype.bytes().is_some() {
        return Ok(shape.clone());
    }
    match shape.elements().checked_mul(dtype.bits()) {
        Some(bits) if bits.is_multiple_of(8) => checked(&[bits / 8]),
        _ => impossible(format!(
            "shape {shape} of type {dtype} is no whole number of bytes"
        )),
    }
}

pub(super) fn checked(dims: &[u64]) -> Result<Shape> {
    match Shape::new(dims) {
        Some(shape) => Ok(shape),
        None => impossible(format!(
            "shape {dims:?} has too many dimensions or elements"
        )),
    }
}

pub(super) fn impossible<T>(reason: String) -> Result<T> {
    Err(Error::Mapping(reason))
}

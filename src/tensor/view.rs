//! The operations on tensors: each builds an expression and reads nothing.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use super::computed::Kernel;
use super::dtype::Dtype;
use super::reshape::{Group, groups};
use super::shape::{Dims, Shape};
use super::stored::{Locate, Stored, Strides, unit_bytes};
use super::tiling::Tiling;
use crate::error::{Error, Result};
use crate::source::SourceFile;

/// An immutable, lazily evaluated array. Cloning copies a pointer.
#[derive(Debug, Clone)]
pub struct Tensor(Arc<Node>);

/// Which tensor something is of. It does not keep the tensor, nor its files open; no later tensor has the same.
#[derive(Debug, Clone)]
pub struct Identity(Weak<Node>);

impl Identity {
    /// Whether nobody has the tensor any more.
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

impl Tensor {
    /// An array at a known place of `file`.
    ///
    /// # Errors
    /// When the array does not lie inside the file.
    pub fn stored(
        file: Arc<SourceFile>,
        dtype: Dtype,
        shape: Shape,
        layout: Strides,
    ) -> Result<Self> {
        let stored = Stored::new(file, dtype, &units(dtype, &shape)?, layout)?;
        Ok(Self::new(dtype, shape, Expression::Stored(stored)))
    }

    /// An array whose place in `file` is found when it is first read.
    pub fn deferred(
        file: Arc<SourceFile>,
        dtype: Dtype,
        shape: Shape,
        locate: Box<dyn Locate>,
    ) -> Result<Self> {
        units(dtype, &shape)?;
        let stored = Stored::deferred(file, locate);
        Ok(Self::new(dtype, shape, Expression::Stored(stored)))
    }

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

    /// Elements `start .. start + size` of dimension `dim`.
    pub fn narrow(&self, dim: usize, start: u64, size: u64) -> Result<Self> {
        let fits = self
            .whole_bytes("narrow")?
            .shape()
            .dims()
            .get(dim)
            .is_some_and(|extent| start.checked_add(size).is_some_and(|end| end <= *extent));
        if !fits {
            return impossible(format!(
                "no {start}..+{size} in dimension {dim} of shape {}",
                self.0.shape
            ));
        }
        let mut dims = self.0.shape.dims().to_vec();
        dims[dim] = size;
        let of = self.clone();
        Ok(Self::new(
            self.0.dtype,
            checked(&dims)?,
            Expression::Narrow { of, dim, start },
        ))
    }

    /// A tensor assembled from tiles that cover it exactly once. Tiles without elements are left out.
    pub fn tiled(shape: Shape, tiles: Vec<Tile>) -> Result<Self> {
        let Some(first) = tiles.first() else {
            return impossible("a tensor without chunks".to_owned());
        };
        let dtype = first.tensor.dtype();
        if let Some(other) = tiles.iter().find(|tile| tile.tensor.dtype() != dtype) {
            return impossible(format!(
                "its parts have types {dtype} and {}",
                other.tensor.dtype()
            ));
        }
        first.tensor.whole_bytes("assemble")?;
        let tiling = Tiling::new(&shape, tiles)?;
        Ok(match tiling.sole() {
            Some(tensor) => tensor.clone(),
            None => Self::new(dtype, shape, Expression::Tiled(tiling)),
        })
    }

    /// Tensors one after the other along `dim`.
    pub fn concat(parts: &[Self], dim: usize) -> Result<Self> {
        let Some(first) = parts.first().filter(|first| dim < first.shape().rank()) else {
            return impossible(format!("nothing to concatenate along dimension {dim}"));
        };
        let mut dims = first.shape().dims().to_vec();
        dims[dim] = 0;
        let mut tiles = Vec::with_capacity(parts.len());
        for part in parts {
            let mut offsets = Dims::from_elem(0, dims.len());
            offsets[dim] = dims[dim];
            dims[dim] += part.shape().dims().get(dim).copied().unwrap_or(0);
            tiles.push(Tile {
                offsets,
                tensor: part.clone(),
            });
        }
        Self::tiled(checked(&dims)?, tiles)
    }

    /// Equal-shaped tensors along a new first dimension.
    pub fn stack(parts: &[Self]) -> Result<Self> {
        let rows = parts
            .iter()
            .map(|part| part.reshape(&[&[1], part.shape().dims()].concat()))
            .collect::<Result<Vec<_>>>()?;
        Self::concat(&rows, 0)
    }

    /// Dimension i of the result is dimension `axes[i]`.
    pub fn permute(&self, axes: &[usize]) -> Result<Self> {
        let rank = self.whole_bytes("permute")?.shape().rank();
        let mut seen: Vec<usize> = axes.to_vec();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..rank) {
            return impossible(format!("axes {axes:?} do not permute {rank} dimensions"));
        }
        let dims: Vec<u64> = axes.iter().map(|axis| self.0.shape.dims()[*axis]).collect();
        let of = self.clone();
        let axes = axes.into();
        Ok(Self::new(
            self.0.dtype,
            checked(&dims)?,
            Expression::Permute { of, axes },
        ))
    }

    /// The last two dimensions exchanged.
    pub fn transpose(&self) -> Result<Self> {
        let mut axes: Vec<usize> = (0..self.0.shape.rank()).collect();
        match axes.len().checked_sub(2) {
            Some(first) => axes.swap(first, first + 1),
            None => return impossible(format!("nothing to transpose in shape {}", self.0.shape)),
        }
        self.permute(&axes)
    }

    /// The same elements in the same order under another shape.
    pub fn reshape(&self, dims: &[u64]) -> Result<Self> {
        let shape = checked(dims)?;
        if shape == self.0.shape {
            return Ok(self.clone());
        }
        if shape.elements() != self.whole_bytes("reshape")?.shape().elements() {
            return impossible(format!("shape {} cannot become {shape}", self.0.shape));
        }
        let groups = groups(self.0.shape.dims(), shape.dims());
        let of = self.clone();
        Ok(Self::new(
            self.0.dtype,
            shape,
            Expression::Reshape { of, groups },
        ))
    }

    /// Bytes of the smallest piece that can be addressed: an element, or a byte of a type smaller than one.
    pub fn unit(&self) -> u64 {
        unit_bytes(self.0.dtype)
    }

    /// What tells this tensor from every other; equal for clones.
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

    fn whole_bytes(&self, operation: &str) -> Result<&Self> {
        match self.0.dtype.bytes() {
            Some(_) => Ok(self),
            None => impossible(format!(
                "cannot {operation} elements of type {}",
                self.0.dtype
            )),
        }
    }
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

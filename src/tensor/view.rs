//! The operations on tensors: each builds an expression and reads nothing.

use std::sync::Arc;

use super::dtype::Dtype;
use super::node::{Expression, Tensor, Tile, Tiling};
use super::reshape::groups;
use super::shape::{Dims, Shape, checked, impossible, units};
use super::stored::{Locate, Stored, Strides};
use crate::error::Result;
use crate::source::SourceFile;

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
                self.shape()
            ));
        }
        let mut dims = self.shape().dims().to_vec();
        dims[dim] = size;
        let of = self.clone();
        Ok(Self::new(
            self.dtype(),
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
        let dims: Vec<u64> = axes.iter().map(|axis| self.shape().dims()[*axis]).collect();
        let of = self.clone();
        let axes = axes.into();
        Ok(Self::new(
            self.dtype(),
            checked(&dims)?,
            Expression::Permute { of, axes },
        ))
    }

    /// The last two dimensions exchanged.
    pub fn transpose(&self) -> Result<Self> {
        let mut axes: Vec<usize> = (0..self.shape().rank()).collect();
        match axes.len().checked_sub(2) {
            Some(first) => axes.swap(first, first + 1),
            None => return impossible(format!("nothing to transpose in shape {}", self.shape())),
        }
        self.permute(&axes)
    }

    /// The same elements in the same order under another shape.
    pub fn reshape(&self, dims: &[u64]) -> Result<Self> {
        let shape = checked(dims)?;
        if shape == *self.shape() {
            return Ok(self.clone());
        }
        if shape.elements() != self.whole_bytes("reshape")?.shape().elements() {
            return impossible(format!("shape {} cannot become {shape}", self.shape()));
        }
        let groups = groups(self.shape().dims(), shape.dims());
        let of = self.clone();
        Ok(Self::new(
            self.dtype(),
            shape,
            Expression::Reshape { of, groups },
        ))
    }

    fn whole_bytes(&self, operation: &str) -> Result<&Self> {
        match self.dtype().bytes() {
            Some(_) => Ok(self),
            None => impossible(format!(
                "cannot {operation} elements of type {}",
                self.dtype()
            )),
        }
    }
}

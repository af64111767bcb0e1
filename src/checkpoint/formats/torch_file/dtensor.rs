//! Tensors that several ranks hold in parts: where each part belongs in the whole.
//!
//! Placements as torch 2.2.2 to 2.15.0 pickle them (`torch/distributed/tensor/placement_types.py`).

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::tensor::{Dims, Shape, Tensor, Tile};

/// A tensor as one rank's file holds it.
#[derive(Debug, Clone)]
pub enum Value {
    Plain(Tensor),
    Distributed(DTensor),
    Sharded(ShardedTensor),
}

/// One rank's part of a DTensor.
#[derive(Debug, Clone)]
pub struct DTensor {
    pub local: Tensor,
    pub shape: Shape,
    /// One for each dimension of the mesh.
    pub placements: Vec<Placement>,
    pub mesh: Dims,
    pub mesh_dim_names: Vec<String>,
    /// The rank's place in the mesh.
    pub coordinate: Dims,
}

/// How one dimension of the mesh divides a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Replicate,
    Shard {
        dim: usize,
    },
    /// Shards inside the shards of mesh dimensions to the right, which are `split_factor` in number.
    StridedShard {
        dim: usize,
        split_factor: u64,
    },
    /// Summands that were never added up.
    Partial,
}

/// One rank's part of FSDP1's ShardedTensor.
#[derive(Debug, Clone)]
pub struct ShardedTensor {
    pub shape: Shape,
    /// How many shards there are on all ranks.
    pub count: u64,
    pub shards: Vec<Tile>,
}

impl Value {
    /// The shape of the whole tensor.
    pub fn shape(&self) -> &Shape {
        match self {
            Self::Plain(tensor) => tensor.shape(),
            Self::Distributed(part) => &part.shape,
            Self::Sharded(part) => &part.shape,
        }
    }

    /// How many ranks at least hold parts of it.
    pub fn world(&self) -> u64 {
        match self {
            Self::Plain(_) => 1,
            Self::Distributed(part) => part.mesh.iter().copied().fold(1, u64::saturating_mul),
            Self::Sharded(part) => part.count,
        }
    }
}

impl DTensor {
    /// The local tensor at its place in the whole.
    pub fn tile(&self) -> Result<Tile> {
        let mut offsets = Dims::from_elem(0, self.shape.rank());
        let mut sizes = self.shape.dims().to_vec();
        for (dim, (offset, size)) in offsets.iter_mut().zip(&mut sizes).enumerate() {
            for axis in self.split_order(dim)? {
                let (parts, index) = (self.extent(axis)?, self.place(axis)?);
                let chunk = size.div_ceil(parts);
                let start = index.saturating_mul(chunk).min(*size);
                *offset += start;
                *size = chunk.min(*size - start);
            }
        }
        if self.local.shape().dims() != sizes {
            return refuse(format!(
                "a local shape of {}, where placements {:?} of {} on mesh {:?} give {sizes:?} at {:?}",
                self.local.shape(),
                self.placements,
                self.shape,
                self.mesh,
                self.coordinate
            ));
        }
        Ok(Tile {
            offsets,
            tensor: self.local.clone(),
        })
    }

    /// Mesh dimensions that split `dim`, outermost split first. Plain shards split from left to right; a strided shard
    /// splits what the mesh dimensions to its right, `split_factor` parts together, have split before.
    fn split_order(&self, dim: usize) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = Vec::new();
        for (axis, placement) in self.placements.iter().enumerate().rev() {
            let factor = match *placement {
                Placement::Shard { dim: own } if own == dim => 1,
                Placement::StridedShard {
                    dim: own,
                    split_factor,
                } if own == dim => split_factor,
                Placement::Partial => {
                    let reason = "is Partial: each rank holds a summand of it; save it replicated";
                    return Err(Error::Unserved(reason.to_owned()));
                }
                _ => continue,
            };
            order.insert(self.outer_splits(&order, factor)?, axis);
        }
        Ok(order)
    }

    /// How many of the mesh dimensions in `order` make `factor` parts together.
    fn outer_splits(&self, order: &[usize], factor: u64) -> Result<usize> {
        let mut parts = 1u64;
        for (count, axis) in order.iter().enumerate() {
            if parts == factor {
                return Ok(count);
            }
            parts = parts.saturating_mul(self.extent(*axis)?);
        }
        if parts == factor {
            return Ok(order.len());
        }
        refuse(format!(
            "placements {:?} on mesh {:?}: no mesh dimensions make {factor} parts",
            self.placements, self.mesh
        ))
    }

    fn extent(&self, axis: usize) -> Result<u64> {
        match self.mesh.get(axis) {
            Some(extent) if *extent > 0 => Ok(*extent),
            _ => refuse(format!("no dimension {axis} in mesh {:?}", self.mesh)),
        }
    }

    fn place(&self, axis: usize) -> Result<u64> {
        let extent = self.extent(axis)?;
        match self.coordinate.get(axis) {
            Some(place) if *place < extent => Ok(*place),
            _ => refuse(format!(
                "rank at {:?} is not in mesh {:?}",
                self.coordinate, self.mesh
            )),
        }
    }
}

/// The whole tensor from what each rank holds of it. Replicas, which lie at the same offsets, are taken once.
pub fn assemble(ranks: Vec<Value>) -> Result<Tensor> {
    let (shape, tiles) = tiles(ranks)?;
    Tensor::tiled(shape, distinct(tiles))
}

/// The shape of the whole, and what each rank holds at its place there.
pub fn tiles(ranks: Vec<Value>) -> Result<(Shape, Vec<Tile>)> {
    let Some(shape) = ranks.first().map(|first| first.shape().clone()) else {
        return refuse("no rank holds it");
    };
    if let Some(other) = ranks
        .iter()
        .map(Value::shape)
        .find(|other| **other != shape)
    {
        return refuse(format!(
            "has shape {shape} on one rank and {other} on another"
        ));
    }
    let mut tiles = Vec::new();
    for value in ranks {
        match value {
            Value::Plain(tensor) => tiles.push(Tile {
                offsets: Dims::from_elem(0, shape.rank()),
                tensor,
            }),
            Value::Distributed(part) => tiles.push(part.tile()?),
            Value::Sharded(part) => tiles.extend(part.shards),
        }
    }
    Ok((shape, tiles))
}

/// The copies that several ranks hold of one range.
pub fn replicas(tiles: &[Tile]) -> Vec<Vec<Tensor>> {
    let mut places: BTreeMap<&[u64], Vec<Tensor>> = BTreeMap::new();
    for tile in tiles
        .iter()
        .filter(|tile| tile.tensor.shape().elements() > 0)
    {
        places
            .entry(&tile.offsets)
            .or_default()
            .push(tile.tensor.clone());
    }
    places.into_values().filter(|all| all.len() > 1).collect()
}

/// The tiles without replicas. Of tiles without elements, one is left, since it may be all there is.
pub fn distinct(mut tiles: Vec<Tile>) -> Vec<Tile> {
    let is_empty = |tile: &Tile| tile.tensor.shape().elements() == 0;
    tiles.sort_by(|a, b| (is_empty(a), &a.offsets).cmp(&(is_empty(b), &b.offsets)));
    tiles.dedup_by(|next, kept| {
        is_empty(next)
            || (next.offsets == kept.offsets && next.tensor.shape() == kept.tensor.shape())
    });
    tiles
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Mapping(reason.into()))
}

#[cfg(test)]
mod tests;

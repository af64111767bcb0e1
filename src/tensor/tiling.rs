//! Tiles that cover a tensor exactly once: chunks of a DCP, shards of a rank, parts of a concatenation.

use std::ops::Range;

use super::cover::{self, Fault};
use super::node::{Tensor, Tile, Tiling};
use super::shape::{Shape, impossible};
use crate::error::Result;

impl Tiling {
    pub fn new(shape: &Shape, mut tiles: Vec<Tile>) -> Result<Self> {
        for tile in &tiles {
            check_inside(shape, tile)?;
        }
        tiles.retain(|tile| tile.tensor.shape().elements() > 0);
        tiles.sort_by(|a, b| a.offsets.cmp(&b.offsets));
        let mut axes = partial_axes(shape, &tiles);
        let axis = axes.next();
        match (axis, axes.next()) {
            _ if shape.elements() == 0 => {}
            (Some(axis), None) => check_line(shape, axis, &tiles)?,
            _ => check_volume(shape, &tiles)?,
        }
        drop(axes);
        Ok(Self {
            reach: axis.map_or_else(Box::default, |axis| reach(&tiles, axis)),
            tiles: tiles.into(),
            axis,
        })
    }

    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// The tensor itself, when a single tile is the whole.
    pub fn sole(&self) -> Option<&Tensor> {
        match &*self.tiles {
            [tile] => Some(&tile.tensor),
            _ => None,
        }
    }

    /// The tiles that may hold elements of `wanted(dim)`, a range of each dimension.
    pub fn candidates(&self, wanted: impl Fn(usize) -> Range<u64>) -> &[Tile] {
        let Some(axis) = self.axis else {
            return &self.tiles;
        };
        let range = wanted(axis);
        let first = self.reach.partition_point(|end| *end <= range.start);
        let rest = self.tiles.get(first..).unwrap_or(&[]);
        let count = rest.partition_point(|tile| span(tile, axis).start < range.end);
        rest.get(..count).unwrap_or(&[])
    }
}

/// The indices that a tile covers in one dimension.
pub(super) fn span(tile: &Tile, dim: usize) -> Range<u64> {
    let start = tile.offsets[dim];
    start..start + tile.tensor.shape().dims()[dim]
}

fn check_inside(shape: &Shape, tile: &Tile) -> Result<()> {
    let size = tile.tensor.shape();
    let inside = tile.offsets.len() == shape.rank()
        && size.rank() == shape.rank()
        && (0..shape.rank()).all(|dim| {
            tile.offsets[dim]
                .checked_add(size.dims()[dim])
                .is_some_and(|end| end <= shape.dims()[dim])
        });
    if inside {
        Ok(())
    } else {
        impossible(format!(
            "a chunk of shape {size} at {:?} does not lie inside shape {shape}",
            tile.offsets
        ))
    }
}

/// The dimensions along which the tiles do not span the whole. Tiles that are sorted by their offsets are sorted along the
/// first of them.
fn partial_axes(shape: &Shape, tiles: &[Tile]) -> impl Iterator<Item = usize> {
    (0..shape.rank()).filter(|dim| {
        let whole = 0..shape.dims()[*dim];
        tiles.iter().any(|tile| span(tile, *dim) != whole)
    })
}

fn reach(tiles: &[Tile], axis: usize) -> Box<[u64]> {
    let ends = tiles.iter().map(|tile| span(tile, axis).end);
    let mut last = 0;
    ends.map(|end| {
        last = end.max(last);
        last
    })
    .collect()
}

fn check_line(shape: &Shape, axis: usize, tiles: &[Tile]) -> Result<()> {
    let mut covered = 0;
    for tile in tiles {
        let span = span(tile, axis);
        if span.start > covered {
            return gap(axis, covered..span.start);
        }
        if span.start < covered {
            return impossible(format!(
                "two chunks hold indices {}..{} of dimension {axis}",
                span.start,
                covered.min(span.end)
            ));
        }
        covered = span.end;
    }
    match shape.dims()[axis] {
        extent if covered < extent => gap(axis, covered..extent),
        _ => Ok(()),
    }
}

fn gap(axis: usize, missing: Range<u64>) -> Result<()> {
    impossible(format!(
        "no chunk holds indices {}..{} of dimension {axis}",
        missing.start, missing.end
    ))
}

fn check_volume(shape: &Shape, tiles: &[Tile]) -> Result<()> {
    let spans = |number: usize, dim: usize| match tiles.get(number) {
        Some(tile) => span(tile, dim),
        None => 0..shape.dims()[dim],
    };
    let point = match cover::check(tiles.len(), shape.rank(), &spans) {
        Ok(()) => return Ok(()),
        Err(Fault::Gap(point)) => {
            return impossible(format!("no chunk holds the element at {point:?}"));
        }
        Err(Fault::Overlap(point)) => point,
    };
    let holds = |tile: &&Tile| {
        (0..)
            .zip(&point)
            .all(|(dim, at)| span(tile, dim).contains(at))
    };
    let holders: Vec<String> = tiles
        .iter()
        .filter(holds)
        .take(2)
        .map(|tile| format!("{:?}", tile.offsets))
        .collect();
    impossible(format!("the chunks at {} overlap", holders.join(" and ")))
}

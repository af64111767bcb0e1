//! Tiles that cover a tensor exactly once: chunks of a DCP, shards of a rank, parts of a concatenation.

use std::ops::Range;

use super::shape::Shape;
use super::view::{Tensor, Tile, impossible};
use crate::error::Result;

/// A validated cover. Along one axis the tiles are sorted, so that a read finds its first tile by bisection.
#[derive(Debug)]
pub(super) struct Tiling {
    tiles: Box<[Tile]>,
    axis: Option<usize>,
}

impl Tiling {
    pub fn new(shape: &Shape, mut tiles: Vec<Tile>) -> Result<Self> {
        for tile in &tiles {
            check_inside(shape, tile)?;
        }
        tiles.retain(|tile| tile.tensor.shape().elements() > 0);
        tiles.sort_by(|a, b| a.offsets.cmp(&b.offsets));
        let axis = sole_axis(shape, &tiles);
        match axis {
            _ if shape.elements() == 0 => {}
            Some(axis) => check_line(shape, axis, &tiles)?,
            None => check_volume(shape, &tiles)?,
        }
        let tiles = tiles.into();
        Ok(Self { tiles, axis })
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
        let first = self
            .tiles
            .partition_point(|tile| span(tile, axis).end <= range.start);
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

/// The only dimension along which the tiles do not span the whole.
fn sole_axis(shape: &Shape, tiles: &[Tile]) -> Option<usize> {
    let partial = |dim: &usize| {
        let whole = 0..shape.dims()[*dim];
        tiles.iter().any(|tile| span(tile, *dim) != whole)
    };
    let mut axes = (0..shape.rank()).filter(partial);
    match (axes.next(), axes.next()) {
        (Some(axis), None) => Some(axis),
        _ => None,
    }
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

/// Disjoint tiles whose elements add up to the whole cover it.
fn check_volume(shape: &Shape, tiles: &[Tile]) -> Result<()> {
    for (i, a) in tiles.iter().enumerate() {
        for b in &tiles[i + 1..] {
            if shape.rank() > 0 && span(b, 0).start >= span(a, 0).end {
                break;
            }
            if (0..shape.rank()).all(|dim| intersects(&span(a, dim), &span(b, dim))) {
                return impossible(format!(
                    "the chunks at {:?} and {:?} overlap",
                    a.offsets, b.offsets
                ));
            }
        }
    }
    let held: u64 = tiles
        .iter()
        .map(|tile| tile.tensor.shape().elements())
        .sum();
    if held != shape.elements() {
        return impossible(format!(
            "its chunks hold {held} of {} elements",
            shape.elements()
        ));
    }
    Ok(())
}

fn intersects(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

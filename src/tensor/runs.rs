//! From a range of a tensor's elements to nests of loops over stored bytes.
//!
//! A request is cut into boxes of the tensor's shape, and each operation moves a box into the coordinates of what it is
//! made of, until the box lies in a stored array. A box carries where its elements go, so nothing is ever looked up twice.

use std::ops::Range;

use super::nest::{Loop, Nest};
use super::region::{Region, Visit, flat_runs, split};
use super::reshape::Group;
use super::shape::Shape;
use super::stored::Stored;
use super::tiling::{Tiling, span};
use super::view::{Expression, Tensor, units};
use crate::error::Result;

/// Calls `emit` with nests that together copy exactly the elements of `range`, in row-major order, each once.
/// For types smaller than a byte the range counts bytes.
///
/// # Errors
/// Those of finding where a deferred array lies, and those of `emit`.
pub fn nests<'a>(
    tensor: &'a Tensor,
    range: Range<u64>,
    emit: &mut dyn FnMut(Nest<'a>) -> Result<()>,
) -> Result<()> {
    let end = range.end.min(tensor.units());
    let Some(count) = end.checked_sub(range.start).filter(|count| *count > 0) else {
        return Ok(());
    };
    let shape = units(tensor.dtype(), tensor.shape())?;
    let mut visit = |region: &Region| visit(tensor, region, emit);
    split(
        &Region::default(),
        shape.dims(),
        range.start,
        count,
        1,
        &mut visit,
    )
}

type Emit<'e, 'a> = &'e mut dyn FnMut(Nest<'a>) -> Result<()>;
fn visit<'a>(tensor: &'a Tensor, region: &Region, emit: Emit<'_, 'a>) -> Result<()> {
    match tensor.expression() {
        Expression::Stored(stored) => emit(nest(tensor, stored, region)?),
        Expression::Cast { of } => visit(of, region, emit),
        Expression::Narrow { of, dim, start } => {
            let mut region = region.clone();
            region.sides[*dim].origin += start;
            visit(of, &region, emit)
        }
        Expression::Permute { of, axes } => {
            let mut permuted = region.clone();
            for (side, axis) in region.sides().iter().zip(axes) {
                permuted.sides[*axis] = *side;
            }
            visit(of, &permuted, emit)
        }
        Expression::Tiled(tiling) => visit_tiles(tiling, region, emit),
        Expression::Reshape { of, groups } => {
            let reshape = Reshape {
                old: of.shape(),
                new: tensor.shape(),
                region,
            };
            let start = Region {
                base: region.base,
                ..Region::default()
            };
            reshape.regroup(groups, &start, &mut |region| visit(of, region, emit))
        }
    }
}

fn visit_tiles<'a>(tiling: &'a Tiling, region: &Region, emit: Emit<'_, 'a>) -> Result<()> {
    let wanted = |dim: usize| {
        let side = region.sides[dim];
        side.origin..side.origin + side.size
    };
    'tiles: for tile in tiling.candidates(wanted) {
        let mut part = region.clone();
        for (dim, side) in part.sides[..region.rank].iter_mut().enumerate() {
            let (held, wanted) = (span(tile, dim), wanted(dim));
            let start = held.start.max(wanted.start);
            let end = held.end.min(wanted.end);
            if start >= end {
                continue 'tiles;
            }
            part.base += (start - wanted.start) * side.stride;
            (side.origin, side.size) = (start - held.start, end - start);
        }
        visit(&tile.tensor, &part, emit)?;
    }
    Ok(())
}

/// A box of the new shape on its way into the old one.
struct Reshape<'a> {
    old: &'a Shape,
    new: &'a Shape,
    region: &'a Region,
}

impl Reshape<'_> {
    fn regroup(&self, groups: &[Group], built: &Region, f: Visit<'_>) -> Result<()> {
        let Some((group, rest)) = groups.split_first() else {
            return f(built);
        };
        let sides = &self.region.sides[group.new.clone()];
        if let ([side], 1) = (sides, group.old.len()) {
            return self.regroup(rest, &built.with(*side), f);
        }
        let (old, new) = (
            &self.old.dims()[group.old.clone()],
            &self.new.dims()[group.new.clone()],
        );
        flat_runs(sides, new, &mut |run| {
            let built = built.moved(run.base);
            split(&built, old, run.start, run.count, run.stride, &mut |part| {
                self.regroup(rest, part, f)
            })
        })
    }
}

fn nest<'a>(tensor: &Tensor, stored: &'a Stored, region: &Region) -> Result<Nest<'a>> {
    let layout = stored.layout(tensor.dtype(), tensor.shape())?;
    let mut nest = Nest {
        stored,
        dtype: tensor.dtype(),
        source: layout.offset,
        destination: region.base,
        loops: Default::default(),
        rank: 0,
    };
    for (side, stride) in region.sides().iter().zip(&layout.strides) {
        nest.source += side.origin * stride * nest.unit();
        if side.size > 1 {
            nest.loops[nest.rank] = Loop {
                count: side.size,
                source: *stride,
                destination: side.stride,
            };
            nest.rank += 1;
        }
    }
    nest.loops[..nest.rank].sort_by_key(|each| std::cmp::Reverse(each.destination));
    nest.merge_loops();
    Ok(nest)
}

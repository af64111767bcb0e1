//! From a range of a tensor's elements to nests of loops over stored bytes.
//!
//! A request is cut into boxes of the tensor's shape, and each operation moves a box into the coordinates of what it is
//! made of, until the box lies in a stored array. A box carries where its elements go, so nothing is ever looked up twice.

use std::ops::Range;

use super::kernel::Kernel;
use super::nest::{Loop, Nest};
use super::node::{Expression, Tensor, Tiling};
use super::region::{Region, Side, Visit, flat_runs, split};
use super::reshape::Group;
use super::shape::{Shape, impossible, units};
use super::stored::Stored;
use super::tiling::span;
use crate::error::Result;

/// Calls `emit` with pieces that together are exactly the elements of `range`, in row-major order, each once.
/// For types smaller than a byte the range counts bytes.
///
/// # Errors
/// Those of finding where a deferred array lies, and those of `emit`.
pub fn pieces<'a>(
    tensor: &'a Tensor,
    range: Range<u64>,
    emit: &mut dyn FnMut(Part<'a>) -> Result<()>,
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

/// The same of a tensor in which nothing is computed but casts.
///
/// # Errors
/// Those of [`pieces`], and for a tensor that a kernel computes.
pub fn nests<'a>(
    tensor: &'a Tensor,
    range: Range<u64>,
    emit: &mut dyn FnMut(Nest<'a>) -> Result<()>,
) -> Result<()> {
    pieces(tensor, range, &mut |part| match part {
        Part::Stored(nest) => emit(nest),
        Part::Computed(_) => impossible("a computed tensor lies in no file".to_owned()),
    })
}

/// The same for a box of a matrix, row after row.
pub fn pieces_of_box<'a>(
    tensor: &'a Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
    emit: &mut dyn FnMut(Part<'a>) -> Result<()>,
) -> Result<()> {
    let (height, width) = (rows.end - rows.start, columns.end - columns.start);
    let side = |range: Range<u64>, stride| Side {
        origin: range.start,
        size: range.end - range.start,
        stride,
    };
    if height == 0 || width == 0 {
        return Ok(());
    }
    let region = Region::default()
        .with(side(rows, width))
        .with(side(columns, 1));
    visit(tensor, &region, emit)
}

/// A part of a request: elements that lie in a file, or a box of a computed matrix.
#[derive(Debug)]
pub enum Part<'a> {
    Stored(Nest<'a>),
    Computed(ComputedBox<'a>),
}

/// A box of a computed matrix, and the places of its elements in the request.
#[derive(Debug, Clone)]
pub struct ComputedBox<'a> {
    pub tensor: &'a Tensor,
    pub rows: Range<u64>,
    pub columns: Range<u64>,
    /// Elements between the start of the requested range and the first element.
    pub destination: u64,
    /// Elements of the request between rows, and between neighbours of a row.
    pub row_target: u64,
    pub column_target: u64,
}

impl<'a> ComputedBox<'a> {
    /// A box of a matrix with both of its sides; nothing of one of another rank, which no kernel makes.
    fn new(tensor: &'a Tensor, region: &Region) -> Option<Self> {
        let [rows, columns] = region.sides() else {
            return None;
        };
        let range = |side: &Side| side.origin..side.origin + side.size;
        Some(Self {
            tensor,
            rows: range(rows),
            columns: range(columns),
            destination: region.base,
            row_target: rows.stride,
            column_target: columns.stride,
        })
    }
}

type Emit<'e, 'a> = &'e mut dyn FnMut(Part<'a>) -> Result<()>;

fn visit<'a>(tensor: &'a Tensor, region: &Region, emit: Emit<'_, 'a>) -> Result<()> {
    match tensor.expression() {
        Expression::Stored(stored) => emit(Part::Stored(nest(tensor, stored, region)?)),
        // Rounding and moving elements may be done in either order: the reader rounds what it reads.
        Expression::Computed {
            kernel: Kernel::Cast,
            inputs,
        } => inputs.iter().try_for_each(|of| visit(of, region, emit)),
        Expression::Computed { .. } => match ComputedBox::new(tensor, region) {
            Some(part) => emit(Part::Computed(part)),
            None => impossible("a kernel gives matrices alone".to_owned()),
        },
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

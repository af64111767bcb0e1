//! From a range of a tensor's elements to nests of loops over stored bytes.
//!
//! A request is cut into boxes of the tensor's shape, and each operation moves a box into the coordinates of what it is
//! made of, until the box lies in a stored array. A box carries where its elements go, so nothing is ever looked up twice.

use std::ops::Range;

use super::dtype::Dtype;
use super::reshape::Group;
use super::shape::{MAX_RANK, Shape, row_major};
use super::stored::{Stored, unit_bytes};
use super::tiling::{Tiling, span};
use super::view::{Expression, Tensor, units};
use crate::error::Result;

/// A loop of a copy: `count` steps of `source` and `destination` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loop {
    pub count: u64,
    pub source: u64,
    pub destination: u64,
}

/// A copy of elements out of one stored array, outermost loop first. Without loops it is one element.
#[derive(Debug)]
pub struct Nest<'a> {
    pub stored: &'a Stored,
    /// Type of the stored elements; the tensor's own type differs where it is a cast.
    pub dtype: Dtype,
    /// Byte offset in the file of the first element.
    pub source: u64,
    /// Elements between the start of the requested range and the first element.
    pub destination: u64,
    loops: [Loop; MAX_RANK],
    rank: usize,
}

impl Nest<'_> {
    pub fn loops(&self) -> &[Loop] {
        &self.loops[..self.rank]
    }

    /// Bytes of one stored element.
    pub fn unit(&self) -> u64 {
        unit_bytes(self.dtype)
    }

    /// Whether the innermost loop, if there is one, copies neighbours to neighbours.
    pub fn is_contiguous_inside(&self) -> bool {
        self.loops()
            .last()
            .is_none_or(|inner| inner.source == 1 && inner.destination == 1)
    }

    /// Calls `f(source, destination, count)` for each run of the innermost loop, offsets in elements from the first one.
    pub fn each_run(&self, f: &mut dyn FnMut(u64, u64, u64)) {
        let (outer, count) = match self.loops().split_last() {
            Some((inner, outer)) => (outer, inner.count),
            None => (&[][..], 1),
        };
        each_offset(outer, 0, 0, &mut |source, destination| {
            f(source, destination, count);
        });
    }
}

/// Calls `f` with the source and destination offset of each iteration of `loops`, outermost first.
pub fn each_offset(loops: &[Loop], source: u64, destination: u64, f: &mut dyn FnMut(u64, u64)) {
    match loops.split_first() {
        None => f(source, destination),
        Some((outer, inner)) => {
            for i in 0..outer.count {
                let (source, destination) = (
                    source + i * outer.source,
                    destination + i * outer.destination,
                );
                each_offset(inner, source, destination, f);
            }
        }
    }
}

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

/// One dimension of a box: the indices `origin .. origin + size`, and how far apart they go in the result.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    origin: u64,
    size: u64,
    stride: u64,
}

/// A box in some tensor's coordinates. `base` is where its first element goes.
#[derive(Debug, Clone, Default)]
struct Region {
    sides: [Side; MAX_RANK],
    rank: usize,
    base: u64,
}

type Emit<'e, 'a> = &'e mut dyn FnMut(Nest<'a>) -> Result<()>;
type Visit<'v> = &'v mut dyn FnMut(&Region) -> Result<()>;

impl Region {
    fn sides(&self) -> &[Side] {
        &self.sides[..self.rank]
    }

    fn with(&self, side: Side) -> Self {
        let mut region = self.clone();
        region.sides[region.rank] = side;
        region.rank += 1;
        region
    }

    fn moved(&self, base: u64) -> Self {
        let mut region = self.clone();
        region.base += base;
        region
    }
}

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

/// Consecutive elements of a flattened group, `stride` apart in the result.
struct FlatRun {
    start: u64,
    count: u64,
    stride: u64,
    base: u64,
}

/// The box `sides` of dimensions `sizes` as runs of the flattened dimensions, as long as strides allow.
fn flat_runs(
    sides: &[Side],
    sizes: &[u64],
    f: &mut dyn FnMut(FlatRun) -> Result<()>,
) -> Result<()> {
    let mut run = FlatRun {
        start: 0,
        count: 1,
        stride: 1,
        base: 0,
    };
    let mut below = 1;
    let mut outer = sides.len();
    while let Some(dim) = outer.checked_sub(1) {
        let side = sides[dim];
        let whole = run.start == 0 && run.count == below;
        if side.size == 1 {
            run.start += side.origin * below;
        } else if whole && (below == 1 || side.stride == run.stride * below) {
            run.stride = if below == 1 { side.stride } else { run.stride };
            run.start = side.origin * below;
            run.count = side.size * below;
        } else {
            break;
        }
        below *= sizes[dim];
        outer = dim;
    }
    let strides = row_major(sizes);
    each_index(&sides[..outer], &mut |index| {
        let steps = index.iter().zip(&sides[..outer]).zip(&strides);
        let (mut start, mut base) = (run.start, run.base);
        for ((i, side), stride) in steps {
            start += (side.origin + i) * stride;
            base += i * side.stride;
        }
        f(FlatRun { start, base, ..run })
    })
}

/// Every index inside the box, in row-major order.
fn each_index(sides: &[Side], f: &mut dyn FnMut(&[u64]) -> Result<()>) -> Result<()> {
    let mut index = [0u64; MAX_RANK];
    let index = &mut index[..sides.len()];
    loop {
        f(index)?;
        let mut dim = sides.len();
        loop {
            if dim == 0 {
                return Ok(());
            }
            dim -= 1;
            index[dim] += 1;
            if index[dim] < sides[dim].size {
                break;
            }
            index[dim] = 0;
        }
    }
}

/// Cuts elements `start .. start + count` of row-major dimensions `dims` into boxes appended to `built`. The elements go
/// `stride` apart, from `built.base` on.
fn split(
    built: &Region,
    dims: &[u64],
    start: u64,
    count: u64,
    stride: u64,
    f: Visit<'_>,
) -> Result<()> {
    let Some((_, inner_dims)) = dims.split_first() else {
        return f(built);
    };
    let inner: u64 = inner_dims.iter().product();
    let (mut row, offset) = (start / inner, start % inner);
    let side = |origin, size| Side {
        origin,
        size,
        stride: stride * inner,
    };
    let mut done = 0;
    if offset > 0 || count < inner {
        done = count.min(inner - offset);
        split(
            &built.with(side(row, 1)),
            inner_dims,
            offset,
            done,
            stride,
            f,
        )?;
        row += 1;
    }
    let rows = (count - done) / inner;
    if rows > 0 {
        let built = built.moved(done * stride).with(side(row, rows));
        f(&whole(built, inner_dims, stride))?;
        done += rows * inner;
        row += rows;
    }
    if done < count {
        let built = built.moved(done * stride).with(side(row, 1));
        split(&built, inner_dims, 0, count - done, stride, f)?;
    }
    Ok(())
}

/// The box extended by all of the dimensions `dims`.
fn whole(mut built: Region, dims: &[u64], stride: u64) -> Region {
    for (size, step) in dims.iter().zip(&row_major(dims)) {
        built = built.with(Side {
            origin: 0,
            size: *size,
            stride: step * stride,
        });
    }
    built
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
    merge_loops(&mut nest);
    Ok(nest)
}

/// Joins each loop with the next inner one where both step through memory as one longer loop would.
fn merge_loops(nest: &mut Nest<'_>) {
    let mut rank = 0;
    for i in 0..nest.rank {
        let inner = nest.loops[i];
        match nest.loops[..rank].last_mut() {
            Some(outer)
                if outer.source == inner.source * inner.count
                    && outer.destination == inner.destination * inner.count =>
            {
                *outer = Loop {
                    count: outer.count * inner.count,
                    ..inner
                };
            }
            _ => {
                nest.loops[rank] = inner;
                rank += 1;
            }
        }
    }
    nest.rank = rank;
}

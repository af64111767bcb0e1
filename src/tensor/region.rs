//! Boxes in a tensor's coordinates that know where their elements go, and the ways to cut a range into them.

use super::shape::{MAX_RANK, row_major};
use crate::error::Result;

/// One dimension of a box: the indices `origin .. origin + size`, and how far apart they go in the result.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Side {
    pub origin: u64,
    pub size: u64,
    pub stride: u64,
}

/// A box in some tensor's coordinates. `base` is where its first element goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Region {
    pub sides: [Side; MAX_RANK],
    pub rank: usize,
    pub base: u64,
}

pub(super) type Visit<'v> = &'v mut dyn FnMut(&Region) -> Result<()>;

impl Region {
    pub fn sides(&self) -> &[Side] {
        &self.sides[..self.rank]
    }

    pub fn with(&self, side: Side) -> Self {
        let mut region = self.clone();
        region.sides[region.rank] = side;
        region.rank += 1;
        region
    }

    pub fn moved(&self, base: u64) -> Self {
        let mut region = self.clone();
        region.base += base;
        region
    }
}

/// Consecutive elements of a flattened group, `stride` apart in the result.
pub(super) struct FlatRun {
    pub start: u64,
    pub count: u64,
    pub stride: u64,
    pub base: u64,
}

/// The box `sides` of dimensions `sizes` as runs of the flattened dimensions, as long as strides allow.
pub(super) fn flat_runs(
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
pub(super) fn split(
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

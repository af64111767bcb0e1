//! Random programs of the algebra, carried out on a lazy tensor and on a naive one.

use std::sync::Arc;

use ckptfs::source::SourceFile;
use ckptfs::tensor::{Dtype, Shape, Strides, Tensor, Tile};
use proptest::prelude::*;

use super::Naive;

/// A tensor and what it must be.
#[derive(Clone)]
pub struct Pair {
    pub lazy: Tensor,
    pub naive: Naive,
}

/// One step of a random program. Numbers are taken modulo what is possible, so that every program means something.
#[derive(Debug, Clone)]
pub enum Step {
    Narrow(usize, u64, u64),
    Permute(usize),
    Split(usize, u64),
    Merge(usize),
    Concat(usize, u64),
    Stack(u64),
    Grid(u64, u64),
    Cast(u8),
}

pub fn step() -> impl Strategy<Value = Step> {
    let n = || any::<u64>();
    let i = || any::<usize>();
    prop_oneof![
        (i(), n(), n()).prop_map(|(a, b, c)| Step::Narrow(a, b, c)),
        i().prop_map(Step::Permute),
        (i(), n()).prop_map(|(a, b)| Step::Split(a, b)),
        i().prop_map(Step::Merge),
        (i(), n()).prop_map(|(a, b)| Step::Concat(a, b)),
        n().prop_map(Step::Stack),
        (n(), n()).prop_map(|(a, b)| Step::Grid(a, b)),
        any::<u8>().prop_map(Step::Cast),
    ]
}

/// An array of `dims` in a file of numbered elements, its dimensions laid out in the file in the order that `order` picks.
pub fn stored(file: Arc<SourceFile>, dims: &[u64], order: u64, dtype: Dtype) -> Pair {
    let mut axes: Vec<usize> = (0..dims.len()).collect();
    axes.rotate_left(order as usize % dims.len().max(1));
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    for axis in axes.iter().rev() {
        strides[*axis] = step;
        step *= dims[*axis];
    }
    let skip = order % 7;
    let layout = Strides {
        offset: skip * dtype.bytes().unwrap(),
        strides: strides.clone().into(),
    };
    let lazy = Tensor::stored(file, dtype, Shape::new(dims).unwrap(), layout).unwrap();
    Pair {
        lazy,
        naive: Naive::strided(dims, &strides, skip),
    }
}

pub fn apply(pair: Pair, step: &Step) -> Pair {
    let Pair { lazy, naive } = pair.clone();
    let rank = naive.dims.len();
    match *step {
        Step::Narrow(dim, start, size) if rank > 0 => {
            let dim = dim % rank;
            let start = start % (naive.dims[dim] + 1);
            let size = size % (naive.dims[dim] - start + 1);
            Pair {
                lazy: lazy.narrow(dim, start, size).unwrap(),
                naive: naive.narrow(dim, start, size),
            }
        }
        Step::Permute(turn) if rank > 0 => {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.rotate_left(turn % rank);
            axes.swap(0, turn / rank % rank);
            Pair {
                lazy: lazy.permute(&axes).unwrap(),
                naive: naive.permute(&axes),
            }
        }
        Step::Split(dim, by) if rank > 0 && rank < 6 => {
            let dim = dim % rank;
            let divisors: Vec<u64> = (1..=naive.dims[dim])
                .filter(|d| naive.dims[dim] % d == 0)
                .collect();
            let Some(by) = divisors.get(by as usize % divisors.len().max(1)) else {
                return pair;
            };
            let mut dims = naive.dims.clone();
            dims.splice(dim..=dim, [naive.dims[dim] / by, *by]);
            reshaped(pair, &dims)
        }
        Step::Merge(dim) if rank > 1 => {
            let dim = dim % (rank - 1);
            let mut dims = naive.dims.clone();
            dims.splice(dim..=dim + 1, [naive.dims[dim] * naive.dims[dim + 1]]);
            reshaped(pair, &dims)
        }
        Step::Concat(dim, cut) if rank > 0 && lazy.bytes() < 4096 => {
            let dim = dim % rank;
            let start = cut % (naive.dims[dim] + 1);
            let size = naive.dims[dim] - start;
            let tail = lazy.narrow(dim, start, size).unwrap();
            Pair {
                lazy: Tensor::concat(&[tail, lazy], dim).unwrap(),
                naive: Naive::concat(&[naive.narrow(dim, start, size), naive], dim),
            }
        }
        Step::Stack(count) if rank < 6 && lazy.bytes() < 4096 => {
            let count = (count % 3 + 1) as usize;
            Pair {
                lazy: Tensor::stack(&vec![lazy; count]).unwrap(),
                naive: Naive::stack(&vec![naive; count]),
            }
        }
        Step::Grid(row, column) if rank >= 2 && naive.elements.len() > 1 => grid(pair, row, column),
        Step::Cast(to) => match lazy.cast([Dtype::F32, Dtype::BF16, Dtype::F16][to as usize % 3]) {
            Ok(lazy) => Pair { lazy, naive },
            Err(_) => pair,
        },
        _ => pair,
    }
}

fn reshaped(Pair { lazy, naive }: Pair, dims: &[u64]) -> Pair {
    Pair {
        lazy: lazy.reshape(dims).unwrap(),
        naive: naive.reshape(dims),
    }
}

/// The tensor cut into four tiles, handed over in another order.
fn grid(Pair { lazy, naive }: Pair, row: u64, column: u64) -> Pair {
    let (rows, columns) = (naive.dims[0], naive.dims[1]);
    let (row, column) = (row % (rows + 1), column % (columns + 1));
    let mut tiles = Vec::new();
    for (x, width) in [(column, columns - column), (0, column)] {
        for (y, height) in [(row, rows - row), (0, row)] {
            let mut offsets = vec![0; naive.dims.len()];
            (offsets[0], offsets[1]) = (y, x);
            let tensor = lazy
                .narrow(0, y, height)
                .unwrap()
                .narrow(1, x, width)
                .unwrap();
            tiles.push(Tile {
                offsets: offsets.into(),
                tensor,
            });
        }
    }
    Pair {
        lazy: Tensor::tiled(lazy.shape().clone(), tiles).unwrap(),
        naive,
    }
}

impl Pair {
    /// The bytes that the lazy tensor must have.
    pub fn bytes(&self) -> Vec<u8> {
        let dtype = self.lazy.dtype();
        let elements = self.naive.elements.iter();
        elements
            .flat_map(|element| super::encode(*element, dtype))
            .collect()
    }
}

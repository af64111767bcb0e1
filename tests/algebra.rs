//! Laws of the algebra and of `read_at`, against a naive tensor library written for clarity.

mod naive;

use std::io::Write;
use std::sync::Arc;

use ckptfs::read::{read, read_at};
use ckptfs::repo::{Attributes, Segment, VirtualFile};
use ckptfs::tensor::{Dtype, Layout, Shape, SourceFile, Tensor, Tile};
use naive::Naive;
use proptest::prelude::*;

/// A tensor and what it must be.
#[derive(Clone)]
struct Pair {
    lazy: Tensor,
    naive: Naive,
}

/// One step of a random program. Numbers are taken modulo what is possible, so that every program means something.
#[derive(Debug, Clone)]
enum Step {
    Narrow(usize, u64, u64),
    Permute(usize),
    Split(usize, u64),
    Merge(usize),
    Concat(usize, u64),
    Stack(u64),
    Grid(u64, u64),
    Cast(u8),
}

fn step() -> impl Strategy<Value = Step> {
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

/// A file of numbered elements: element i holds the float i, exact in every type used here.
fn source(dtype: Dtype, elements: u64) -> Arc<SourceFile> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for i in 0..elements {
        file.write_all(&naive::encode(i as f32, dtype)).unwrap();
    }
    SourceFile::open(&file.into_temp_path().keep().unwrap()).unwrap()
}

/// A stored array of `dims`, its dimensions laid out in the file in the order that `order` picks.
fn stored(dims: &[u64], order: u64, dtype: Dtype) -> Pair {
    let mut axes: Vec<usize> = (0..dims.len()).collect();
    axes.rotate_left(order as usize % dims.len().max(1));
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    for axis in axes.iter().rev() {
        strides[*axis] = step;
        step *= dims[*axis];
    }
    let skip = order % 7;
    let file = source(dtype, step + skip);
    let layout = Layout {
        offset: skip * dtype.bytes().unwrap(),
        strides: strides.clone().into(),
    };
    let lazy = Tensor::stored(file.clone(), dtype, Shape::new(dims).unwrap(), layout).unwrap();
    std::fs::remove_file(file.path()).unwrap();
    Pair {
        lazy,
        naive: Naive::strided(dims, &strides, skip),
    }
}

fn apply(pair: Pair, step: &Step) -> Pair {
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

fn file_of(tensor: &Tensor, header: &[u8]) -> VirtualFile {
    let attributes = Attributes {
        mode: 0o444,
        uid: 0,
        gid: 0,
        modified: (0, 0),
    };
    let segments = vec![
        Segment::Inline(header.into()),
        Segment::Tensor(tensor.clone()),
    ];
    VirtualFile::new("x", attributes, segments)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CKPTFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_composition_reads_as_the_naive_tensors_do(
        dims in prop::collection::vec(1u64..7, 0..4),
        order in any::<u64>(),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64]),
        steps in prop::collection::vec(step(), 0..8),
        ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 1..5),
        header in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let pair = steps.iter().fold(stored(&dims, order, dtype), apply);
        prop_assert_eq!(pair.lazy.shape().dims(), &*pair.naive.dims);
        let file = file_of(&pair.lazy, &header);
        let mut want = header.clone();
        for element in &pair.naive.elements {
            want.extend(naive::encode(*element, pair.lazy.dtype()));
        }
        prop_assert_eq!(file.size(), want.len() as u64);
        let mut whole = vec![0xA5; want.len()];
        read_at(&file, 0, &mut whole).unwrap();
        prop_assert_eq!(&whole, &want);
        for (start, size) in ranges {
            let start = start % (want.len() as u64 + 1);
            let size = (size % (want.len() as u64 + 9)) as usize;
            let end = want.len().min(start as usize + size);
            let mut scratch = Vec::new();
            let got = read(&file, start, size, &mut scratch).unwrap();
            prop_assert_eq!(got, &want[start as usize..end]);
        }
    }
}

#[test]
fn reading_past_the_end_is_an_error_and_not_zeros() {
    let pair = stored(&[4, 4], 0, Dtype::F32);
    let file = file_of(&pair.lazy, b"");
    assert!(read_at(&file, 60, &mut [0; 8]).is_err());
    assert!(read(&file, 64, 8, &mut Vec::new()).unwrap().is_empty());
    assert!(
        read(&file, u64::MAX, usize::MAX, &mut Vec::new())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_gap_and_an_overlap_between_tiles_are_refused() {
    let pair = stored(&[4, 4], 0, Dtype::F32);
    let tile = |y, x, height, width| Tile {
        offsets: [y, x].into(),
        tensor: pair
            .lazy
            .narrow(0, 0, height)
            .unwrap()
            .narrow(1, 0, width)
            .unwrap(),
    };
    let shape = || Shape::new(&[4, 4]).unwrap();
    let tiled = |tiles| {
        Tensor::tiled(shape(), tiles)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(tiled(vec![tile(0, 0, 2, 4), tile(2, 0, 2, 4)]), Ok(()));
    assert_eq!(
        tiled(vec![tile(0, 0, 1, 4), tile(2, 0, 2, 4)]),
        Err("no chunk holds indices 1..2 of dimension 0".to_owned())
    );
    assert_eq!(
        tiled(vec![tile(0, 0, 3, 4), tile(2, 0, 2, 4)]),
        Err("two chunks hold indices 2..3 of dimension 0".to_owned())
    );
    assert_eq!(
        tiled(vec![tile(0, 0, 2, 2), tile(0, 2, 2, 2), tile(2, 0, 2, 2)]),
        Err("its chunks hold 12 of 16 elements".to_owned())
    );
    assert_eq!(
        tiled(vec![
            tile(0, 0, 3, 2),
            tile(0, 2, 2, 2),
            tile(2, 0, 2, 3),
            tile(3, 3, 1, 1)
        ]),
        Err("the chunks at [0, 0] and [2, 0] overlap".to_owned())
    );
    assert!(tiled(vec![tile(3, 0, 2, 4)]).is_err());
}

#[test]
fn large_tensors_cast_and_transpose_across_tiles() {
    let naive = Naive::strided(&[700, 900], &[900, 1], 0);
    let pair = stored(&[700, 900], 0, Dtype::F32);
    let cases = [
        (pair.lazy.transpose().unwrap(), naive.permute(&[1, 0])),
        (pair.lazy.cast(Dtype::BF16).unwrap(), naive.clone()),
        (
            pair.lazy.transpose().unwrap().cast(Dtype::F16).unwrap(),
            naive.permute(&[1, 0]),
        ),
    ];
    for (lazy, naive) in cases {
        let want: Vec<u8> = naive
            .elements
            .iter()
            .flat_map(|element| naive::encode(*element, lazy.dtype()))
            .collect();
        let mut got = vec![0; want.len()];
        read_at(&file_of(&lazy, b""), 0, &mut got).unwrap();
        assert!(got == want, "{:?}", lazy.operations());
    }
}

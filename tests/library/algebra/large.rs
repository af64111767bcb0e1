//! Tensors of many requests, blocks and windows, by several readers at a time, from sources that the page cache holds or not,
//! beside the naive reference.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::thread;

use ckptfs::output::VirtualFile;
use ckptfs::read::{ReadFile, Reader};
use ckptfs::source::{Caching, SourceFile};
use ckptfs::tensor::{Dtype, Shape, Strides, Tensor};
use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::file_of;
use super::naive::program::Pair;
use super::naive::{self, Naive};

/// Elements before the first of a file: no block of a disk begins there.
const SKIP: u64 = 77;

/// Returns how much of a file the page cache holds.
#[derive(Debug, Clone, Copy)]
enum Cached {
    All,
    FirstHalf,
    Nothing,
}

/// The columns or rows of one rank, numbered from `first` on.
struct Share {
    file: NamedTempFile,
    naive: Naive,
    dtype: Dtype,
}

impl Share {
    fn new(dtype: Dtype, dims: [u64; 2], first: u64) -> Self {
        let mut file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let naive = Naive::strided(&dims, &[dims[1], 1], first);
        let front = vec![0xA5; (SKIP * dtype.bytes().unwrap()) as usize];
        file.write_all(&[front, bytes(&naive, dtype)].concat())
            .unwrap();
        file.as_file().sync_all().unwrap();
        Self { file, naive, dtype }
    }

    /// The tensor, of a file that was not asked for anything.
    fn open(&self, cached: Cached) -> Tensor {
        let start = match cached {
            Cached::All => i64::MAX,
            Cached::FirstHalf => self.file.as_file().metadata().unwrap().len() as i64 / 2,
            Cached::Nothing => 0,
        };
        std::fs::read(self.file.path()).unwrap();
        // SAFETY: posix_fadvise takes a descriptor and numbers.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), start, 0, libc::POSIX_FADV_DONTNEED) };
        let source = SourceFile::open(&self.file.path().canonicalize().unwrap()).unwrap();
        let layout = Strides {
            offset: SKIP * self.dtype.bytes().unwrap(),
            strides: [self.naive.dims[1], 1].into(),
        };
        let shape = Shape::new(&self.naive.dims).unwrap();
        Tensor::stored(source, self.dtype, shape, layout).unwrap()
    }
}

fn bytes(naive: &Naive, dtype: Dtype) -> Vec<u8> {
    let elements = naive.elements.iter();
    elements
        .flat_map(|element| naive::encode(*element, dtype))
        .collect()
}

/// Whole in one request, and in many by several readers at the same time, of which some keep what they are given.
fn read_in_all_ways(reader: &Reader, file: &VirtualFile, want: &[u8], request: usize) {
    let read_through = |caching| {
        for (number, want) in want.chunks(request).enumerate() {
            let offset = (number * request) as u64;
            let got = reader.read(file, offset, request, caching).unwrap();
            assert!(*got == *want, "{request} bytes at {offset}");
            got.settle(file);
        }
    };
    thread::scope(|scope| {
        for caching in [Caching::Kernel, Caching::Kernel, Caching::Bypass] {
            scope.spawn(move || read_through(caching));
        }
    });
    let mut got = vec![0; want.len()];
    reader.read_at(file, 0, &mut got).unwrap();
    assert!(got == want);
}

/// One tensor of several ranks, their columns or rows side by side.
fn joined(shares: &[Share], dim: usize, cached: Cached) -> Pair {
    let lazy: Vec<Tensor> = shares.iter().map(|share| share.open(cached)).collect();
    let naive: Vec<Naive> = shares.iter().map(|share| share.naive.clone()).collect();
    Pair {
        lazy: Tensor::concat(&lazy, dim).unwrap(),
        naive: Naive::concat(&naive, dim),
    }
}

/// The even rows of each head, then the odd ones.
fn in_rotary_order(Pair { lazy, naive }: Pair, heads: u64) -> Pair {
    let dims = naive.dims.clone();
    let split = [heads, dims[0] / heads / 2, 2, dims[1]];
    let axes = [0, 2, 1, 3];
    let lazy = lazy.reshape(&split).unwrap().permute(&axes).unwrap();
    Pair {
        lazy: lazy.reshape(&dims).unwrap(),
        naive: naive.reshape(&split).permute(&axes).reshape(&dims),
    }
}

fn turned(Pair { lazy, naive }: Pair) -> Pair {
    Pair {
        lazy: lazy.transpose().unwrap(),
        naive: naive.permute(&[1, 0]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CKPTFS_LARGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        failure_persistence: None,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    })]

    #[test]
    fn large_tensors_read_as_the_naive_ones_do(
        dtype in prop::sample::select(vec![Dtype::BF16, Dtype::F32, Dtype::F64]),
        to in prop::sample::select(vec![Dtype::BF16, Dtype::F16, Dtype::F32]),
        ranks in 1u64..5,
        dim in 0usize..2,
        columns in prop::sample::select(vec![1u64, 3, 64, 511, 1000, 2048, 4096, 16_384]),
        heads in 1u64..9,
        is_rotary: bool,
        is_turned in prop::bool::weighted(0.3),
        is_cast: bool,
        cached in prop::sample::select(vec![Cached::All, Cached::FirstHalf, Cached::Nothing, Cached::Nothing]),
        cache_size in prop::sample::select(vec![0, 5000, 300 << 10, 3 << 20, 128 << 20]),
        request in prop::sample::select(vec![4096usize, 100_001, 512 << 10, 1 << 20]),
    ) {
        let reader = Reader::new(cache_size);
        let elements = 700_000 / ranks;
        let rows = (elements / columns).max(1).next_multiple_of(2 * heads);
        let shares: Vec<Share> = (0..ranks).map(|rank| Share::new(dtype, [rows, columns + rank % 2], rank * elements)).collect();
        let dim = if ranks > 1 && shares[0].naive.dims[1] != shares[1].naive.dims[1] { 1 } else { dim };
        let mut pair = joined(&shares, dim, cached);
        if is_rotary {
            pair = in_rotary_order(pair, heads);
        }
        if is_turned {
            pair = turned(pair);
        }
        // The reference counts in f32, and rounds once.
        if is_cast && dtype != Dtype::BF16 && let Ok(lazy) = pair.lazy.cast(to) {
            pair.lazy = lazy;
        }
        let want = pair.bytes();
        read_in_all_ways(&reader, &file_of(&pair.lazy, b""), &want, request);
    }
}

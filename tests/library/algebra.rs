//! Laws of the algebra and of `read_at`, against a naive tensor library written for clarity.

mod large;

use std::io::Write;
use std::sync::Arc;

use crate::common::naive;
use crate::common::naive::program::{apply, step, stored};
use ckptfs::output::{Attributes, Segment, VirtualFile};
use ckptfs::read::{ReadFile, Reader, read_at};
use ckptfs::source::{Caching, SourceFile};
use ckptfs::tensor::{Dtype, Shape, Tensor, Tile};
use proptest::prelude::*;

/// A file of numbered elements: element i holds the float i, exact in every type used here. A cold one does not lie in the
/// page cache, so that it is read past it.
fn source(dtype: Dtype, elements: u64) -> Arc<SourceFile> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let elements = (0..elements).flat_map(|i| naive::encode(i as f32, dtype));
    file.write_all(&elements.collect::<Vec<u8>>()).unwrap();
    SourceFile::open(file.path()).unwrap()
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
        cache_size in prop::sample::select(vec![0, 100, 3000, 128 << 20]),
    ) {
        let reader = Reader::new(cache_size);
        let pair = steps.iter().fold(stored(source(dtype, 256), &dims, order, dtype), apply);
        prop_assert_eq!(pair.lazy.shape().dims(), &*pair.naive.dims);
        let file = file_of(&pair.lazy, &header);
        let want = [header, pair.bytes()].concat();
        prop_assert_eq!(file.size(), want.len() as u64);
        let mut whole = vec![0xA5; want.len()];
        reader.read_at(&file, 0, &mut whole).unwrap();
        prop_assert_eq!(&whole, &want);
        for (start, size) in ranges {
            let start = start % (want.len() as u64 + 1);
            let size = (size % (want.len() as u64 + 9)) as usize;
            let end = want.len().min(start as usize + size);
            let got = reader.read(&file, start, size, Caching::Kernel).unwrap();
            prop_assert_eq!(&*got, &want[start as usize..end]);
        }
    }
}

#[test]
fn reading_past_the_end_is_an_error_and_not_zeros() {
    let pair = stored(source(Dtype::F32, 16), &[4, 4], 0, Dtype::F32);
    let file = file_of(&pair.lazy, b"");
    assert!(read_at(&file, 60, &mut [0; 8]).is_err());
    let read = |offset, size| Reader::default().read(&file, offset, size, Caching::Kernel);
    assert!(read(64, 8).unwrap().is_empty());
    assert!(read(u64::MAX, usize::MAX).unwrap().is_empty());
}

#[test]
fn a_gap_and_an_overlap_between_tiles_are_refused() {
    let pair = stored(source(Dtype::F32, 16), &[4, 4], 0, Dtype::F32);
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
        Err("no chunk holds the element at [2, 2]".to_owned())
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

//! Bytes that torch reads, compared one by one with those of a folder that torch 2.4 to 2.15 load.

use std::io::Write;

use super::chunks::{ChunkRun, Placed};
use super::envelope::Envelopes;
use super::metadata::metadata;
use crate::output::item::{Content, Item};
use crate::source::SourceFile;
use crate::tensor::{Dims, Dtype, Shape, Tensor, contiguous};

const METADATA: &[u8] = include_bytes!("../../../tests/data/dcp-layout/.metadata");
const ITEMS: &[u8] = include_bytes!("../../../tests/data/dcp-layout/__0_0.distcp");

fn item(name: &str, dtype: Dtype, dims: &[u64]) -> Item {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[0; 100]).unwrap();
    let source = SourceFile::open(&file.path().canonicalize().unwrap()).unwrap();
    let shape = Shape::new(dims).unwrap();
    let layout = contiguous(0, &shape);
    Item {
        name: name.into(),
        content: Content::Tensor(Tensor::stored(source, dtype, shape, layout).unwrap()),
        sources: Default::default(),
        shares: None,
    }
}

/// Chunks of so many rows from each start on, with the bytes of each item of the folder.
fn placed(item: usize, rows: &[(u64, u64)], offset: &mut u64, lengths: &[u64]) -> Vec<Placed> {
    let places = rows.iter().zip(lengths).map(|((start, rows), length)| {
        let placed = Placed {
            item,
            chunks: ChunkRun {
                outer: Dims::new(),
                start: *start,
                rows: *rows,
                count: 1,
            },
            file: 0,
            offset: *offset,
            length: *length,
        };
        *offset += length;
        placed
    });
    places.collect()
}

#[test]
fn the_metadata_is_that_of_the_folder_byte_for_byte() {
    let items = [
        item("a.weight", Dtype::BF16, &[5, 4]),
        item("norm.weight", Dtype::F32, &[3]),
        item("experts", Dtype::BF16, &[2, 3, 4]),
    ];
    let names = ["model.a.weight", "model.norm.weight", "model.experts"].map(str::to_owned);
    let mut offset = 0;
    let mut all = placed(0, &[(0, 3), (3, 2)], &mut offset, &[591, 591]);
    all.extend(placed(1, &[(0, 3)], &mut offset, &[527]));
    all.extend(placed(2, &[(0, 1), (1, 1)], &mut offset, &[591, 591]));
    let made = metadata(&items, &names, "model", &all).concat();
    assert_eq!(made, METADATA);
}

#[test]
fn envelopes_are_those_of_the_folder_byte_for_byte() {
    let mut envelopes = Envelopes::default();
    let mut at = 0;
    for (dtype, dims, bytes) in [
        (Dtype::BF16, &[3u64, 4][..], 24),
        (Dtype::BF16, &[2, 4], 16),
        (Dtype::F32, &[3], 12),
        (Dtype::BF16, &[1, 3, 4], 24),
        (Dtype::BF16, &[1, 3, 4], 24),
    ] {
        let frame = envelopes.of(dtype, &Dims::from_slice(dims), bytes);
        let data = at + frame.head.len();
        let tail = data + bytes as usize;
        let end = tail + frame.tail.len();
        assert_eq!(*frame.head, ITEMS[at..data]);
        assert_eq!(*frame.tail, ITEMS[tail..end]);
        let sum = frame.checksum.as_ref().unwrap();
        assert_eq!(at as u64 + sum.data.start, data as u64);
        at = end;
    }
    assert_eq!(at, ITEMS.len());
}

#[test]
fn equal_chunks_share_an_envelope() {
    let mut envelopes = Envelopes::default();
    let sizes = Dims::from_slice(&[3, 4]);
    let first = envelopes.of(Dtype::BF16, &sizes, 24);
    assert!(std::sync::Arc::ptr_eq(
        &first,
        &envelopes.of(Dtype::BF16, &sizes, 24)
    ));
}

//! Laws of the stream of torch before 1.6.

use super::super::testing::*;
use super::super::{TorchFile, Value};
use super::*;
use crate::tensor::Tensor;

fn open(bytes: &[u8]) -> Result<TorchFile> {
    TorchFile::open(file(bytes).1)
}

fn start(tensor: &Tensor) -> u64 {
    let mut places = Vec::new();
    tensor.each_stored(&mut |stored| places.extend(stored.known_layout().cloned()));
    places[0].offset
}

/// The stream of torch before 1.6, with two storages of which the second is viewed from its second element on.
fn legacy(storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let view = [
        tuple(&[
            text("storage"),
            global("torch", "HalfStorage"),
            text("b"),
            text("cuda:0"),
            int(2),
            { tuple(&[text("view"), int(1), int(2)]) },
        ]),
        b"Q".to_vec(),
    ]
    .concat();
    let whole = [
        tuple(&[
            text("storage"),
            global("torch", "FloatStorage"),
            text("a"),
            text("cpu"),
            int(2),
            none(),
        ]),
        b"Q".to_vec(),
    ]
    .concat();
    let state = dict(&[
        ("w", rebuilt(whole, 0, &[2], &[1])),
        ("v", rebuilt(view, 1, &[1], &[1])),
    ]);
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    let keys = list(
        &storages
            .iter()
            .map(|storage| text(storage.0))
            .collect::<Vec<_>>(),
    );
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19".to_vec();
    let mut bytes = [magic, int(1001), system, state, keys].map(pickle).concat();
    for (_, count, data) in storages {
        bytes.extend(count.to_le_bytes());
        bytes.extend(*data);
    }
    bytes
}

#[test]
fn the_legacy_stream_is_walked_storage_by_storage() {
    let bytes = legacy(&[("a", 2, b"12345678"), ("b", 4, b"aabbccdd")]);
    let found = open(&bytes).unwrap().tensors(&|_| true).unwrap();
    let places: Vec<u64> = found
        .iter()
        .map(|(_, value)| match value {
            Ok(Value::Plain(tensor)) => start(tensor),
            other => panic!("{other:?}"),
        })
        .collect();
    let end = bytes.len() as u64;
    assert_eq!(places, [end - 8 - 8 - 8, end - 4]);
}

#[test]
fn a_legacy_stream_with_other_storages_than_it_names_is_refused() {
    for storages in [
        &[("a", 2, &b"12345678"[..]), ("b", 4, b"aabbccd")][..],
        &[("a", 2, b"12345678"), ("b", 4, b"aabbccdde")],
        &[("a", 2, b"12345678")],
        &[("a", 2, b"12345678"), ("c", 4, b"aabbccdd")],
        &[("a", -1, b"12345678"), ("b", 4, b"aabbccdd")],
        &[("a", i64::MAX, b"12345678"), ("b", 4, b"aabbccdd")],
        &[
            ("a", 2, b"12345678"),
            ("a", 2, b"12345678"),
            ("b", 4, b"aabbccdd"),
        ],
        &[("a", 2, b"12345678"), ("b", 2, b"aabb")],
    ] {
        let opened = open(&legacy(storages)).and_then(|file| {
            file.tensors(&|_| true)?
                .into_iter()
                .map(|(_, value)| value)
                .collect::<Result<Vec<_>>>()
        });
        assert!(opened.is_err());
    }
}

/// The places of `w` and `v`, views of a storage that has one key or another.
fn views(first: (&str, i64), second: (&str, i64)) -> Result<Vec<Value>> {
    let view = |(key, offset): (&str, i64)| {
        let part = tuple(&[text(key), int(offset), int(2)]);
        let class = global("torch", "FloatStorage");
        let id = [text("storage"), class, text("a"), text("cpu"), int(4), part];
        rebuilt([tuple(&id), b"Q".to_vec()].concat(), 0, &[2], &[1])
    };
    let state = dict(&[("w", view(first)), ("v", view(second))]);
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19".to_vec();
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    let parts = [magic, int(1001), system, state, list(&[text("a")])];
    let mut bytes = parts.map(pickle).concat();
    bytes.extend(4u64.to_le_bytes());
    bytes.extend([0; 16]);
    let found = open(&bytes)?.tensors(&|_| true)?;
    found.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn two_views_under_one_key_are_refused() {
    assert_eq!(views(("x", 0), ("y", 2)).unwrap().len(), 2);
    assert_eq!(views(("x", 2), ("x", 2)).unwrap().len(), 2);
    assert!(views(("x", 0), ("x", 2)).is_err());
    assert!(views(("x", 0), ("a", 2)).is_err());
}

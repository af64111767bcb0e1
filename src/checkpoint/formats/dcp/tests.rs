//! Laws of DCP directories, on `.metadata` written by hand.

use std::fs;

use super::*;
use crate::checkpoint::formats::torch_file::testing::*;

const METADATA: &str = "torch.distributed.checkpoint.metadata";

fn size(dims: &[i64]) -> Vec<u8> {
    call("torch", "Size", &[sizes(dims)])
}

/// A tensor of floats with chunks at these offsets, of these sizes.
fn record(dims: &[i64], chunks: &[(&[i64], &[i64])]) -> Vec<u8> {
    let chunk = |(offsets, sizes): &(&[i64], &[i64])| {
        object(
            METADATA,
            "ChunkStorageMetadata",
            dict(&[("offsets", size(offsets)), ("sizes", size(sizes))]),
        )
    };
    let properties = object(
        METADATA,
        "TensorProperties",
        tuple(&[global("torch", "float32"), none()]),
    );
    let chunks = list(&chunks.iter().map(chunk).collect::<Vec<_>>());
    let state = dict(&[
        ("properties", properties),
        ("size", size(dims)),
        ("chunks", chunks),
    ]);
    object(METADATA, "TensorStorageMetadata", state)
}

/// An item: the chunk of `w` at `offsets` is `length` bytes of `file` from `start` on.
fn item(offsets: &[i64], file: &str, start: i64, length: i64) -> (Vec<u8>, Vec<u8>) {
    let index = dict(&[
        ("fqn", text("w")),
        ("offset", size(offsets)),
        ("index", int(0)),
    ]);
    let info = dict(&[
        ("relative_path", text(file)),
        ("offset", int(start)),
        ("length", int(length)),
    ]);
    (
        object(METADATA, "MetadataIndex", index),
        object(
            "torch.distributed.checkpoint.filesystem",
            "_StorageInfo",
            info,
        ),
    )
}

fn metadata(record: Vec<u8>, items: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let bytes = object(METADATA, "BytesStorageMetadata", dict(&[]));
    let tensors = dict(&[("w", record), ("optimizer.step", bytes)]);
    let state = dict(&[
        ("state_dict_metadata", tensors),
        ("planner_data", none()),
        ("storage_data", table(items)),
    ]);
    pickle(object(METADATA, "Metadata", state))
}

/// Two rows of two floats each, as the item of a chunk.
fn rows() -> Vec<u8> {
    saved(
        rebuilt(storage("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1]),
        &[("0", &[1; 16])],
    )
}

fn read_all(metadata: &[u8], files: &[(&str, &[u8])]) -> Result<Dcp> {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".metadata"), metadata).unwrap();
    for (name, bytes) in files {
        fs::write(root.path().join(name), bytes).unwrap();
    }
    read(&Folder::open(root.path())?, &|_| None)
}

fn refusal(record: Vec<u8>, items: &[(Vec<u8>, Vec<u8>)], files: &[(&str, &[u8])]) -> String {
    read_all(&metadata(record, items), files)
        .unwrap_err()
        .to_string()
}

fn halves() -> Vec<u8> {
    record(
        &[4, 2],
        &[(&[2, 0], &[2, 2]), (&[0, 0], &[2, 2]), (&[4, 0], &[0, 2])],
    )
}

#[test]
fn chunks_are_joined_by_offset_without_being_read() {
    let length = rows().len() as i64;
    let file = [rows(), rows()].concat();
    let items = [
        item(&[0, 0], "__0_0.distcp", length, length),
        item(&[2, 0], "__1_0.distcp", 0, length),
    ];
    let metadata = metadata(halves(), &items);
    let junk = vec![0xff; length as usize];
    for second in [&rows(), &junk] {
        let dcp = read_all(
            &metadata,
            &[("__0_0.distcp", &file), ("__1_0.distcp", second)],
        )
        .unwrap();
        let whole = &dcp.tensors[0].parts[0];
        assert_eq!(
            (whole.shape().dims(), whole.operations()),
            (&[4, 2][..], vec!["assemble(2 chunks)".to_owned()])
        );
    }
}

#[test]
fn what_is_not_wanted_is_counted() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".metadata"), metadata(halves(), &[])).unwrap();
    let dcp = read(&Folder::open(root.path()).unwrap(), &|name| {
        name.split('.').next()
    })
    .unwrap();
    assert!(dcp.tensors.is_empty());
    assert_eq!(
        dcp.left_alone.into_values().collect::<Vec<_>>(),
        [LeftAlone {
            tensors: 1,
            bytes: 32
        }]
    );
}

#[test]
fn incomplete_checkpoints_are_refused() {
    let length = rows().len() as i64;
    let items = [
        item(&[0, 0], "__0_0.distcp", 0, length),
        item(&[2, 0], "__1_0.distcp", 0, length),
    ];
    let (first, second) = (("__0_0.distcp", &rows()[..]), ("__1_0.distcp", &rows()[..]));
    assert!(refusal(halves(), &items, &[first]).contains("__1_0.distcp is missing"));
    assert!(refusal(halves(), &items[..1], &[first]).contains("no item holds its chunk at [2, 0]"));
    let cut = ("__1_0.distcp", &second.1[1..]);
    assert!(refusal(halves(), &items, &[first, cut]).contains("incomplete"));
    let gap = record(&[4, 2], &[(&[0, 0], &[2, 2])]);
    assert!(refusal(gap, &items, &[first, second]).contains("no chunk holds indices 2..4"));
    let beyond = record(&[3, 2], &[(&[0, 0], &[2, 2]), (&[2, 0], &[2, 2])]);
    assert!(refusal(beyond, &items, &[first, second]).contains("does not lie inside"));
}

#[test]
fn places_outside_the_checkpoint_are_refused() {
    let one = || record(&[2, 2], &[(&[0, 0], &[2, 2])]);
    for name in ["../x", "/etc/passwd", "a/../../x", "", "."] {
        assert!(refusal(one(), &[item(&[0, 0], name, 0, 1)], &[]).contains("no plain path"));
    }
    for (start, length) in [(-1, 1), (0, -1), (i64::MAX, 1), (1, i64::MAX)] {
        refusal(
            one(),
            &[item(&[0, 0], "f", start, length)],
            &[("f", &[0; 8])],
        );
    }
}

#[test]
fn an_interrupted_save_is_told_from_its_files() {
    for (name, word) in [
        (".metadata.tmp", "interrupted"),
        ("__0.metadata", "one rank"),
        ("__0_0.distcp", "no .metadata"),
    ] {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(name), "").unwrap();
        let error = read(&Folder::open(root.path()).unwrap(), &|_| None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(word) && error.contains("incomplete"),
            "{error}"
        );
    }
}

#[test]
fn foreign_classes_and_transforms_are_refused() {
    let foreign = pickle(object("numpy", "ndarray", dict(&[])));
    assert!(
        read_all(&foreign, &[])
            .unwrap_err()
            .to_string()
            .contains("names numpy.ndarray")
    );
    let system = pickle(call("posix", "system", &[text("id")]));
    assert!(
        read_all(&system, &[])
            .unwrap_err()
            .to_string()
            .contains("names posix.system")
    );
    let info = dict(&[
        ("relative_path", text("f")),
        ("offset", int(0)),
        ("length", int(1)),
        ("transform_descriptors", list(&[text("stream.zstd/1")])),
    ]);
    let info = object(
        "torch.distributed.checkpoint.filesystem",
        "_StorageInfo",
        info,
    );
    let items = [(item(&[0], "f", 0, 1).0, info)];
    assert!(
        refusal(record(&[1], &[(&[0], &[1])]), &items, &[("f", b"x")]).contains("stream.zstd/1")
    );
    assert!(read_all(&pickle(dict(&[])), &[]).is_err());
}

#[test]
fn a_located_chunk_must_be_what_the_metadata_says() {
    let length = rows().len() as u64;
    let (_temporary, file) = file(&rows());
    let chunk = Chunk {
        name: "w".into(),
        section: Section::new(file.clone(), 0, length).unwrap(),
    };
    use crate::tensor::Locate;
    let locate = |dtype, dims: &[u64]| chunk.locate(dtype, &Shape::new(dims).unwrap());
    assert_eq!(*locate(Dtype::F32, &[2, 2]).unwrap().strides, [2, 1]);
    let error = locate(Dtype::F32, &[4]).unwrap_err().to_string();
    assert!(error.contains("tensor w"), "{error}");
    assert!(locate(Dtype::F16, &[2, 2]).is_err());
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        data,
    ]
    .concat()
}

#[test]
fn data_files_in_safetensors_format_tell_their_own_places() {
    let header = r#"{"__metadata__":{"DCP_SHARDING_INFO":"{\"w\":{\"saved_offsets\":[0,0]}}"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let file = safetensors(header, &[3; 16]);
    let one = || record(&[2, 2], &[(&[0, 0], &[2, 2])]);
    let metadata = metadata(one(), &[item(&[0, 0], "__0_0.distcp", 0, 16)]);
    let dcp = read_all(&metadata, &[("__0_0.distcp", &file)]).unwrap();
    let mut place = None;
    dcp.tensors[0].parts[0]
        .each_stored(&mut |stored| place = stored.known_layout().map(|layout| layout.offset));
    assert_eq!(place, Some(8 + header.len() as u64));
    let moved = safetensors(&header.replace("[0,0]}}\"", "[2,0]}}\""), &[3; 16]);
    assert!(read_all(&metadata, &[("__0_0.distcp", &moved)]).is_err());
}

/// An OrderedDict that was made from these entries, as Python 2 writes one.
fn ordered(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let pairs = entries
        .iter()
        .map(|(key, value)| list(&[key.clone(), value.clone()]));
    call(
        "collections",
        "OrderedDict",
        &[list(&pairs.collect::<Vec<_>>())],
    )
}

#[test]
fn entries_in_the_arguments_of_a_dictionary_are_read() {
    let one = record(&[2, 2], &[(&[0, 0], &[2, 2])]);
    let length = rows().len() as i64;
    let state = dict(&[
        ("state_dict_metadata", ordered(&[(text("w"), one)])),
        (
            "storage_data",
            ordered(&[item(&[0, 0], "__0_0.distcp", 0, length)]),
        ),
    ]);
    let metadata = pickle(object(METADATA, "Metadata", state));
    let dcp = read_all(&metadata, &[("__0_0.distcp", &rows())]).unwrap();
    assert_eq!(&*dcp.tensors[0].name, "w");
}

#[test]
fn tables_of_no_dictionary_are_refused() {
    for table in [list(&[]), object("collections", "UserDict", dict(&[]))] {
        let state = dict(&[("state_dict_metadata", table), ("storage_data", dict(&[]))]);
        let metadata = pickle(object(METADATA, "Metadata", state));
        let error = read_all(&metadata, &[]).unwrap_err().to_string();
        assert!(error.contains("no state_dict_metadata"), "{error}");
    }
}

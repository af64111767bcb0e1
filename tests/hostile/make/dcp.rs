//! Folders of torch's Distributed Checkpoint.

use super::pickle::*;
use super::zip::Zip;

const METADATA: &str = "torch.distributed.checkpoint.metadata";

/// A chunk as `.metadata` lists it, and the item that holds it.
#[derive(Clone)]
pub struct Chunk {
    pub offsets: Vec<i64>,
    pub sizes: Vec<i64>,
    pub file: String,
    pub start: i64,
    pub length: i64,
}

/// The item of a chunk: what torch.save makes of a tensor of `count` floats.
pub fn item(count: i64) -> Vec<u8> {
    let value = tensor(floats("0", count), 0, &[count], &[1]);
    Zip::with(&pickle(&value), &[("0", &vec![7; 4 * count as usize])]).bytes()
}

impl Chunk {
    /// Elements `start ..` of a tensor of one dimension, in a file of its own.
    pub fn at(start: i64, count: i64, file: &str) -> Self {
        Self {
            offsets: vec![start],
            sizes: vec![count],
            file: file.to_owned(),
            start: 0,
            length: item(count).len() as i64,
        }
    }
}

/// `.metadata` of the tensor `w`.
pub fn metadata(size: &[i64], chunks: &[Chunk]) -> Vec<u8> {
    with_items(size, chunks, &items(chunks), &[])
}

/// The same with these items, and with further records beside that of `w`.
pub fn with_items(
    size: &[i64],
    chunks: &[Chunk],
    items: &[(Value, Value)],
    records: &[(&str, Value)],
) -> Vec<u8> {
    let mut state = vec![("w", record(size, chunks))];
    state.extend(records.iter().cloned());
    let state = dict(&[
        ("state_dict_metadata", dict(&state)),
        ("storage_data", pairs(items)),
    ]);
    pickle(&object(METADATA, "Metadata", &state))
}

pub fn record(size: &[i64], chunks: &[Chunk]) -> Value {
    let type_and_more = [
        global("torch", "float32"),
        none(),
        boolean(false),
        none(),
        boolean(false),
    ];
    let chunk = |chunk: &Chunk| {
        let state = dict(&[
            ("offsets", torch_size(&chunk.offsets)),
            ("sizes", torch_size(&chunk.sizes)),
        ]);
        object(METADATA, "ChunkStorageMetadata", &state)
    };
    let state = dict(&[
        (
            "properties",
            object(METADATA, "TensorProperties", &tuple(&type_and_more)),
        ),
        ("size", torch_size(size)),
        (
            "chunks",
            list(&chunks.iter().map(chunk).collect::<Vec<_>>()),
        ),
    ]);
    object(METADATA, "TensorStorageMetadata", &state)
}

pub fn items(chunks: &[Chunk]) -> Vec<(Value, Value)> {
    chunks
        .iter()
        .map(|chunk| (index("w", &chunk.offsets), place(chunk)))
        .collect()
}

pub fn index(name: &str, offsets: &[i64]) -> Value {
    let state = dict(&[
        ("fqn", text(name)),
        ("offset", torch_size(offsets)),
        ("index", none()),
    ]);
    object(METADATA, "MetadataIndex", &state)
}

pub fn place(chunk: &Chunk) -> Value {
    let state = dict(&[
        ("relative_path", text(&chunk.file)),
        ("offset", int(chunk.start)),
        ("length", int(chunk.length)),
    ]);
    object(
        "torch.distributed.checkpoint.filesystem",
        "_StorageInfo",
        &state,
    )
}

fn torch_size(sizes: &[i64]) -> Value {
    call(global("torch", "Size"), &[ints(sizes)])
}

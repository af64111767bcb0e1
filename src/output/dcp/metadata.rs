//! `.metadata`: the pickle that tells where each chunk of a DCP lies, as `torch.distributed.checkpoint` reads it from 2.4 to
//! 2.15.

use super::chunks::{Placed, file_name};
use crate::output::item::Item;
use crate::output::pickle::Pickle;
use crate::tensor::Dtype;

const METADATA: &str = "torch.distributed.checkpoint.metadata";
const FILESYSTEM: &str = "torch.distributed.checkpoint.filesystem";

/// The pickle in parts, so that it never lies in memory twice. `names` are the items' with the root before them.
pub fn metadata(items: &[Item], names: &[String], root: &str, placed: &[Placed]) -> Vec<Vec<u8>> {
    let files = placed.iter().map(|run| run.file + 1).max().unwrap_or(0);
    let files: Vec<String> = (0..files).map(file_name).collect();
    let mut pickle = Pickle::new();
    open(&mut pickle, METADATA, "Metadata");
    pickle.text("state_dict_metadata").raw(b"}(");
    for ((number, item), name) in items.iter().enumerate().zip(names) {
        let first = placed.partition_point(|run| run.item < number);
        let end = placed.partition_point(|run| run.item <= number);
        let runs = placed.get(first..end).unwrap_or_default();
        pickle.text(name);
        tensor(&mut pickle, item, runs);
    }
    pickle.raw(b"u");
    pickle.text("planner_data").raw(b"}(");
    for (item, name) in items.iter().zip(names) {
        pickle.text(name);
        match root {
            "" => pickle.text(name).raw(b"\x85"),
            root => pickle.text(root).text(&item.name).raw(b"\x86"),
        };
        pickle.may_part();
    }
    pickle.raw(b"u");
    pickle.text("storage_data").raw(b"}(");
    for run in placed {
        let (Some(item), Some(name)) = (items.get(run.item), names.get(run.item)) else {
            continue;
        };
        let Some(file) = files.get(run.file) else {
            continue;
        };
        storage(&mut pickle, item, name, file, run);
    }
    pickle.raw(b"u");
    pickle.text("version").text("1.0.0");
    close(&mut pickle);
    pickle.finish()
}

fn tensor<'a>(pickle: &mut Pickle<'a>, item: &'a Item, runs: &[Placed]) {
    let dims = item.shape().dims();
    open(pickle, METADATA, "TensorStorageMetadata");
    pickle.text("properties");
    properties(pickle, item.dtype());
    pickle.text("size");
    size(pickle, dims);
    pickle.text("chunks").raw(b"](");
    for run in runs {
        let sizes = run.chunks.sizes(dims);
        for number in 0..run.chunks.count {
            open(pickle, METADATA, "ChunkStorageMetadata");
            pickle.text("offsets");
            size(pickle, &run.chunks.offsets(number, dims));
            pickle.text("sizes");
            size(pickle, &sizes);
            close(pickle);
            pickle.may_part();
        }
    }
    pickle.raw(b"e");
    close(pickle);
}

fn storage<'a>(pickle: &mut Pickle<'a>, item: &Item, name: &'a str, file: &'a str, run: &Placed) {
    let dims = item.shape().dims();
    for number in 0..run.chunks.count {
        open(pickle, METADATA, "MetadataIndex");
        pickle.text("fqn").text(name).text("offset");
        size(pickle, &run.chunks.offsets(number, dims));
        close(pickle);
        open(pickle, FILESYSTEM, "_StorageInfo");
        pickle.text("relative_path").text(file);
        pickle
            .text("offset")
            .number(run.offset + number * run.length);
        pickle.text("length").number(run.length);
        close(pickle);
        pickle.may_part();
    }
}

/// An object without arguments, whose attributes follow.
fn open(pickle: &mut Pickle, module: &'static str, name: &'static str) {
    pickle.global(module, name).raw(b")\x81}(");
}

fn close(pickle: &mut Pickle) {
    pickle.raw(b"ub");
}

fn size(pickle: &mut Pickle, dims: &[u64]) {
    pickle.global("torch", "Size").tuple(dims).raw(b"\x85R");
}

/// torch 2.15 writes six items here and accepts five, earlier ones accept five alone.
fn properties(pickle: &mut Pickle, dtype: Dtype) {
    let name = dtype.torch_name().unwrap_or_default();
    pickle.properties(dtype, |pickle| {
        pickle.global(METADATA, "TensorProperties").raw(b")\x81(");
        pickle.global("torch", name);
        pickle.object("layout", |pickle| {
            pickle.global("torch.serialization", "_get_layout");
            pickle.text("torch.strided").raw(b"\x85R");
        });
        pickle.raw(b"\x89");
        pickle.object("memory format", |pickle| {
            pickle.global(METADATA, "_MEM_FORMAT_ENCODING");
            pickle.number(0).raw(b"\x85R");
        });
        pickle.raw(b"\x89tb");
    });
}

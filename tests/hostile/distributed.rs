//! Checkpoints in parts that do not make a whole.

use super::make::dcp::*;
use super::make::pickle::*;
use super::make::ranks::*;
use super::make::zip::torch;
use super::scene::*;

/// A folder with `.metadata`, and an item of four floats in each of two files.
fn folder(metadata: Vec<u8>) -> Scene {
    let files = Scene::new()
        .with("__0_0.distcp", item(4))
        .with("__1_0.distcp", item(4));
    files.with(".metadata", metadata)
}

fn chunks() -> [Chunk; 2] {
    [
        Chunk::at(0, 4, "__0_0.distcp"),
        Chunk::at(4, 4, "__1_0.distcp"),
    ]
}

/// The good folder with its second chunk changed.
fn bent(bend: impl FnOnce(&mut Chunk)) -> Scene {
    let [first, mut second] = chunks();
    bend(&mut second);
    folder(metadata(&[8], &[first, second]))
}

fn ranks(placements: [Value; 2], sizes: [i64; 2], whole: i64) -> Scene {
    let [one, other] = placements;
    let file = |rank| format!("model_world_size_2_rank_{rank}.pt");
    let first = Scene::new().with(&file(0), rank_file(one, sizes[0], whole, 0, 2));
    first.with(&file(1), rank_file(other, sizes[1], whole, 1, 2))
}

cases! {
    60 a_foreign_name_in_the_metadata, "refused by name" => {
        shown(bent(|_| {}), &["\"w\"", "8"]);
        for (module, name) in [("posix", "system"), ("builtins", "eval"), ("pip", "main"), ("numpy", "load"), ("torchx", "y"), ("torch", "load"), ("torch.hub", "load")] {
            let extra = [("x", call(global(module, name), &[text("touch ../canary")]))];
            let bytes = with_items(&[8], &chunks(), &items(&chunks()), &extra);
            refused(folder(bytes), &[&format!("names {module}.{name}"), "nothing was executed"]);
        }
    }

    61 items_in_other_places, "refused; nothing there is opened" => {
        for place in ["../secret", "/etc/passwd", "a/../../secret", "", "..", "C:x", "x\0"] {
            refused(bent(|chunk| chunk.file = place.to_owned()), &["no plain path"]);
        }
        refused(bent(|_| {}).link("__1_0.distcp", "../secret"), &["outside the checkpoint"]);
    }

    62 items_outside_of_their_files, "refused when opened, those of the optimizer too; so are two items over the same bytes" => {
        for (start, length) in [(1, 1 << 20), (1 << 40, 1), (i64::MAX, i64::MAX), (0, 1 << 62)] {
            refused(bent(|chunk| (chunk.start, chunk.length) = (start, length)), &["incomplete", "tensor w"]);
        }
        for length in [0, 1, 15] {
            refused(bent(|chunk| chunk.length = length), &["tensor w", "bytes for a chunk", "incomplete"]);
        }
        for (start, length) in [(-1, 10), (0, -1)] {
            refused(bent(|chunk| (chunk.start, chunk.length) = (start, length)), &["without a place"]);
        }
        refused(bent(|chunk| chunk.file = "__0_0.distcp".to_owned()), &["share"]);
    }

    63 a_gap_between_chunks, "refused with the rows; never zeros" => {
        refused(folder(metadata(&[8], &chunks()[..1])), &["tensor w", "no chunk holds indices 4..8"]);
        refused(folder(metadata(&[12], &chunks())), &["no chunk holds indices 8..12"]);
        refused(folder(metadata(&[8], &[])), &["without chunks"]);
    }

    64 chunks_that_overlap, "refused; only a replica, the same offsets and shape, is taken once" => {
        refused(bent(|chunk| chunk.offsets = vec![2]), &["two chunks hold"]);
        let [first, second] = chunks();
        let twice = [first.clone(), second.clone(), second];
        refused(folder(metadata(&[8], &twice)), &["two items for one chunk"]);
        let replica = with_items(&[8], &twice, &items(&twice[..2]), &[]);
        shown(folder(replica), &["\"w\""]);
    }

    65 chunks_outside_of_their_tensor, "refused" => {
        refused(bent(|chunk| chunk.offsets = vec![5]), &["does not lie inside"]);
        refused(bent(|chunk| chunk.offsets = vec![i64::MAX]), &["does not lie inside"]);
        refused(bent(|chunk| chunk.offsets = vec![4, 0]), &["does not lie inside"]);
        refused(bent(|chunk| chunk.sizes = vec![4, 1]), &["does not lie inside"]);
        refused(bent(|chunk| chunk.sizes = vec![1 << 40, 1 << 40]), &["too many dimensions or elements"]);
        refused(bent(|chunk| chunk.offsets = vec![-4]), &["tensor w"]);
    }

    66 half_a_checkpoint, "refused as incomplete, saying what is missing" => {
        refused(bent(|_| {}).without("__1_0.distcp"), &["__1_0.distcp is missing", "incomplete"]);
        refused(bent(|_| {}).without(".metadata"), &["no .metadata", "incomplete"]);
        refused(bent(|_| {}).without(".metadata").with(".metadata.tmp", ""), &[".metadata.tmp", "interrupted"]);
        refused(folder(b"version https://git-lfs.github.com/spec/v1\n".into()), &["Git LFS pointer"]);
        refused(folder(vec![0; 9 << 20]), &["more than all the data that it tells of"]);
        let whole = metadata(&[8], &chunks());
        refused(folder(whole[..whole.len() - 9].into()), &["ends too early", "incomplete"]);
        refused(bent(|_| {}).with("__1_0.distcp", &item(4)[..99]), &["incomplete"]);
    }

    67 a_rank_that_is_missing, "refused with the name of its file" => {
        let scene = ranks([shard(0), shard(0)], [4, 4], 8);
        shown(scene, &["\"w\""]);
        let scene = ranks([shard(0), shard(0)], [4, 4], 8).without("model_world_size_2_rank_1.pt");
        refused(scene, &["model_world_size_2_rank_1.pt", "missing"]);
    }

    68 ranks_of_two_saves, "refused where the files tell: world sizes, shapes, names; a date is no proof, copying changes it" => {
        let good = || ranks([shard(0), shard(0)], [4, 4], 8);
        let other_world = rank_file(shard(0), 4, 8, 0, 3);
        refused(good().with("model_world_size_3_rank_0.pt", &other_world), &["world sizes 2 and 3"]);
        refused(good().with("model_world_size_2_rank_1.pt", rank_file(shard(0), 4, 9, 1, 2)), &["on one rank"]);
        refused(good().with("model_world_size_2_rank_1.pt", torch(&dict(&[("v", small())]))), &["of 2 ranks"]);
        refused(good().with("model_world_size_2_rank_1.pt", rank_file(shard(0), 4, 8, 0, 2)), &["tensor w"]);
    }

    69 placements_that_are_not_understood, "refused; a strided shard is understood where the mesh allows it" => {
        refused(ranks([placement("Partial"), placement("Partial")], [4, 4], 8), &["Partial"]);
        refused(ranks([placement("Ragged"), placement("Ragged")], [4, 4], 8), &["unknown placement Ragged"]);
        refused(ranks([strided_shard(0, 3), strided_shard(0, 3)], [4, 4], 8), &["3 parts"]);
        refused(ranks([shard(1), shard(1)], [4, 4], 8), &["tensor w"]);
        refused(ranks([shard(0), shard(-1)], [4, 4], 8), &["without a dimension"]);
    }

    70 uneven_shards_and_padding, "as the metadata says; anything else is refused" => {
        shown(Scene::real("dcp-uneven-w3").with("config.json", r#"{"model_type":"free"}"#), &["\"tensors\""]);
        refused(ranks([shard(0), shard(0)], [4, 4], 7), &["tensor w", "local shape"]);
        refused(ranks([shard(0), shard(0)], [4, 2], 8), &["tensor w", "local shape"]);
    }

    71 pickled_objects_among_the_tensors, "left alone, unread" => {
        let bytes = object("torch.distributed.checkpoint.metadata", "BytesStorageMetadata", &dict(&[]));
        let [first, second] = chunks();
        let payload = pickle(&call(global("posix", "system"), &[text("touch ../canary")]));
        let place = Chunk { file: "__9_0.distcp".to_owned(), start: 0, length: payload.len() as i64, ..first.clone() };
        let mut items = items(&[first.clone(), second.clone()]);
        let id = dict(&[("fqn", text("extra")), ("offset", none()), ("index", none())]);
        items.push((object("torch.distributed.checkpoint.metadata", "MetadataIndex", &id), super::make::dcp::place(&place)));
        let metadata = with_items(&[8], &[first, second], &items, &[("extra", bytes)]);
        shown(folder(metadata).with("__9_0.distcp", payload), &["\"w\""]);
    }

    72 an_optimizer_of_terabytes, "left alone, unread" => {
        let huge = Chunk { sizes: vec![1 << 40], ..Chunk::at(0, 4, "__9_0.distcp") };
        let records = [("optimizer.state.w.exp_avg", record(&[1 << 40], std::slice::from_ref(&huge)))];
        let mut items = items(&chunks());
        items.push((index("optimizer.state.w.exp_avg", &[0]), place(&huge)));
        let bytes = with_items(&[8], &chunks(), &items, &records);
        shown(folder(bytes).with("__9_0.distcp", vec![0xff; item(4).len()]), &["\"w\"", "left alone"]);
    }
}

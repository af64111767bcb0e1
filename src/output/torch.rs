//! Files of `torch.save`: one archive with all tensors, or the shards and the index that transformers reads.

use std::collections::BTreeMap;

use super::file::{Attributes, Segment, VirtualFile, inline_file};
use super::index;
use super::item::{Content, Item};
use super::pickle::Pickle;
use super::shards::{self, Weight};
use super::sources::sources_of;
use super::torch_archive::{self, write_tensor};

/// One archive of all items, in the entry `root` of its dictionary where that is not empty.
pub fn torch_file(path: &str, items: &[Item], root: &str) -> VirtualFile {
    let all: Vec<usize> = (0..items.len()).collect();
    archive(path, items, &all, root)
}

/// `pytorch_model.bin`, or shards of at most `limit` bytes and their index. Tied weights stay in one shard.
pub fn torch_shards(items: &[Item], limit: u64, total_parameters: u64) -> Vec<VirtualFile> {
    let mut units: Vec<usize> = Vec::with_capacity(items.len());
    let mut weights: Vec<Weight> = Vec::new();
    for item in items {
        let unit = match item.shares.and_then(|first| units.get(first)) {
            Some(unit) => *unit,
            None => {
                let data = item.bytes();
                weights.push(Weight { data, entry: 0 });
                weights.len() - 1
            }
        };
        units.push(unit);
    }
    let split = shards::split(&weights, limit);
    if split.len() <= 1 {
        return vec![torch_file("pytorch_model.bin", items, "")];
    }
    let shard_of = shards::shard_of(&split, weights.len());
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); split.len()];
    for (number, unit) in units.iter().enumerate() {
        members[shard_of[*unit]].push(number);
    }
    let count = members.len();
    let name = |number: usize| format!("pytorch_model-{:05}-of-{count:05}.bin", number + 1);
    let names: Vec<String> = (0..count).map(name).collect();
    let shards = names.iter().zip(&members);
    let mut files: Vec<VirtualFile> = shards
        .clone()
        .map(|(name, members)| archive(name, items, members, ""))
        .collect();
    let entries = shards.flat_map(|(name, members)| {
        members
            .iter()
            .map(move |number| (&*items[*number].name, &**name))
    });
    let entries: BTreeMap<&str, &str> = entries.collect();
    let total_size = weights.iter().map(|weight| weight.data).sum();
    let bytes = index::index(&entries, total_parameters, total_size);
    let attributes = Attributes::of(sources_of(items.iter().filter_map(Item::tensor)));
    files.push(inline_file(
        "pytorch_model.bin.index.json",
        bytes,
        attributes,
    ));
    files
}

/// The archive of the items of these numbers.
fn archive(path: &str, items: &[Item], numbers: &[usize], root: &str) -> VirtualFile {
    let members: Vec<&Item> = numbers
        .iter()
        .filter_map(|number| items.get(*number))
        .collect();
    let owns = numbers.iter().filter(|number| {
        let shares = items.get(**number).and_then(|item| item.shares);
        shares.is_none_or(|first| numbers.binary_search(&first).is_err())
    });
    let owners: Vec<usize> = owns.copied().collect();
    let owner = |number: usize| {
        let shares = items.get(number).and_then(|item| item.shares);
        shares
            .filter(|first| numbers.binary_search(first).is_ok())
            .unwrap_or(number)
    };
    let keys: BTreeMap<usize, usize> = owners.iter().copied().zip(0..).collect();
    let storage = numbers
        .iter()
        .map(|number| keys.get(&owner(*number)).copied().unwrap_or(0));
    let pickle = dictionary(members.iter().copied().zip(storage), root);
    let owners = owners.iter().filter_map(|number| items.get(*number));
    let sizes = owners.clone().map(Item::bytes);
    let archive = torch_archive::archive(&pickle, Some("little"), sizes);
    let mut segments = Vec::with_capacity(2 * archive.parts.len());
    let mut data = owners.map(segment);
    for part in archive.parts {
        segments.push(Segment::Inline(part.into()));
        segments.extend(data.next());
    }
    let attributes = Attributes::of(sources_of(members.into_iter().filter_map(Item::tensor)));
    VirtualFile::new(path, attributes.unwrap_or_default(), segments)
        .with_checksums(archive.checksums)
}

fn segment(item: &Item) -> Segment {
    match &item.content {
        Content::Tensor(tensor) => Segment::Tensor(tensor.clone()),
        Content::Zeros(..) => Segment::Inline(vec![0; item.bytes() as usize].into()),
    }
}

/// The pickle of a dictionary of tensors, each with the number of its storage.
fn dictionary<'a>(items: impl Iterator<Item = (&'a Item, usize)>, root: &str) -> Vec<u8> {
    let mut pickle = Pickle::new();
    if !root.is_empty() {
        pickle.raw(b"}").plain_text(root);
    }
    pickle.raw(b"}(");
    for (item, storage) in items {
        pickle.plain_text(&item.name);
        write_tensor(&mut pickle, item.dtype(), item.shape().dims(), storage);
    }
    pickle.raw(b"u");
    if !root.is_empty() {
        pickle.raw(b"s");
    }
    pickle.into_bytes()
}

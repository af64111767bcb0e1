//! The synthetic directory: its files, their exact sizes, and the segments that each is made of.

mod dcp;
mod file;
mod file_ranges;
mod fingerprint;
mod header;
mod index;
mod item;
mod npy;
mod pickle;
mod shards;
mod sources;
mod torch;
mod torch_archive;
mod zip;

use std::path::Path;

use crate::mapping::MappedTensor;
use crate::source::SourceFile;

pub use dcp::{CHUNK_SIZE, Dcp, dcp_files};
pub use file::{
    Attributes, Frame, Framed, Piece, Pieces, Segment, VISIBLE_MODE, VirtualFile, inline_file,
    source_file,
};
pub use file_ranges::{FileRange, file_ranges};
pub use fingerprint::{Fingerprint, Match, hex};
pub use header::lengthened;
pub use index::python_json;
pub use item::{Content, Item};
pub use npy::npy_files;
pub use sources::sources;
pub use torch::{torch_file, torch_shards};
pub use zip::Checksum;

/// The file names of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `model.safetensors`, or shards and an index.
    Model,
    /// `adapter_model.safetensors`, always one file.
    Adapter,
}

/// Where one shard ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Most bytes of data in a shard.
    AtMost(u64),
    /// As in the safetensors files of the source, where each unit lies in one of them; else as the size says.
    AsStored { or_at_most: u64 },
}

/// Options of the split of tensors into weight files.
#[derive(Debug)]
pub struct Weights {
    pub naming: Naming,
    /// The unit of each tensor: those of one unit stay in one shard. Units count from 0, in the order in which they are sharded.
    pub units: Vec<usize>,
    pub split: Split,
    /// The parameters of the model, tied ones once.
    pub total_parameters: u64,
}

/// The weight files, and the index where there are several.
pub fn weight_files(tensors: &[MappedTensor], weights: &Weights) -> Vec<VirtualFile> {
    let sizes = unit_sizes(tensors, &weights.units);
    let split = match weights.split {
        Split::AtMost(limit) => shards::split(&sizes, limit),
        Split::AsStored { or_at_most } => match stored_in(tensors, weights, sizes.len()) {
            Some(files) => shards::as_stored(&files),
            None => shards::split(&sizes, or_at_most),
        },
    };
    let name = |number| shard_name(weights.naming, number, split.len());
    let names: Vec<String> = (1..=split.len()).map(name).collect();
    let mut shards: Vec<Vec<&MappedTensor>> = vec![Vec::new(); split.len()];
    let shard_of = shards::shard_of(&split, sizes.len());
    for (tensor, unit) in tensors.iter().zip(&weights.units) {
        shards[shard_of[*unit]].push(tensor);
    }
    let file = |(name, shard): (&String, &mut Vec<_>)| shard_file(name, shard);
    let mut files: Vec<VirtualFile> = names.iter().zip(&mut shards).map(file).collect();
    if files.len() > 1 {
        let tensors_of = names.iter().zip(&shards);
        let entries = tensors_of.flat_map(|(name, shard)| {
            let name = &**name;
            shard.iter().map(move |tensor| (&*tensor.name, name))
        });
        let entries = entries.collect();
        let total_size = sizes.iter().map(|size| size.data).sum();
        let bytes = index::index(&entries, weights.total_parameters, total_size);
        let attributes = Attributes::of(sources(tensors));
        files.push(inline_file(
            "model.safetensors.index.json",
            bytes,
            attributes,
        ));
    }
    files
}

/// The safetensors file of each of `count` units. `None` where a unit lies in several, or in another kind of file.
fn stored_in<'t>(
    tensors: &'t [MappedTensor],
    weights: &Weights,
    count: usize,
) -> Option<Vec<&'t Path>> {
    let mut files = vec![None; count];
    for (tensor, unit) in tensors.iter().zip(&weights.units) {
        for path in sources([tensor]).into_iter().map(SourceFile::path) {
            let is_safetensors = path.extension().is_some_and(|end| end == "safetensors");
            if !is_safetensors || *files[*unit].get_or_insert(path) != path {
                return None;
            }
        }
    }
    files.into_iter().collect()
}

fn unit_sizes(tensors: &[MappedTensor], units: &[usize]) -> Vec<shards::Weight> {
    let mut sizes = vec![shards::Weight::default(); units.iter().max().map_or(0, |last| last + 1)];
    for (tensor, unit) in tensors.iter().zip(units) {
        sizes[*unit].data += tensor.tensor.bytes();
        sizes[*unit].entry += header::entry_bound(tensor);
    }
    sizes
}

fn shard_name(naming: Naming, number: usize, count: usize) -> String {
    match (naming, count) {
        (Naming::Adapter, _) => "adapter_model.safetensors".to_owned(),
        (Naming::Model, 1) => "model.safetensors".to_owned(),
        (Naming::Model, _) => format!("model-{number:05}-of-{count:05}.safetensors"),
    }
}

fn shard_file(name: &str, tensors: &mut [&MappedTensor]) -> VirtualFile {
    header::sort(tensors);
    let attributes = Attributes::of(sources(tensors.iter().copied())).unwrap_or_default();
    let mut segments = vec![Segment::Inline(header::header(tensors).into())];
    segments.extend(
        tensors
            .iter()
            .map(|tensor| Segment::Tensor(tensor.tensor.clone())),
    );
    VirtualFile::new(name, attributes, segments)
}

//! The synthetic directory: which files it shows, their exact sizes, and what each is made of.

mod file;
mod header;
mod index;
mod npy;
mod places;
mod shards;

use std::collections::HashSet;
use std::sync::Arc;

use crate::mapping::MappedTensor;
use crate::tensor::SourceFile;

pub use file::{Attributes, Segment, VirtualFile};
pub use header::lengthened;
pub use index::python_json;
pub use npy::npy_files;
pub use places::{Place, places};

/// What the files of a directory are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `model.safetensors`, or shards and an index.
    Model,
    /// `adapter_model.safetensors`, always one file.
    Adapter,
}

/// How tensors become weight files.
#[derive(Debug)]
pub struct Weights {
    pub naming: Naming,
    /// Numbers of tensors that stay in one shard, in the order in which they are sharded. Together they name each tensor once.
    pub units: Vec<Vec<usize>>,
    /// Most bytes of data in a shard.
    pub max_shard_size: u64,
    /// The parameters of the model, tied ones once.
    pub total_parameters: u64,
}

/// The weight files, and the index where there are several.
pub fn weight_files(tensors: &[MappedTensor], weights: &Weights) -> Vec<VirtualFile> {
    let members = |unit: &[usize]| unit.iter().filter_map(|i| tensors.get(*i)).collect();
    let units: Vec<Vec<&MappedTensor>> = weights.units.iter().map(|unit| members(unit)).collect();
    let sizes: Vec<shards::Weight> = units.iter().map(|unit| weight(unit)).collect();
    let limit = match weights.naming {
        Naming::Model => weights.max_shard_size,
        Naming::Adapter => u64::MAX / 2,
    };
    let split = shards::split(&sizes, limit);
    let shard = |(number, shard): (usize, &Vec<usize>)| {
        let units = shard.iter().filter_map(|i| units.get(*i));
        let mut members: Vec<&MappedTensor> = units.flatten().copied().collect();
        header::sort(&mut members);
        (shard_name(weights.naming, number + 1, split.len()), members)
    };
    let shards: Vec<_> = split.iter().enumerate().map(shard).collect();
    let files = shards.iter().map(|(name, shard)| shard_file(name, shard));
    let mut files: Vec<VirtualFile> = files.collect();
    if shards.len() > 1 {
        let entries = shards.iter().flat_map(|(name, shard)| {
            let file = &**name;
            shard.iter().map(move |tensor| (&*tensor.name, file))
        });
        let total_size = sizes.iter().map(|size| size.data).sum();
        let bytes = index::index(&entries.collect(), weights.total_parameters, total_size);
        files.push(inline_file(
            "model.safetensors.index.json",
            bytes,
            Attributes::of(sources(tensors)),
        ));
    }
    files
}

fn weight(unit: &[&MappedTensor]) -> shards::Weight {
    shards::Weight {
        data: unit.iter().map(|tensor| tensor.tensor.bytes()).sum(),
        entry: unit.iter().map(|tensor| header::entry_bound(tensor)).sum(),
    }
}

/// A file that the mount makes itself.
pub fn inline_file(path: &str, bytes: Vec<u8>, attributes: Option<Attributes>) -> VirtualFile {
    let attributes = attributes.unwrap_or_default();
    VirtualFile::new(path, attributes, vec![Segment::Inline(bytes.into())])
}

/// A source file under `path`, as it is.
pub fn source_file(path: &str, file: Arc<SourceFile>) -> VirtualFile {
    let attributes = Attributes::of([&*file]).unwrap_or_default();
    VirtualFile::new(path, attributes, vec![Segment::Source(file)])
}

/// The files that hold the tensors' bytes, each once.
pub fn sources<'a>(tensors: impl IntoIterator<Item = &'a MappedTensor>) -> Vec<&'a SourceFile> {
    let mut files: Vec<&SourceFile> = Vec::new();
    let mut seen = HashSet::new();
    for tensor in tensors {
        tensor.tensor.each_stored(&mut |stored| {
            if seen.insert(Arc::as_ptr(stored.file())) {
                files.push(stored.file());
            }
        });
    }
    files
}

fn shard_name(naming: Naming, number: usize, count: usize) -> String {
    match (naming, count) {
        (Naming::Adapter, _) => "adapter_model.safetensors".to_owned(),
        (Naming::Model, 1) => "model.safetensors".to_owned(),
        (Naming::Model, _) => format!("model-{number:05}-of-{count:05}.safetensors"),
    }
}

fn shard_file(name: &str, tensors: &[&MappedTensor]) -> VirtualFile {
    let attributes = Attributes::of(sources(tensors.iter().copied())).unwrap_or_default();
    let mut segments = vec![Segment::Inline(header::header(tensors).into())];
    segments.extend(
        tensors
            .iter()
            .map(|tensor| Segment::Tensor(tensor.tensor.clone())),
    );
    VirtualFile::new(name, attributes, segments)
}

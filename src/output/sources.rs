//! The source files of tensors.

use std::sync::Arc;

use foldhash::{HashSet, HashSetExt};

use crate::mapping::MappedTensor;
use crate::source::SourceFile;
use crate::tensor::Tensor;

/// The files that hold the tensors' bytes, each once.
pub fn sources<'a>(tensors: impl IntoIterator<Item = &'a MappedTensor>) -> Vec<&'a SourceFile> {
    sources_of(tensors.into_iter().map(|mapped| &mapped.tensor))
}

pub(super) fn sources_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<&'a SourceFile> {
    let mut files: Vec<&SourceFile> = Vec::new();
    let mut seen = HashSet::new();
    for tensor in tensors {
        tensor.each_stored(&mut |stored| {
            if seen.insert(Arc::as_ptr(stored.file())) {
                files.push(stored.file());
            }
        });
    }
    files
}

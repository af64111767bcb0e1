//! Virtual files that are a source file, byte for byte, so that the kernel can read that file itself.

use std::sync::Arc;

use crate::error::Result;
use crate::output::{Segment, VirtualFile};
use crate::source::SourceFile;
use crate::tensor::{Part, Tensor, pieces};

/// The source file whose bytes are exactly those of `file`, if there is one.
///
/// # Errors
/// When the source cannot be read, or is no longer what it was.
pub fn passthrough_source(file: &VirtualFile) -> Result<Option<&Arc<SourceFile>>> {
    match file.segments() {
        [Segment::Source(source)] => Ok(Some(source)),
        [Segment::Inline(header), Segment::Tensor(first), rest @ ..]
            if rest
                .iter()
                .all(|segment| matches!(segment, Segment::Tensor(_))) =>
        {
            let source = first_source(first).filter(|source| source.size() == file.size());
            match source {
                Some(source) if has_tensors(source, file)? && starts(source, header)? => {
                    Ok(Some(source))
                }
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

fn first_source(tensor: &Tensor) -> Option<&Arc<SourceFile>> {
    let mut first = None;
    tensor.each_stored(&mut |stored| first = first.or(Some(stored.file())));
    first
}

/// Whether every tensor lies in `source` where it lies in `file`.
fn has_tensors(source: &Arc<SourceFile>, file: &VirtualFile) -> Result<bool> {
    for (start, segment) in file.overlapping(0, file.size()) {
        if let Segment::Tensor(tensor) = segment
            && !lies_at(tensor, source, start)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lies_at(tensor: &Tensor, source: &Arc<SourceFile>, start: u64) -> Result<bool> {
    let mut lies = true;
    pieces(tensor, 0..u64::MAX, &mut |piece| {
        let Part::Stored(nest) = piece else {
            lies = false;
            return Ok(());
        };
        let is_plain = nest.dtype == tensor.dtype() && nest.is_contiguous_inside();
        lies &= is_plain
            && nest.loops().len() <= 1
            && Arc::ptr_eq(nest.stored.file(), source)
            && nest.source == start + nest.destination * nest.unit();
        Ok(())
    })?;
    Ok(lies)
}

fn starts(source: &SourceFile, header: &[u8]) -> Result<bool> {
    let mut bytes = vec![0; header.len()];
    source.read_exact_at(&mut bytes, 0)?;
    Ok(bytes == header)
}

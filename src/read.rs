//! `offset -> bytes` of any virtual file: pure, safe from many threads. No lock is held over I/O but that of a block or window,
//! which one thread reads for all who need it.

mod block;
mod blocks;
mod cast;
mod cast_copy;
mod compute;
mod computed;
mod factors;
mod fetch;
mod passthrough;
mod plan;
mod scatter;
mod scatter_tile;
mod span;
mod tiles;
mod windows;

use std::cell::Cell;
use std::io;

use crate::error::{Error, Result};
use crate::output::VirtualFile;
use crate::source::DirectBuffer;
use crate::tensor::Tensor;

use plan::{Plan, Progress};
use span::Span;

pub use blocks::set_cache_size;
pub use passthrough::passthrough_source;

thread_local! {
    /// Where a thread puts what it reads of sources and then casts or turns.
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory of a thread in which replies are put together. It grows to the largest.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    /// A reply that lies in the source as it is.
    landed: Option<DirectBuffer>,
    /// What the reply was read from.
    spans: Vec<Span>,
    progress: Option<Progress>,
    /// Whether the kernel keeps it under the mount's own name.
    is_kept: bool,
}

impl Scratch {
    /// Drops what is left of a reply, such as one that failed: its bytes were not handed on.
    pub fn clear(&mut self) {
        self.landed = None;
        self.spans.clear();
        self.progress = None;
    }

    /// What can wait until a reply is on its way: reading ahead of a sequential reader where the source is slow, and giving
    /// back the page cache of a source whose bytes the kernel keeps. Best effort. Leaves memory that is scarce to other threads.
    pub fn follow_up(&mut self, file: &VirtualFile) {
        self.landed = None;
        for span in self.spans.drain(..) {
            span.hand_on(self.is_kept);
        }
        if let Some(progress) = self.progress.take() {
            progress.produce_ahead(file);
        }
    }
}

/// The bytes `offset .. offset + size` of `file`, fewer only at its end, in `scratch`. Every source is looked at after its
/// bytes were read: they are those that it was opened with. What the kernel will not keep (`is_kept`), others will ask for
/// again: it is left in the page cache under the source's name.
///
/// A map of the source handed to the kernel would save a copy, which lies in the processor's cache and costs little; but the
/// kernel copies it after any check, so that a source rewritten in place could be shown half old and half new.
pub fn read<'a>(
    file: &VirtualFile,
    offset: u64,
    size: usize,
    is_kept: bool,
    scratch: &'a mut Scratch,
) -> Result<&'a [u8]> {
    scratch.clear();
    let end = file.size().min(offset.saturating_add(size as u64));
    let length = end.saturating_sub(offset) as usize;
    if length == 0 {
        return Ok(&[]);
    }
    let mut plan = Plan::new(file, offset, end)?;
    scratch.spans.extend(plan.spans()?);
    scratch.progress = plan.progress(end);
    scratch.is_kept = is_kept;
    for span in &scratch.spans {
        span.record_resident(is_kept);
    }
    if let Some(copy) = plan.single_copy(length)
        && let Some(landed) = copy.file.read_direct(copy.range())?
    {
        return Ok(scratch.landed.insert(landed));
    }
    let buffer = room(&mut scratch.bytes, length)?;
    plan.execute(buffer)?;
    Ok(buffer)
}

/// The first `length` bytes of a buffer that never shrinks. One reader without memory must not end the mount for all.
fn room(buffer: &mut Vec<u8>, length: usize) -> Result<&mut [u8]> {
    let more = length.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| {
        Error::io(
            "memory".as_ref(),
            io::Error::from_raw_os_error(libc::ENOMEM),
        )
    })?;
    buffer.resize(buffer.len() + more, 0);
    Ok(&mut buffer[..length])
}

/// Fills `buffer` with the bytes from `offset` on, which must all lie inside the file.
pub fn read_at(file: &VirtualFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let end = offset.saturating_add(buffer.len() as u64);
    if end > file.size() {
        let error = io::ErrorKind::UnexpectedEof.into();
        return Err(Error::io(file.path().as_ref(), error));
    }
    Plan::new(file, offset, end)?.execute(buffer)
}

/// Fills `buffer` with the bytes of `tensor` from `offset` on, which must all lie inside it.
pub fn read_tensor_at(tensor: &Tensor, offset: u64, buffer: &mut [u8]) -> Result<()> {
    Plan::of_tensor(tensor, offset, offset + buffer.len() as u64)?.execute(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Attributes, Segment};
    use crate::source::SourceFile;
    use crate::tensor::{Dtype, Shape, contiguous};

    #[test]
    fn what_an_earlier_reply_left_is_not_handed_on_with_a_later_one() {
        let source = tempfile::NamedTempFile::new().unwrap();
        source.as_file().set_len(100).unwrap();
        let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
        let shape = Shape::new(&[100]).unwrap();
        let layout = contiguous(0, &shape);
        let tensor = Tensor::stored(source, Dtype::U8, shape, layout).unwrap();
        let file = VirtualFile::new("x", Attributes::default(), vec![Segment::Tensor(tensor)]);
        let mut scratch = Scratch::default();
        read(&file, 0, 10, true, &mut scratch).unwrap();
        read(&file, 10, 10, true, &mut scratch).unwrap();
        assert_eq!(scratch.spans.len(), 1);
        assert!(read(&file, 100, 10, true, &mut scratch).unwrap().is_empty());
        assert!(scratch.spans.is_empty());
        read(&file, 0, 10, true, &mut scratch).unwrap();
        scratch.clear();
        assert!(scratch.spans.is_empty() && scratch.landed.is_none());
    }

    #[test]
    fn a_buffer_for_which_there_is_no_memory_is_an_error() {
        let mut buffer = vec![1; 8];
        let error = room(&mut buffer, usize::MAX / 2).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM);
        assert_eq!(room(&mut buffer, 9).unwrap(), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
    }
}

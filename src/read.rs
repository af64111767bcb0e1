//! `offset -> bytes` of any virtual file: pure, safe from many threads. No lock is held over I/O but that of a block or window,
//! which one thread reads for all who need it.

mod blocks;
mod cast;
mod passthrough;
mod place;
mod scatter;
mod tiles;
mod windows;

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::repo::{Segment, VirtualFile};
use crate::tensor::{Landed, Nest, SourceFile, Tensor, nests};

use scatter::Copy;
use tiles::Production;

pub use blocks::set_cache_size;
pub use passthrough::passthrough_source;

/// Memory of a thread in which replies are put together. It grows to the largest.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    /// A reply that lies in the source as it is.
    landed: Option<Landed>,
}

impl Scratch {
    /// After a reply: leaves memory that is scarce to other threads.
    pub fn release(&mut self) {
        self.landed = None;
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
    scratch.release();
    let end = file.size().min(offset.saturating_add(size as u64));
    let length = end.saturating_sub(offset) as usize;
    if length == 0 {
        return Ok(&[]);
    }
    let mut plan = Plan::new(file, offset, end)?;
    for (file, range, _) in plan.spans() {
        file.note_cached(range, is_kept);
    }
    if let Some(copy) = plan.lone_copy(length)
        && let Some(landed) = copy
            .file
            .read_past_cache(copy.source..copy.source + length as u64)?
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
    let mut plan = Plan::default();
    plan.add_tensor(tensor, offset, offset + buffer.len() as u64, 0)?;
    scatter::join(&mut plan.copies);
    plan.execute(buffer)
}

/// A reply that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub offset: u64,
    pub length: usize,
    /// From the request to here.
    pub took: Duration,
    /// Whether the kernel keeps the bytes under the mount's own name.
    pub is_kept: bool,
}

/// A reply at fewer bytes a second comes from a slow source.
const SLOW: f64 = 50e6;

/// A shorter reply tells latency, not speed.
const TELLING: usize = 128 << 10;

impl Reply {
    fn is_slow(&self) -> bool {
        self.length >= TELLING && (self.length as f64) < SLOW * self.took.as_secs_f64()
    }
}

/// What can wait until a reply is on its way: reading ahead of a sequential reader where the source is slow, and giving
/// back the page cache of a source whose bytes the kernel keeps. Best effort.
pub fn follow_up(file: &VirtualFile, reply: Reply) {
    let mut plan = Plan::default();
    let end = reply.offset.saturating_add(reply.length as u64);
    if plan.add_file(file, reply.offset, end).is_err() {
        return;
    }
    for (file, range, bytes) in plan.spans() {
        file.read_ahead_of(&range, reply.is_slow());
        if reply.is_kept {
            file.give_back(range, bytes);
        }
    }
}

/// What one request consists of. Destinations are byte offsets into the reply, and together cover it exactly once.
#[derive(Default)]
struct Plan<'a> {
    ready: Vec<(usize, Cow<'a, [u8]>)>,
    copies: Vec<Copy<'a>>,
    productions: Vec<Production<'a>>,
    /// Transposed ranges: destination, tensor, bytes of it.
    transposed: Vec<(usize, &'a Tensor, Range<u64>)>,
    /// Whether transposed ranges are taken from blocks.
    uses_blocks: bool,
}

impl<'a> Plan<'a> {
    fn new(file: &'a VirtualFile, start: u64, end: u64) -> Result<Self> {
        let mut plan = Self {
            uses_blocks: true,
            ..Self::default()
        };
        plan.add_file(file, start, end)?;
        Ok(plan)
    }

    fn add_file(&mut self, file: &'a VirtualFile, start: u64, end: u64) -> Result<()> {
        for (segment_start, segment) in file.overlapping(start, end) {
            let from = start.max(segment_start) - segment_start;
            let to = end.min(segment_start + segment.size()) - segment_start;
            let destination = (segment_start + from - start) as usize;
            match segment {
                Segment::Inline(bytes) => {
                    let bytes = bytes.get(from as usize..to as usize).unwrap_or(&[]);
                    self.ready.push((destination, bytes.into()));
                }
                Segment::Source(file) => self.copies.push(Copy {
                    file,
                    source: from,
                    destination,
                    length: (to - from) as usize,
                }),
                Segment::Tensor(tensor) => self.add_tensor(tensor, from, to, destination)?,
            }
        }
        scatter::join(&mut self.copies);
        Ok(())
    }

    /// Bytes `from .. to` of a tensor. The few requests that cut through an element are served by way of whole ones.
    fn add_tensor(
        &mut self,
        tensor: &'a Tensor,
        from: u64,
        to: u64,
        destination: usize,
    ) -> Result<()> {
        let unit = tensor.unit();
        if from.is_multiple_of(unit) && to.is_multiple_of(unit) {
            let (copies, productions) = (self.copies.len(), self.productions.len());
            nests(tensor, from / unit..to / unit, &mut |nest| {
                self.add_nest(tensor, nest, destination);
                Ok(())
            })?;
            let mut added = self.productions[productions..].iter();
            if self.uses_blocks && added.any(Production::is_strided) {
                self.copies.truncate(copies);
                self.productions.truncate(productions);
                self.transposed.push((destination, tensor, from..to));
            }
            return Ok(());
        }
        let (first, last) = (from / unit * unit, to.next_multiple_of(unit));
        let mut whole = vec![0; (last - first) as usize];
        let mut plan = Self::default();
        plan.add_tensor(tensor, first, last, 0)?;
        plan.execute(&mut whole)?;
        whole.truncate((to - first) as usize);
        whole.drain(..(from - first) as usize);
        self.ready.push((destination, whole.into()));
        Ok(())
    }

    fn add_nest(&mut self, tensor: &'a Tensor, nest: Nest<'a>, destination: usize) {
        if nest.dtype == tensor.dtype() && nest.is_contiguous_inside() {
            scatter::expand(&nest, destination, &mut self.copies);
        } else {
            self.productions.push(Production {
                nest,
                dtype: tensor.dtype(),
                destination,
            });
        }
    }

    /// What is read of each file, and how many bytes of that are wanted; nothing of what blocks hold.
    fn spans(&mut self) -> impl Iterator<Item = (&'a SourceFile, Range<u64>, u64)> {
        let productions = self.productions.iter().map(Production::span);
        scatter::spans(&mut self.copies).chain(productions)
    }

    /// The copy that makes a whole reply of `length` bytes, if one does.
    fn lone_copy(&self, length: usize) -> Option<&Copy<'a>> {
        match &*self.copies {
            [copy] if copy.length == length => Some(copy),
            _ => None,
        }
    }

    fn execute(self, reply: &mut [u8]) -> Result<()> {
        for (destination, bytes) in &self.ready {
            reply[*destination..destination + bytes.len()].copy_from_slice(bytes);
        }
        for production in &self.productions {
            production.execute(reply)?;
        }
        for (destination, tensor, range) in self.transposed {
            let length = (range.end - range.start) as usize;
            let target = &mut reply[destination..destination + length];
            if !blocks::read(tensor, range.start, target)? {
                read_tensor_at(tensor, range.start, target)?;
            }
        }
        scatter::execute(self.copies, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_for_which_there_is_no_memory_is_an_error() {
        let mut buffer = vec![1; 8];
        let error = room(&mut buffer, usize::MAX / 2).unwrap_err();
        assert_eq!(error.errno(), libc::ENOMEM);
        assert_eq!(room(&mut buffer, 9).unwrap(), [1, 1, 1, 1, 1, 1, 1, 1, 0]);
    }
}

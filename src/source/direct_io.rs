//! Direct I/O (`O_DIRECT`) into buffers in huge pages.
//!
//! The kernel keeps each reply under the mount's own name, so a buffered read would cache every byte twice. Measured on ext4
//! on a virtual disk, 512 KiB at a time by four threads: direct I/O 2.1 to 2.9 GB/s at 0.05 CPU seconds per GB, buffered
//! 1.0 to 2.1 GB/s at 0.2 to 0.9. Buffers in 4 KiB pages reach 0.5 GB/s: each page is a segment of its own for the disk.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use memmap2::{Advice, MmapMut};

use super::mechanism::Mechanism;
use crate::limits;

/// Alignment of offsets and lengths: the largest logical block of local filesystems.
const BLOCK: usize = 4096;

/// Size of a buffer: the longest range and the blocks around it.
const BUFFER: usize = DirectBuffer::MAX_LENGTH as usize + 2 * BLOCK;

/// Size of a huge page on most architectures.
const HUGE: usize = 2 << 20;

/// Memory of all buffers of a mount, in bytes. A read that gets no buffer is buffered by the kernel.
const MEMORY: usize = 32 << 20;

/// A limited memory is at least this many times that of the buffers.
const SHARE: u64 = 8;

/// The free buffers of a mount, mapped at the first direct read. Those at the end were used before, so that taking them
/// faults in no page.
#[derive(Debug, Default)]
pub(super) struct DirectBuffers(OnceLock<Mutex<Vec<MmapMut>>>);

impl DirectBuffers {
    /// Takes a free buffer, or returns `None` where all are in use.
    pub(super) fn take(self: &Arc<Self>) -> Option<DirectBuffer> {
        let memory = self.with_free(Vec::pop)?;
        Some(DirectBuffer {
            memory: Some(memory),
            range: 0..0,
            home: self.clone(),
        })
    }

    fn with_free<T>(&self, f: impl FnOnce(&mut Vec<MmapMut>) -> T) -> T {
        let free = self.0.get_or_init(|| Mutex::new(map_buffers()));
        f(&mut free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maps one buffer after the other: the kernel joins maps that lie side by side, so that huge pages span their borders.
///
/// No huge page reaches beyond the ends of joined maps: the buffers there, whose pages are small, are taken last.
fn map_buffers() -> Vec<MmapMut> {
    let count = if is_affordable() { MEMORY / BUFFER } else { 0 };
    let map = || {
        let map = MmapMut::map_anon(BUFFER).ok()?;
        if Mechanism::HugePages.is_on() {
            map.advise(Advice::HugePage).ok();
        }
        Some(map)
    };
    let mut maps: Vec<MmapMut> = (0..count).map_while(|_| map()).collect();
    maps.sort_unstable_by_key(|map| map.as_ptr().addr());
    let joined = joined(&maps);
    maps.sort_by_key(|map| is_in_huge_pages(&addresses(map), &joined));
    maps
}

fn addresses(map: &MmapMut) -> Range<usize> {
    let Range { start, end } = map.as_ptr_range();
    start.addr()..end.addr()
}

/// The addresses of sorted maps, of which those that lie side by side are one range.
fn joined(maps: &[MmapMut]) -> Vec<Range<usize>> {
    let sides_meet = |map: &MmapMut, next: &MmapMut| addresses(map).end == addresses(next).start;
    let groups = maps.chunk_by(sides_meet);
    let ends = groups.filter_map(|group| Some((group.first()?, group.last()?)));
    ends.map(|(first, last)| addresses(first).start..addresses(last).end)
        .collect()
}

fn is_in_huge_pages(buffer: &Range<usize>, joined: &[Range<usize>]) -> bool {
    let pages = buffer.start / HUGE * HUGE..buffer.end.next_multiple_of(HUGE);
    let holds = |range: &Range<usize>| range.start <= pages.start && pages.end <= range.end;
    joined.iter().any(holds)
}

/// Returns whether huge pages are enabled, the address space is unlimited and memory is not too short for the buffers.
fn is_affordable() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let has_huge_pages = setting.is_ok_and(|setting| !setting.contains("[never]"));
    let is_enough = |limit| limit >= MEMORY as u64 * SHARE;
    has_huge_pages && limits::addresses().is_none() && limits::memory().is_none_or(is_enough)
}

/// Returns whether the filesystem supports direct I/O in blocks of at most [`BLOCK`] (`STATX_DIOALIGN`, Linux 6.1). Network
/// filesystems do not.
pub(super) fn is_supported(file: &File) -> bool {
    alignment(file).is_some_and(|block| (1..=BLOCK).contains(&block))
}

fn alignment(file: &File) -> Option<usize> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    let (file, path, flags) = (file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
    let wanted = libc::STATX_DIOALIGN;
    // SAFETY: the call takes a descriptor, an empty path and a struct to fill, of which every value, zeros too, is valid.
    let answer = unsafe {
        libc::statx(file, path, flags, wanted, answer.as_mut_ptr());
        answer.assume_init()
    };
    let is_told = answer.stx_mask & wanted != 0;
    is_told.then_some(answer.stx_dio_offset_align as usize)
}

/// Reads the whole blocks around a range. Returns the position of the range among them.
fn fill(buffer: &mut [u8], file: &File, range: Range<u64>) -> io::Result<Range<usize>> {
    let start = range.start / BLOCK as u64 * BLOCK as u64;
    let skip = (range.start - start) as usize;
    let end = (range.end - start) as usize;
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let blocks = buffer.get_mut(..end.next_multiple_of(BLOCK));
    let blocks = blocks.ok_or_else(too_long)?;
    let mut done = 0;
    while done < end {
        // Only the end of the file is not a whole number of blocks.
        let rest = blocks.get_mut(done..).unwrap_or_default();
        match file.read_at(rest, start + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(skip..end)
}

/// Bytes of a file, in a buffer that returns to the free ones on drop.
#[derive(Debug)]
pub(super) struct DirectBuffer {
    /// There until the drop.
    memory: Option<MmapMut>,
    range: Range<usize>,
    home: Arc<DirectBuffers>,
}

impl DirectBuffer {
    /// Longest range of one read, in bytes: longer reads of a disk are hardly faster.
    pub(super) const MAX_LENGTH: u64 = 1 << 20;

    /// Reads a range of at most [`Self::MAX_LENGTH`] bytes, by a descriptor opened with O_DIRECT.
    pub(super) fn read(&mut self, file: &File, range: Range<u64>) -> io::Result<()> {
        let memory = self.memory.as_deref_mut().unwrap_or_default();
        self.range = fill(memory, file, range)?;
        Ok(())
    }
}

impl Deref for DirectBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let memory = self.memory.as_deref();
        memory
            .and_then(|memory| memory.get(self.range.clone()))
            .unwrap_or_default()
    }
}

impl Drop for DirectBuffer {
    fn drop(&mut self) {
        let memory = self.memory.take();
        self.home.with_free(|free| free.extend(memory));
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_with;

    use super::*;

    #[test]
    fn the_buffers_taken_first_lie_in_huge_pages() {
        let range = |start: usize, end: usize| start * HUGE / 4..end * HUGE / 4;
        let joined = [range(1, 10), range(20, 22)];
        let is_inside = |start, end| is_in_huge_pages(&range(start, end), &joined);
        assert!(is_inside(4, 6) && is_inside(5, 8));
        assert!(!is_inside(1, 3) && !is_inside(3, 5) && !is_inside(7, 9) && !is_inside(20, 22));
    }

    #[test]
    fn the_memory_of_direct_buffers_is_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [7; 10_000]).unwrap();
        let file = File::open(file.path()).unwrap();
        let buffers = Arc::new(DirectBuffers::default());
        let read = || {
            let mut buffer = buffers.take()?;
            buffer.read(&file, 5_000..9_999).unwrap();
            Some(buffer)
        };
        let taken: Vec<DirectBuffer> = repeat_with(read).map_while(|buffer| buffer).collect();
        assert!(taken.len() <= MEMORY / BUFFER && taken.iter().all(|bytes| **bytes == [7; 4_999]));
        assert!(read().is_none());
        let is_there = !taken.is_empty();
        drop(taken);
        assert_eq!(read().is_some(), is_there);
    }
}

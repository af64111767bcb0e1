//! Page-cache policy for source files.
//!
//! The kernel keeps a reply under the mount's own name, so a source page that was delivered need not stay cached as well. A
//! file is divided into windows of [`WINDOW`] bytes. A window is released (`POSIX_FADV_DONTNEED`) once all of it was
//! delivered, unless it was resident before the mount first read it: then another process may need it. Windows before it
//! must have been delivered too, because a reader behind would trigger readahead into the released window and read it from
//! the disk again.
//!
//! With direct I/O (see `direct_io`) little goes through the page cache: rows of transposed tensors, and ranges that were
//! resident already. Local storage is left to the kernel's own readahead: `POSIX_FADV_WILLNEED` makes it allocate small
//! folios, measured a third slower on ext4 at 1.2 GB/s. `RWF_DONTCACHE` costs a fifth to a third of the speed there, and
//! releasing behind the reader costs nothing measurable. A slow file is read ahead from here instead.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::pace::Pace;

/// Whether the kernel keeps a reply under the mount's own name (a reader with O_DIRECT bypasses its page cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    Kernel,
    Bypass,
}

/// Granularity of release, in bytes. Folios never cross the end of a window.
const WINDOW: u64 = 4 << 20;

/// Windows that are counted (1 TiB): a sparse file may claim any size, and the rest of it is left to the kernel.
const MAX_WINDOWS: u64 = 1 << 18;

/// A window counts as delivered when at most one byte in this many is missing, such as the padding between tensors: fewer
/// bytes than any request, whose pages would be read again.
const PADDING_SHARE: u64 = 64;

/// Readahead on slow files, in bytes: 20 ms at 1 GB/s.
const AHEAD: u64 = 16 << 20;

/// Upper bound of the kernel's own readahead, in bytes: 8 MiB for storage with large optimal I/O, with a margin.
const KERNEL_READAHEAD: u64 = 32 << 20;

/// Flags of a window, above its count of delivered bytes. `PROBED`: `cachestat` was asked. `RESIDENT`: the window was cached
/// by another process then. `DELIVERED`: all bytes went to readers. `PENDING`: it is to be released.
const PROBED: u64 = 1 << 63;
const RESIDENT: u64 = 1 << 62;
const DELIVERED: u64 = 1 << 61;
const PENDING: u64 = 1 << 60;
const COUNT: u64 = PENDING - 1;

/// The state of one file: delivered bytes of each window, pace, and the end of the readahead.
#[derive(Debug)]
pub(super) struct PageCache {
    size: u64,
    counts: OnceLock<Box<[AtomicU64]>>,
    is_slow: AtomicBool,
    pace: Mutex<Pace>,
    ahead: AtomicU64,
}

/// Returns whether most of a range is in the page cache. A window is asked about once, when it is first read.
type Probe<'a> = &'a dyn Fn(&Range<u64>) -> bool;

impl PageCache {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            counts: OnceLock::new(),
            is_slow: AtomicBool::new(false),
            pace: Mutex::default(),
            ahead: AtomicU64::new(0),
        }
    }

    /// Returns the range to read ahead after `range` was read: none unless the file is slow and its reads are roughly
    /// sequential.
    pub(super) fn readahead(&self, range: &Range<u64>) -> Option<Range<u64>> {
        if !self.is_buffered_only() {
            return None;
        }
        let (offset, end) = (range.start, range.end);
        let asked = self.ahead.load(Ordering::Relaxed);
        let is_next = asked
            .checked_sub(offset)
            .is_some_and(|ahead| ahead <= 2 * AHEAD);
        if is_next && end + AHEAD / 2 <= asked {
            return None;
        }
        let next = if is_next { end + AHEAD } else { end };
        self.ahead.store(next, Ordering::Relaxed);
        (is_next && asked < next).then(|| asked.max(end)..next)
    }

    /// Records the duration of a read, and disables direct I/O on a file that proves slow.
    pub(super) fn record_pace(&self, bytes: u64, took: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.record(bytes, took) {
            self.disable_direct_io();
        }
    }

    /// Returns whether all reads go through the page cache: the file is slow, or a direct read failed.
    pub(super) fn is_buffered_only(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    pub(super) fn disable_direct_io(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Records which windows are resident before a range, and what the kernel reads ahead of it, is read.
    pub(super) fn record_resident(&self, range: Range<u64>, probe: Probe<'_>) {
        let reach = range.start..range.end.saturating_add(KERNEL_READAHEAD);
        self.windows(reach).for_each(|window| window.probe(probe));
    }

    /// Keeps a range in the page cache, as if it had been resident.
    pub(super) fn keep(&self, range: Range<u64>) {
        for window in self.windows(range) {
            window.count.fetch_or(PROBED | RESIDENT, Ordering::Relaxed);
        }
    }

    /// Returns whether some of a range was resident when it was first read.
    pub(super) fn is_resident(&self, range: Range<u64>, probe: Probe<'_>) -> bool {
        self.windows(range).any(|window| {
            window.probe(probe);
            window.has(RESIDENT)
        })
    }

    /// Records `bytes` delivered, evenly spread over `range`. Returns the windows to release: delivered, not resident before,
    /// and none before them that is yet to be read.
    pub(super) fn record_delivered(
        &self,
        range: Range<u64>,
        bytes: u64,
        probe: Probe<'_>,
    ) -> impl Iterator<Item = Range<u64>> {
        let span = u128::from(range.end - range.start).max(1);
        for window in self.windows(range.clone()) {
            window.probe(probe);
            let inside = range.end.min(window.range.end) - range.start.max(window.range.start);
            let share = u128::from(inside) * u128::from(bytes) / span;
            window.add(share as u64);
        }
        let reach = range.start..range.end.saturating_add(AHEAD);
        let pending = self.windows(reach).filter(|window| window.has(PENDING));
        pending.filter_map(move |window| {
            let before = window.range.start.saturating_sub(AHEAD)..window.range.start;
            let is_last = self.windows(before).all(|window| window.has(DELIVERED));
            (is_last && window.take_pending()).then_some(window.range)
        })
    }

    fn windows(&self, range: Range<u64>) -> impl Iterator<Item = Window<'_>> {
        let (zero, size) = (|_| AtomicU64::new(0), self.size);
        let counted = size.div_ceil(WINDOW).min(MAX_WINDOWS);
        let counts = self.counts.get_or_init(|| (0..counted).map(zero).collect());
        let numbers = range.start / WINDOW..range.end.min(size).div_ceil(WINDOW);
        numbers.filter_map(move |number| {
            Some(Window {
                range: number * WINDOW..size.min((number + 1) * WINDOW),
                count: counts.get(usize::try_from(number).ok()?)?,
            })
        })
    }
}

struct Window<'a> {
    range: Range<u64>,
    count: &'a AtomicU64,
}

impl Window<'_> {
    fn probe(&self, probe: Probe<'_>) {
        if !self.has(PROBED) {
            let resident = if probe(&self.range) { RESIDENT } else { 0 };
            self.count.fetch_or(PROBED | resident, Ordering::Relaxed);
        }
    }

    /// Adds delivered bytes. A window that they complete is pending release, unless it was resident before.
    fn add(&self, share: u64) {
        let length = self.range.end - self.range.start;
        let before = self.count.fetch_add(share, Ordering::Relaxed);
        let is_complete = |count: u64| count & COUNT >= length - length / PADDING_SHARE;
        if !is_complete(before) && is_complete(before.wrapping_add(share)) {
            let pending = if before & RESIDENT == 0 { PENDING } else { 0 };
            self.count.store(DELIVERED | pending, Ordering::Relaxed);
        }
    }

    fn has(&self, flag: u64) -> bool {
        self.count.load(Ordering::Relaxed) & flag != 0
    }

    /// Takes the window off the pending ones, and returns whether it was one. Later reads probe it again.
    fn take_pending(&self) -> bool {
        self.count.fetch_and(DELIVERED, Ordering::Relaxed) & PENDING != 0
    }
}

/// Answer of cachestat(2).
#[repr(C)]
#[derive(Default)]
struct Cached {
    pages: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Number of cachestat(2) on every architecture.
const CACHESTAT: libc::c_long = 451;

/// Returns whether at least 7/8 of the range is in the page cache, more than the first requests for it bring there. Where
/// the kernel does not tell (before 6.5, or for a file of another user), it counts as cached.
pub(super) fn is_cached(file: &File, range: &Range<u64>) -> bool {
    let length = range.end - range.start;
    let (range, mut cached) = ([range.start, length], Cached::default());
    // SAFETY: the call reads the range, two u64, and fills the struct; both outlive it.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &range, &mut cached, 0) };
    result != 0 || cached.pages * 4096 > length - length / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_released_once_all_before_it_were_delivered() {
        let page_cache = PageCache::new(3 * WINDOW);
        let deliver = |number: u64| -> Vec<u64> {
            let range = number * WINDOW..(number + 1) * WINDOW;
            let released = page_cache.record_delivered(range, WINDOW, &|_| false);
            released.map(|window| window.start / WINDOW).collect()
        };
        assert!(deliver(1).is_empty());
        assert_eq!(deliver(0), [0, 1]);
        assert_eq!(deliver(2), [2]);
        assert_eq!(deliver(2), [2]);
    }

    #[test]
    fn the_counts_of_a_file_are_bounded_whatever_its_size() {
        let size = 1 << 57;
        let page_cache = PageCache::new(size);
        for start in [0, size / 2, size - WINDOW] {
            let range = start..start + WINDOW;
            page_cache.record_resident(range.clone(), &|_| true);
            let released = page_cache.record_delivered(range, WINDOW, &|_| true);
            assert_eq!(released.count(), 0);
        }
        let counts = page_cache.counts.get().unwrap();
        assert!(size_of_val(&**counts) <= 2 << 20);
    }
}

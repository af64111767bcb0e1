//! What of a source the page cache should hold: what a sequential reader will ask a slow source for next, and not what the
//! kernel holds under the mount's own name already.
//!
//! Where files can be read past the page cache (see `direct_io`), little of this remains: rows of transposed tensors, and
//! what others had cached. Elsewhere, local storage is read ahead best by the kernel itself: asked for from here it takes
//! small pages and twice the processor time, measured a third slower. Measured on ext4, cold, 1.2 GB/s: reading with
//! RWF_DONTCACHE costs a fifth to a third of the speed; giving pages back behind the reader costs nothing, but would also
//! take what others had cached. So a window of the file is given back when all of it was handed on, unless it was cached
//! before it was first asked for. What lies before it must have been handed on too: who reads that would have the kernel
//! read ahead into the window, and all of it again from the disk.

use std::fs::File;
use std::mem::take;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Large folios lie inside of a window, never across its end.
const WINDOW: u64 = 4 << 20;

/// What lies behind so many windows, 1 TiB, is left to the kernel: a sparse file may claim any size.
const MOST_WINDOWS: u64 = 1 << 18;

/// Part of a window that need not be handed on, such as the paddings between tensors: less than any request, whose pages
/// would be read again.
const SLACK: u64 = 64;

/// How far ahead of a sequential reader a slow source is read: 20 ms at 1 GB/s.
const AHEAD: u64 = 16 << 20;

/// A read at fewer bytes a second is slow.
const SLOW: f64 = 50e6;

/// Slow reads after which a file counts as slow for good, if all reads since the first were so on average and these a good part
/// of them: a busy machine alone has some, and one that slept has a few that took for ever.
const SLOW_FROM: u32 = 16;
const SLOW_PART: u32 = 8;

/// A shorter read tells latency, not speed.
const TELLING: u64 = 128 << 10;

/// Farther than kernels read ahead of a reader by themselves: 8 MiB where storage asks for much.
const FAR: u64 = 32 << 20;

/// Set in a window's count once it was asked for, and where others had it cached then; once all of it was handed on, and
/// until it is given back.
const ASKED: u64 = 1 << 63;
const SHARED: u64 = 1 << 62;
const DONE: u64 = 1 << 61;
const OWED: u64 = 1 << 60;
const COUNT: u64 = OWED - 1;

/// How many bytes of each window were handed on, and up to where a slow file was read ahead.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    counts: OnceLock<Box<[AtomicU64]>>,
    is_slow: AtomicBool,
    pace: Mutex<Pace>,
    ahead: AtomicU64,
}

/// Reads since it was last judged how fast a file is.
#[derive(Debug, Default)]
struct Pace {
    bytes: u64,
    took: Duration,
    count: u32,
    slow: u32,
}

impl Pace {
    /// Counts a read, and says whether they are enough to tell, and slow.
    fn judge(&mut self, bytes: u64, took: Duration) -> bool {
        self.bytes += bytes;
        self.took += took;
        self.count = self.count.saturating_add(1);
        self.slow += u32::from(is_slow(bytes, took));
        if self.slow < SLOW_FROM {
            return false;
        }
        let all = take(self);
        is_slow(all.bytes, all.took) && all.count <= all.slow * SLOW_PART
    }
}

fn is_slow(bytes: u64, took: Duration) -> bool {
    (bytes as f64) < SLOW * took.as_secs_f64()
}

impl PageCache {
    /// What to read ahead after `offset .. end` was read: nothing unless the file is slow and reads follow each other, about
    /// in order.
    pub fn ahead(&self, offset: u64, end: u64) -> Option<Range<u64>> {
        if !self.is_left_to_kernel() {
            return None;
        }
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

    /// Notes how long a read took.
    pub fn note_pace(&self, bytes: u64, took: Duration) {
        if bytes < TELLING {
            return;
        }
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.judge(bytes, took) {
            self.leave_to_kernel();
        }
    }

    /// Whether the kernel must read the file ahead: it is slow, or fails to be read past the page cache.
    pub fn is_left_to_kernel(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    pub fn leave_to_kernel(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Notes which windows others have cached, before a range is asked for and the kernel reads ahead of it.
    pub fn ask(&self, file: &File, size: u64, range: Range<u64>) {
        for window in self.windows(size, range.start..range.end.saturating_add(FAR)) {
            window.ask(file);
        }
    }

    /// Has a range stay in the page cache, as if others had it there.
    pub fn share(&self, size: u64, range: Range<u64>) {
        for window in self.windows(size, range) {
            window.count.fetch_or(ASKED | SHARED, Ordering::Relaxed);
        }
    }

    /// Whether others had some of a range cached when it was first asked for.
    pub fn is_shared(&self, file: &File, size: u64, range: Range<u64>) -> bool {
        self.windows(size, range).any(|window| {
            window.ask(file);
            window.is_shared()
        })
    }

    /// Counts `bytes` handed on, evenly spread over `range`. Returns the windows that can thereby be given back: complete,
    /// nobody else's, and none before them that is yet to be read.
    pub fn count(
        &self,
        file: &File,
        size: u64,
        range: Range<u64>,
        bytes: u64,
    ) -> impl Iterator<Item = Range<u64>> {
        let span = u128::from(range.end - range.start).max(1);
        for window in self.windows(size, range.clone()) {
            window.ask(file);
            let inside = range.end.min(window.range.end) - range.start.max(window.range.start);
            let share = u128::from(inside) * u128::from(bytes) / span;
            window.add(share as u64);
        }
        let reach = range.start..range.end.saturating_add(AHEAD);
        let owed = self.windows(size, reach).filter(Window::is_owed);
        owed.filter_map(move |window| {
            let before = window.range.start.saturating_sub(AHEAD)..window.range.start;
            let is_last = self.windows(size, before).all(|window| window.is_done());
            (is_last && window.take()).then_some(window.range)
        })
    }

    fn windows(&self, size: u64, range: Range<u64>) -> impl Iterator<Item = Window<'_>> {
        let zero = |_| AtomicU64::new(0);
        let counted = size.div_ceil(WINDOW).min(MOST_WINDOWS);
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
    fn ask(&self, file: &File) {
        if self.count.load(Ordering::Relaxed) & ASKED == 0 {
            let shared = if is_cached(file, &self.range) {
                SHARED
            } else {
                0
            };
            self.count.fetch_or(ASKED | shared, Ordering::Relaxed);
        }
    }

    /// Counts bytes; where that makes the window complete, it is done, and owed back unless others had it.
    fn add(&self, share: u64) {
        let length = self.range.end - self.range.start;
        let before = self.count.fetch_add(share, Ordering::Relaxed);
        let is_complete = |count: u64| count & COUNT >= length - length / SLACK;
        if !is_complete(before) && is_complete(before.wrapping_add(share)) {
            let owed = if before & SHARED == 0 { OWED } else { 0 };
            self.count.store(DONE | owed, Ordering::Relaxed);
        }
    }

    fn is_shared(&self) -> bool {
        self.count.load(Ordering::Relaxed) & SHARED != 0
    }

    fn is_done(&self) -> bool {
        self.count.load(Ordering::Relaxed) & DONE != 0
    }

    fn is_owed(&self) -> bool {
        self.count.load(Ordering::Relaxed) & OWED != 0
    }

    /// Whether it was owed until now. What is asked for later is asked for anew.
    fn take(&self) -> bool {
        self.count.fetch_and(DONE, Ordering::Relaxed) & OWED != 0
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

/// Whether nearly all of the range lies in the page cache, more than the first requests for it bring there. Where the
/// kernel does not tell (before 6.5, or for another's file), it counts as cached: others may need it.
fn is_cached(file: &File, range: &Range<u64>) -> bool {
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
    fn a_window_is_given_back_once_all_before_it_was_handed_on() {
        let (file, size) = (tempfile::tempfile().unwrap(), 3 * WINDOW);
        file.set_len(size).unwrap();
        let page_cache = PageCache::default();
        let hand_on = |number: u64| -> Vec<u64> {
            let range = number * WINDOW..(number + 1) * WINDOW;
            let given = page_cache.count(&file, size, range, WINDOW);
            given.map(|window| window.start / WINDOW).collect()
        };
        assert!(hand_on(1).is_empty());
        assert_eq!(hand_on(0), [0, 1]);
        assert_eq!(hand_on(2), [2]);
        assert_eq!(hand_on(2), [2]);
    }

    #[test]
    fn a_file_is_slow_that_takes_long_on_average_not_once() {
        let quick = (512 << 10, Duration::from_millis(1));
        let slow = |millis| (512 << 10, Duration::from_millis(millis));
        let is_slow_after = |replies: &[(u64, Duration)]| {
            let page_cache = PageCache::default();
            for (bytes, took) in replies.iter().cycle().take(400) {
                page_cache.note_pace(*bytes, *took);
            }
            page_cache.is_left_to_kernel()
        };
        assert!(is_slow_after(&[slow(20)]));
        assert!(!is_slow_after(&[(4096, Duration::from_millis(1))]));
        // A disk that is allowed so many reads in a tenth of a second, a busy machine, one hiccup.
        assert!(is_slow_after(&[&[quick; 15][..], &[slow(90); 4]].concat()));
        assert!(!is_slow_after(&[&[quick; 15][..], &[slow(15); 2]].concat()));
        assert!(!is_slow_after(&[&[quick; 399][..], &[slow(9000)]].concat()));
        assert!(!is_slow_after(
            &[&[quick; 180][..], &[slow(1500); 8]].concat()
        ));
    }

    #[test]
    fn the_counts_of_a_file_are_bounded_whatever_its_size() {
        let (file, size) = (tempfile::tempfile().unwrap(), 1 << 57);
        let page_cache = PageCache::default();
        for start in [0, size / 2, size - WINDOW] {
            let range = start..start + WINDOW;
            page_cache.ask(&file, size, range.clone());
            page_cache.count(&file, size, range, WINDOW).for_each(drop);
        }
        let counts = page_cache.counts.get().unwrap();
        assert!(size_of_val(&**counts) <= 2 << 20);
    }
}

//! Bounds of time and memory: an allocator that counts, and a dog that watches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Seconds that one case may take before the dog barks: nothing but a loop takes so long. They are counted and not read
/// off a clock, so that a stopped process is no hang.
const PATIENCE: usize = 60;
/// Largest single allocation. The largest that is in order is a header or a pickle of a few hundred kilobytes.
pub const LARGEST: usize = 64 << 20;

static LARGEST_SEEN: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_SEEN.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub fn largest_allocation() -> usize {
    LARGEST_SEEN.load(Ordering::Relaxed)
}

/// Ends the process when `case` stays the same for long, until it is dropped.
pub fn watch(what: &str, case: &Weak<AtomicU64>) {
    let (mut last, mut seconds) = (u64::MAX, 0);
    while let Some(case) = case.upgrade().map(|case| case.load(Ordering::Relaxed)) {
        seconds = if case == last { seconds + 1 } else { 0 };
        last = case;
        if seconds > PATIENCE {
            eprintln!("{what}: case {case} hangs");
            std::process::abort();
        }
        thread::sleep(Duration::from_secs(1));
    }
}

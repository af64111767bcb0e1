//! Bounds of time and memory: an allocator that counts, and a dog that watches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Longest that one case may take before the dog barks: nothing but a loop takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
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

/// Ends the process when no case ends for long.
pub fn watch(what: &str, cases: &Receiver<usize>) {
    let mut last = 0;
    loop {
        match cases.recv_timeout(PATIENCE) {
            Ok(case) => last = case,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("{what}: the case after {last} hangs");
                std::process::abort();
            }
        }
    }
}

//! Settings of glibc's allocator for a long-lived process with many threads that allocates mostly at its start.

/// Step by which the heap grows, and least by which it shrinks. By glibc's 128 KiB, a third of the page faults of opening a
/// checkpoint of many tensors are for pages that were given back before.
#[cfg(target_env = "gnu")]
const STEP: libc::c_int = 16 << 20;

/// The same once a checkpoint is open: what is left free in the heap may become huge pages.
#[cfg(target_env = "gnu")]
const SERVING_STEP: libc::c_int = 1 << 20;

/// Has all threads allocate from one arena: glibc would reserve 64 MiB of addresses for each, and end the program where
/// they are limited.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes numbers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, STEP);
    }
}

/// Gives back what opening a checkpoint took and does not need any more.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and only returns pages that hold nothing; mallopt takes numbers and locks.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, SERVING_STEP);
        libc::malloc_trim(0);
    }
}

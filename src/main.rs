//! The command `ckptfs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    share_one_arena();
    ckptfs::cli::run()
}

/// Has all threads allocate from one arena: glibc would reserve 64 MiB of addresses for each, and end the program where
/// they are limited.
fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes numbers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

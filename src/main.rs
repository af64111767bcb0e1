//! The command `ckptfs`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process was started with SIGPIPE ignored.
static IGNORES_PIPE: AtomicBool = AtomicBool::new(false);

/// Called by the loader: the standard library ignores SIGPIPE before `main`, and keeps no record of it.
// SAFETY: the section holds addresses of functions that take nothing they need, and this is one.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let ignored = ckptfs::mount::is_ignored(libc::SIGPIPE);
    IGNORES_PIPE.store(ignored, Ordering::Relaxed);
}

fn main() -> ExitCode {
    ckptfs::cli::run(IGNORES_PIPE.load(Ordering::Relaxed))
}

//! State inherited from the parent process: signals ignored or blocked, and a limit. The program sets what it needs; a command that it runs
//! for its user gets back what was inherited.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use crate::mount::is_ignored;

/// Signals whose dispositions the program changes, here or when it takes them.
const CHANGED: [Signal; 9] = [
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGXFSZ,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The state that the process was started in.
#[derive(Debug, Clone)]
pub struct Inherited {
    blocked: SigSet,
    /// Which of [`CHANGED`] were ignored.
    ignored: [bool; CHANGED.len()],
    /// Soft and hard limit of open files, of which the program raises the soft one.
    open_files: Option<(rlim_t, rlim_t)>,
}

impl Inherited {
    /// Lets every signal through, keeps the status of a child until it is waited for, and turns a write beyond RLIMIT_FSIZE into
    /// an error. To be called before any thread starts. Whether SIGPIPE was ignored, only the caller knows: the standard library
    /// ignores it before `main`.
    pub fn replace(ignores_pipe: bool) -> Self {
        let inherited = Self {
            blocked: SigSet::thread_get_mask().unwrap_or(SigSet::empty()),
            ignored: CHANGED.map(|signal| match signal {
                Signal::SIGPIPE => ignores_pipe,
                signal => is_ignored(signal as i32),
            }),
            open_files: getrlimit(Resource::RLIMIT_NOFILE).ok(),
        };
        // None of these calls can fail for a signal that exists.
        set(Signal::SIGCHLD, SigHandler::SigDfl).ok();
        set(Signal::SIGXFSZ, SigHandler::SigIgn).ok();
        SigSet::empty().thread_set_mask().ok();
        inherited
    }

    /// Has `command` start in the inherited state.
    pub fn give_back(&self, command: &mut Command) {
        let inherited = self.clone();
        // SAFETY: between fork and exec the closure makes system calls alone, and allocates nothing.
        unsafe { command.pre_exec(move || inherited.restore()) };
    }

    fn restore(&self) -> io::Result<()> {
        for (signal, is_ignored) in CHANGED.into_iter().zip(self.ignored) {
            let handler = if is_ignored {
                SigHandler::SigIgn
            } else {
                SigHandler::SigDfl
            };
            set(signal, handler)?;
        }
        if let Some((soft, hard)) = self.open_files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        Ok(self.blocked.thread_set_mask()?)
    }
}

/// Sets a disposition that is no handler of ours.
fn set(of: Signal, handler: SigHandler) -> nix::Result<()> {
    // SAFETY: the disposition runs no code of this process, and the old one is not looked at.
    unsafe { signal(of, handler) }.map(drop)
}

//! The signals that end a mount, and the one that asks what it has done.

use std::os::raw::c_int;
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// An event of a mounted view.
#[derive(Debug)]
pub enum Event {
    Signal,
    /// Someone wants to know what was done so far.
    Question,
    /// Unmounted, by whomever, and the last reader gone.
    Ended,
}

/// SIGINT, SIGTERM, SIGHUP, SIGALRM (a timer outlives the exec of this program) and SIGUSR1, which from here on no longer kill the process but wait to be acted on. To be taken before
/// the mount: a signal in between would leave the mount behind.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    pub fn take() -> Result<Self> {
        let others = [SIGHUP, SIGALRM].into_iter();
        let others = others.filter(|signal| !is_ignored(*signal));
        let wanted = [SIGINT, SIGTERM, SIGUSR1].into_iter().chain(others);
        let signals = Signals::new(wanted);
        signals
            .map(Self)
            .map_err(|error| Error::mount("signals".as_ref(), error.to_string()))
    }

    /// Waits for one that ends the process.
    pub fn wait(mut self) {
        self.0.forever().find(|signal| *signal != SIGUSR1);
    }

    /// Sends an event for each signal, those included that came before.
    pub(super) fn forward(mut self, events: Sender<Event>) {
        thread::spawn(move || {
            for signal in self.0.forever() {
                let event = match signal {
                    SIGUSR1 => Event::Question,
                    _ => Event::Signal,
                };
                if events.send(event).is_err() {
                    break;
                }
            }
        });
    }
}

/// Whether the process was started with `signal` ignored, as nohup does with SIGHUP.
pub fn is_ignored(signal: c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: sigaction with a null new action only fills the struct that it is given; it is read only on success.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

//! A command that runs as if it had been started in our place: signals reach it, and its status becomes ours.

use std::io;
use std::os::raw::c_int;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use anyhow::Context;
use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::cli::complaint;
use crate::cli::logging::Log;

/// Statuses of a shell for a command that cannot be started, and for one that a signal ended.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
const KILLED: c_int = 128;

/// The signals that a command may be sent, which from here on no longer kill this process.
pub struct Signals(SignalsInfo<WithOrigin>);

impl Signals {
    pub fn take() -> anyhow::Result<Self> {
        let others = [SIGHUP, SIGALRM].into_iter();
        let others = others.filter(|signal| !crate::mount::is_ignored(*signal));
        let wanted = [SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        let signals =
            SignalsInfo::with_exfiltrator(wanted.into_iter().chain(others), WithOrigin::default());
        Ok(Self(signals.context("signals")?))
    }

    /// A signal to stop that came before there was a command.
    fn came_early(&mut self) -> Option<c_int> {
        let mut signals = self.0.pending().map(|origin| origin.signal);
        signals.find(|signal| [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGALRM].contains(signal))
    }
}

/// Runs the command to its end.
pub fn run(mut command: Command, mut signals: Signals, log: &Log) -> anyhow::Result<u8> {
    if let Some(signal) = signals.came_early() {
        return Ok(killed_by(signal));
    }
    let program = command.get_program().to_string_lossy().into_owned();
    match command.spawn() {
        Ok(child) => wait(child, signals).context(program),
        Err(error) => {
            let hint = "name a program in PATH or its path behind --";
            log.push(complaint(&format!("{program}: {error}; {hint}")).as_bytes());
            Ok(match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            })
        }
    }
}

/// One thread both passes signals on and reaps the child, so that none can reach another process of its number.
fn wait(mut child: Child, mut signals: Signals) -> io::Result<u8> {
    for origin in signals.0.forever() {
        if let Some(status) = child.try_wait()? {
            return Ok(code(status));
        }
        if origin.signal != SIGCHLD && !came_from_terminal(&origin) {
            send(&child, origin.signal);
        }
    }
    child.wait().map(code)
}

/// Ctrl-C reaches the command by itself: the kernel sends it to all processes in the foreground.
fn came_from_terminal(origin: &Origin) -> bool {
    origin.cause == Cause::Kernel && origin.signal != SIGALRM
}

fn send(child: &Child, signal: c_int) {
    // SAFETY: kill takes numbers alone; the child has not been waited for, so that its number is its own.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => killed_by(signal.unwrap_or(0)),
    }
}

fn killed_by(signal: c_int) -> u8 {
    (KILLED + signal) as u8
}

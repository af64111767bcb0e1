//! The last line of a command that a signal stops, before the signal ends it.

use std::io::{self, IsTerminal, Write};
use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// From here on SIGINT, SIGTERM and SIGHUP, unless they are ignored, say `line` and end the process.
pub fn say_on_signal(line: &'static str) -> anyhow::Result<()> {
    let wanted = [SIGINT, SIGTERM, SIGHUP];
    let wanted = wanted
        .into_iter()
        .filter(|signal| !crate::mount::is_ignored(*signal));
    let mut signals = Signals::new(wanted).context("signals")?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            end_line();
            super::complain(line);
            emulate_default_handler(signal).ok();
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).context("a thread for signals")?;
    Ok(())
}

/// Ends the line in which a terminal shows the progress, or `^C`.
fn end_line() {
    if io::stderr().is_terminal() {
        writeln!(io::stderr()).ok();
    }
}

//! Standard output: all that is printed goes this way, and what cannot be printed is an error that says so.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// How long a full pipe is waited for, before the process goes on without its line.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints what is for a reader. One that has seen enough, such as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    match written(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(refused),
    }
}

/// Writes the line that something is ready to stdout; a closed pipe is an error. A pipe that takes no more holds up neither
/// serving nor its end: a thread goes on waiting for it.
pub fn announce(text: &str) -> Result<()> {
    let text = text.to_owned();
    let (sender, result) = mpsc::sync_channel(1);
    let write = move || sender.send(written(&text)).unwrap_or_default();
    thread::Builder::new().spawn(write).map_err(refused)?;
    result
        .recv_timeout(PATIENCE)
        .map_or(Ok(()), |result| result.map_err(refused))
}

fn written(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn refused(error: io::Error) -> Error {
    let reason = format!("{error}; free space there, or let it lead to another place");
    Error::target(Path::new("standard output"), reason)
}

//! Standard output: all that is printed goes this way, and what cannot be printed is an error that says so.

use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Prints what is for a reader. One that has seen enough, such as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    match written(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(refused),
    }
}

/// Writes to stdout; a closed pipe is an error.
pub fn announce(text: &str) -> Result<()> {
    written(text).map_err(refused)
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

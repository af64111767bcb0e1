//! The lines of a log, and the last error among them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::Value;

use crate::text::one_line;

/// Bytes at the end of a log in which the last error is looked for.
const END: u64 = 256 << 10;

/// Bytes of a log that are read: more than a log grows to.
const MOST: u64 = 8 << 20;

/// The last line of a failed request, without anything that steers a terminal.
pub fn last_error(log: &Path) -> Option<String> {
    let mut file = open(log).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(END))).ok()?;
    let text = text(file).ok()?;
    let error = text.lines().rev().find_map(error)?;
    Some(one_line(&error))
}

/// All lines, without anything that steers a terminal.
pub fn lines(log: &Path) -> io::Result<String> {
    let text = text(open(log)?)?;
    Ok(text.lines().map(|line| one_line(line) + "\n").collect())
}

fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a log, which may be one of another user: nothing that waits for its other end.
fn open(log: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(log)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The line of an error, in either format; of an object its message.
fn error(line: &str) -> Option<String> {
    match serde_json::from_str::<Value>(line) {
        Ok(line) if line["level"] == "ERROR" => {
            Some(line["fields"]["message"].as_str()?.to_owned())
        }
        Ok(_) => None,
        Err(_) => (line.split_whitespace().nth(1) == Some("ERROR")).then(|| line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_found_in_both_formats() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let is_last = |text: &str, last: Option<&str>| {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(last_error(file.path()).as_deref(), last);
        };
        let (error, warning) = ("2026 ERROR a: x", "2026  WARN a: ERROR");
        is_last("", None);
        is_last(&format!("{warning}\n"), None);
        is_last(&format!("{error}\n{warning}\n"), Some(error));
        let json = r#"{"timestamp":"2026","level":"ERROR","fields":{"message":"a: y"}}"#;
        is_last(&format!("{error}\n{json}\n"), Some("a: y"));
        assert!(last_error(Path::new("/dev")).is_none());
    }
}

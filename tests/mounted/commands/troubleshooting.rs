//! docs/troubleshooting.md quotes what the program says.

use std::fs;
use std::path::Path;

/// Messages of programs other than ckptfs.
const OTHERS: [&str; 2] = ["Input/output error", "Bus error"];

/// The text of all sources.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => sources(&path),
            false => fs::read_to_string(&path).unwrap_or_default(),
        })
        .collect()
}

/// The first cell of each row, without its quotes.
fn messages() -> Vec<&'static str> {
    let text = include_str!("../../../docs/troubleshooting.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split_once('`').unwrap().0).collect()
}

#[test]
fn the_program_says_every_message_that_is_explained() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let messages = messages();
    assert!(messages.len() > 30);
    for message in messages.iter().filter(|message| !OTHERS.contains(message)) {
        for part in message.split("...") {
            assert!(
                sources.contains(part),
                "nobody says {part:?} of {message:?}"
            );
        }
    }
}

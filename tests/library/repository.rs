//! Laws of the source tree: its rooms, its licences, its promises, its words and its unsafe blocks.

mod circles;
mod floors;
mod licences;
mod promises;
mod statics;
mod unsafe_blocks;
mod version;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// Returns all files of a folder and below whose names end in one of `ends`.
fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path, ends),
            false => vec![path],
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|end| ends.iter().any(|wanted| end == *wanted))
        })
        .collect();
    all.sort();
    all
}

/// Returns the name below `src` and the text of every source file.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        (name.to_owned(), fs::read_to_string(&path).unwrap())
    };
    files(&root, &["rs"]).into_iter().map(read).collect()
}

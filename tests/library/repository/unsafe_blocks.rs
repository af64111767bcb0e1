//! docs/unsafe.md lists every `unsafe` block of the program with its argument, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .collect();
    all.sort();
    all
}

/// Returns the first call of a block.
fn first_call(block: &str) -> &str {
    let before = block.split('(').next().unwrap_or_default();
    before.split_whitespace().last().unwrap_or_default()
}

/// The comment `// SAFETY:` in the lines before a block.
fn argument(before: &str) -> String {
    let lines: Vec<&str> = before.lines().rev().take(6).collect();
    let first = lines
        .iter()
        .position(|line| line.trim().starts_with("// SAFETY:"));
    let first =
        first.unwrap_or_else(|| panic!("an unsafe block without an argument after:\n{before}"));
    let comment = lines[..=first].iter().rev();
    let text = comment.map_while(|line| line.trim().strip_prefix("// "));
    text.collect::<Vec<_>>().join(" ").replace("SAFETY: ", "")
}

/// One row of the table for each block of a file.
fn rows(root: &Path, path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(root).unwrap().display();
    let blocks = text.match_indices("unsafe {");
    let row = |(at, block): (usize, &str)| {
        let (before, after) = (&text[..at], &text[at + block.len()..]);
        format!(
            "| {name} | `{}` | {} |",
            first_call(after),
            argument(before)
        )
    };
    blocks.map(row).collect()
}

#[test]
fn every_unsafe_block_is_listed_with_its_argument() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = sources(&root.join("src")).into_iter();
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let table: Vec<String> = rust.flat_map(|path| rows(root, &path)).collect();
    let document = fs::read_to_string(root.join("docs/unsafe.md")).unwrap();
    let listed: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| src/"))
        .collect();
    assert!(!table.is_empty());
    assert!(
        listed == table,
        "docs/unsafe.md should list:\n{}",
        table.join("\n")
    );
}

#[test]
fn no_function_trait_or_impl_is_unsafe() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for what in [
            "unsafe fn",
            "unsafe impl",
            "unsafe trait",
            "unsafe extern",
            "\nstatic mut",
            " static mut",
        ] {
            assert!(!text.contains(what), "{}: {what}", path.display());
        }
    }
}

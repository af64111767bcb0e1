//! The few rules of style that a machine can hold.

use std::fs;
use std::path::{Path, PathBuf};

use super::files;

/// Words that no comment says of a reader, a writer or a process.
const VAGUE: [&str; 2] = ["nobody", "somebody"];

/// No sentence at the head of a documented item begins with one of them.
const HEADS: [&str; 2] = ["What", "Who"];

/// Returns the text of a comment, and of a doc comment that begins an item whether it begins one.
fn comment<'l>(line: &'l str, last: &str) -> Option<(&'l str, bool)> {
    let (line, last) = (line.trim_start(), last.trim_start());
    for mark in ["/// ", "//! "] {
        if let Some(text) = line.strip_prefix(mark) {
            return Some((text, !last.starts_with(mark.trim_end())));
        }
    }
    line.find("// ").and_then(|at| {
        let is_in_text = line.get(..at)?.contains('"');
        (!is_in_text).then_some((line.get(at + 3..)?, false))
    })
}

/// A text without its code spans.
fn prose(text: &str) -> String {
    text.split('`').step_by(2).collect()
}

fn is_word(text: &str, word: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words.any(|found| found.eq_ignore_ascii_case(word))
}

/// Returns why a line of prose should be mended.
fn fault(text: &str, is_head: bool) -> Option<String> {
    let text = prose(text);
    let head = HEADS.iter().find(|head| {
        let rest = text.strip_prefix(**head);
        is_head && rest.is_some_and(|rest| rest.starts_with([' ', '\'']))
    });
    let vague = VAGUE.iter().find(|word| is_word(&text, word));
    head.map(|head| format!("begins with {head}"))
        .or(vague.map(|word| format!("says {word}")))
}

fn faults(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let is_rust = path.extension().is_some_and(|end| end == "rs");
    let (mut found, mut last, mut is_code) = (Vec::new(), "", false);
    for (number, line) in text.lines().enumerate() {
        is_code ^= line.trim_start().starts_with("```");
        let said = match is_rust {
            true => comment(line, last),
            false => (!is_code).then_some((line, false)),
        };
        let fault = said.and_then(|(text, is_head)| fault(text, is_head));
        found.extend(fault.map(|why| format!("{}:{}: {why}", path.display(), number + 1)));
        last = line;
    }
    found
}

#[test]
fn comments_and_documents_keep_to_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "docs", "examples"];
    let folders = folders.map(|folder| files(&root.join(folder), &["rs", "md"]));
    let mut paths: Vec<PathBuf> = folders.into_iter().flatten().collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)));
    let found: Vec<String> = paths.iter().flat_map(|path| faults(path)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn faults_are_found_where_they_stand() {
    assert!(fault("What a reader sees.", true).is_some());
    assert!(fault("Whole blocks of a file.", true).is_none());
    assert!(fault("Says who reads it. What follows is kept.", true).is_none());
    assert!(fault("read by nobody", false).is_some());
    assert!(fault("the account `nobody`", false).is_none());
    assert_eq!(comment("/// A", "/// B"), Some(("A", false)));
    assert_eq!(comment("    /// A", "}"), Some(("A", true)));
    assert_eq!(comment("let a = 1; // one", ""), Some(("one", false)));
    assert_eq!(comment("let a = \"// one\";", ""), None);
}

//! The guarantees of docs/guarantees.md: each ends with the tests that hold it, and every one of these tests exists.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The items of the list of guarantees, each on one line.
fn promises() -> Vec<String> {
    let document = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let (_, section) = document.split_once("# Guarantees\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let items = section.split("\n- ").skip(1);
    items
        .map(|item| item.replace("\n  ", " ").trim().to_owned())
        .collect()
}

/// The names in brackets, and what follows the last of them.
fn tests_of(promise: &str) -> (Vec<&str>, &str) {
    let (mut names, mut rest) = (Vec::new(), promise);
    while let Some((_, after)) = rest.split_once("(`") {
        let (list, behind) = after.split_once("`)").unwrap();
        names.extend(list.split("`, `"));
        rest = behind;
    }
    (names, rest)
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, all),
            false => all.push(path),
        }
    }
}

/// All code that may hold tests.
fn code() -> String {
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        files(&root().join(folder), &mut all);
    }
    let is_code = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|end| end == "rs" || end == "py")
    };
    let code = all.iter().filter(is_code);
    code.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Whether a test of Rust or Python, or a case of the hostile table, has this name.
fn is_test(name: &str, code: &str) -> bool {
    let signature = format!("fn {name}(");
    let rust = code.match_indices(&signature);
    let mut rust = rust.map(|(at, _)| code[..at].trim_end().ends_with("#[test]"));
    rust.any(|is_marked| is_marked)
        || name.starts_with("test_") && code.contains(&format!("\ndef {name}("))
}

#[test]
fn every_promise_ends_with_tests_that_exist() {
    let (promises, code) = (promises(), code());
    assert!(promises.len() > 8);
    for promise in promises {
        let (names, rest) = tests_of(&promise);
        assert!(
            !names.is_empty() && rest.trim_matches('.').is_empty(),
            "no test behind: {promise}"
        );
        for name in names {
            assert!(is_test(name, &code), "{name} is no test, of: {promise}");
        }
    }
}

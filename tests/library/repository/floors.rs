//! The house: each floor uses only what lies below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. Modules of one line may not use each other.
const FLOORS: [&[&str]; 17] = [
    &["error", "text", "statx", "destination", "access"],
    &["mountinfo"],
    &["limits"],
    &["parallel", "source"],
    &["tensor"],
    &["checkpoint"],
    &["mapping"],
    &["output"],
    &["read"],
    &["view"],
    &["tree"],
    &["fs"],
    &["mount"],
    &["export", "verify"],
    &["cli"],
    &["lib"],
    &["main"],
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// The floor's module that a file belongs to.
fn module(path: &Path) -> String {
    let inner = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = inner
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn no_module_uses_one_above_or_beside_it() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let own = module(&path);
        let height = floor(&own).unwrap_or_else(|| panic!("{own} has no floor"));
        let text = fs::read_to_string(&path).unwrap();
        for used in text.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if used != own {
                let other = floor(&used).unwrap_or_else(|| panic!("{used} has no floor"));
                assert!(other < height, "{} uses {used}", path.display());
            }
        }
    }
}

#[test]
fn fuser_and_clap_stay_where_they_belong() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let own = module(&path);
        assert!(
            !text.contains("fuser::") || ["fs", "mount"].contains(&&*own),
            "{}",
            path.display()
        );
        assert!(
            !text.contains("clap::") || own == "cli",
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_source_file_says_in_its_first_line_why_it_exists() {
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        assert!(
            fs::read_to_string(&path).unwrap().starts_with("//! "),
            "{}",
            path.display()
        );
    }
}

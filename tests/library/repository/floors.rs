//! The house: each floor uses only what lies below it.

use super::sources;

/// From the ground up. Modules of one line may not use each other.
const FLOORS: [&[&str]; 18] = [
    &["error", "text", "statx", "destination", "access"],
    &["mountinfo"],
    &["limits"],
    &["parallel", "source"],
    &["tensor"],
    &["checkpoint"],
    &["run"],
    &["mapping"],
    &["output"],
    &["read"],
    &["view"],
    &["tree"],
    &["fs"],
    &["mount"],
    &["export", "serve", "verify"],
    &["cli"],
    &["lib"],
    &["main"],
];

/// The floor's module that a file belongs to.
fn module(name: &str) -> &str {
    let first = name.split('/').next().unwrap_or(name);
    first.trim_end_matches(".rs")
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn no_module_uses_one_above_or_beside_it() {
    for (name, text) in sources() {
        let own = module(&name);
        let height = floor(own).unwrap_or_else(|| panic!("{own} has no floor"));
        for used in text.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if used != own {
                let other = floor(&used).unwrap_or_else(|| panic!("{used} has no floor"));
                assert!(other < height, "{name} uses {used}");
            }
        }
    }
}

#[test]
fn fuser_and_clap_stay_where_they_belong() {
    for (name, text) in sources() {
        let own = module(&name);
        assert!(
            !text.contains("fuser::") || ["fs", "mount"].contains(&own),
            "{name}"
        );
        assert!(!text.contains("clap::") || own == "cli", "{name}");
    }
}

#[test]
fn every_source_file_says_in_its_first_line_why_it_exists() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name}");
    }
}

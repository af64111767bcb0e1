//! Which version of a system wrote a save, where a file beside the weights tells it.

use serde_json::{Map, Value};

use super::folder::Folder;

/// A file, the key of the version in it, an entry that must lie beside it, and what wrote both.
const VERSIONS: [(&str, &str, &str, &str); 2] = [
    (".metadata.json", "version", "model_and_optim", "OLMo-core"),
    (
        "checkpoint_metadata.json",
        "version",
        "model",
        "nanotron's checkpoint format",
    ),
];

/// Returns a remark on what wrote the save. Files that cannot be read tell nothing.
pub fn written_by(beside: &[Folder]) -> Option<String> {
    let one = |folder: &Folder| {
        VERSIONS.iter().find_map(|(file, key, other, system)| {
            let is_there = folder.exists(file) && folder.exists(other);
            let told: Map<String, Value> = is_there.then(|| folder.json(file).ok())??;
            let version = told.get(*key)?.as_str()?.escape_debug().to_string();
            Some(format!("written by {system} {version}"))
        })
    };
    beside.iter().find_map(one)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_version_is_told_by_the_file_of_its_system() {
        let root = tempfile::tempdir().unwrap();
        let told = || written_by(&[Folder::open(root.path()).unwrap()]);
        fs::write(
            root.path().join(".metadata.json"),
            r#"{"version": "3.0.0"}"#,
        )
        .unwrap();
        assert_eq!(told(), None);
        fs::create_dir(root.path().join("model_and_optim")).unwrap();
        assert_eq!(told().as_deref(), Some("written by OLMo-core 3.0.0"));
        fs::write(root.path().join(".metadata.json"), "no json").unwrap();
        assert_eq!(told(), None);
    }
}

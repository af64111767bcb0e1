//! The licences and origins of all crates are those that deny.toml allows, checked offline.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// All crates that the lock file names for this platform, read from the local registry alone: those of others are not there.
fn packages() -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--offline", "--locked"]);
    cargo.args(["--filter-platform", &platform()]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.current_dir(root).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Such as x86_64-unknown-linux-gnu.
fn platform() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

fn allowed() -> BTreeSet<String> {
    let text = include_str!("../../../deny.toml");
    let table: toml::Table = text.parse().unwrap();
    let list = table["licenses"]["allow"].as_array().unwrap();
    list.iter()
        .map(|licence| licence.as_str().unwrap().to_owned())
        .collect()
}

/// Whether some choice among `A OR B`, of all parts of `A AND B`, is allowed. Brackets only stand around choices.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let plain = licence.replace('/', " OR ").replace(['(', ')'], "");
    plain.split(" AND ").all(|part| {
        part.split(" OR ").any(|choice| {
            let name = choice.trim().split(" WITH ").next().unwrap_or_default();
            allowed.contains(name)
        })
    })
}

#[test]
fn every_crate_has_an_allowed_licence() {
    let allowed = allowed();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(
            is_allowed(licence, &allowed),
            "{}: {licence}",
            package["name"]
        );
    }
}

#[test]
fn every_crate_comes_from_the_registry() {
    for package in packages() {
        let source = package["source"].as_str();
        let name = package["name"].as_str().unwrap_or_default();
        let is_own = source.is_none() && name.starts_with(env!("CARGO_PKG_NAME"));
        assert!(
            is_own
                || source.is_some_and(|source| source
                    .starts_with("registry+https://github.com/rust-lang/crates.io-index")),
            "{package}"
        );
    }
}

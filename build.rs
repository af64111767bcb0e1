//! Tells the program the commit and the features that it is built from, for `ckptfs --version`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Digits of a commit that are shown.
const DIGITS: usize = 7;

/// Names a commit where the build sees no repository, as in a container.
const GIVEN: &str = "CKPTFS_COMMIT";

/// In packages of `cargo package`: the commit that was packaged.
const PACKAGED: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={GIVEN}");
    let mut version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let found = env::var(GIVEN).ok().and_then(|text| shortened(&text));
    let found = found.or_else(|| packaged(&root));
    if let Some(commit) = found.or_else(|| checked_out(&root)) {
        version += &format!(" ({commit})");
    }
    for feature in features() {
        version += &format!(" +{feature}");
    }
    println!("cargo:rustc-env=CKPTFS_VERSION={version}");
}

/// The optional parts that are built in.
fn features() -> Vec<String> {
    let known = ["ablation", "remote"];
    let is_on =
        |name: &&str| env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    known.into_iter().filter(is_on).map(str::to_owned).collect()
}

/// The first digits of a commit; `None` where the text is none.
fn shortened(text: &str) -> Option<String> {
    let is_commit = text.len() >= DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| text.chars().take(DIGITS).collect())
}

fn packaged(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join(PACKAGED)).ok()?;
    let (_, after) = text.split_once("\"sha1\"")?;
    shortened(after.split('"').nth(1)?)
}

/// The commit of the repository whose top is `root`: one further up belongs to another project that this one was copied into.
fn checked_out(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if fs::canonicalize(top).ok()? != fs::canonicalize(root).ok()? {
        return None;
    }
    // The log of HEAD grows by a line whenever another commit is checked out or made.
    for name in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(root, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    shortened(&git(root, &["rev-parse", "HEAD"])?)
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(arguments)
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}

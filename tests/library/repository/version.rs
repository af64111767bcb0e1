//! The version that a build is given: with its commit where there is one to name, and without it everywhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the build script by itself, so that it can be run in any folder.
fn build_script(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = folder.join("script");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-o"]).arg(&script);
    let built = rustc.arg(root.join("build.rs")).status().unwrap();
    assert!(built.success());
    script
}

/// Returns the version that the script gives a package in `folder`.
fn version(script: &Path, folder: &Path, more: &[(&str, &str)]) -> String {
    let mut command = Command::new(script);
    for name in [
        "CKPTFS_COMMIT",
        "CARGO_FEATURE_ABLATION",
        "CARGO_FEATURE_REMOTE",
    ] {
        command.env_remove(name);
    }
    command.envs(more.iter().copied());
    let command = command.env("CARGO_PKG_VERSION", "1.2.3");
    let output = command.env("CARGO_MANIFEST_DIR", folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines = said.lines();
    let line = lines.find_map(|line| line.strip_prefix("cargo:rustc-env=CKPTFS_VERSION="));
    line.unwrap().to_owned()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=a", "-c", "user.email=a@example.com"]);
    let output = git.args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_version_names_the_commit_of_its_own_repository_alone() {
    let folder = tempfile::tempdir().unwrap();
    let script = build_script(folder.path());
    let package = folder.path().join("package");
    fs::create_dir(&package).unwrap();
    let said = |more: &[(&str, &str)]| version(&script, &package, more);
    assert_eq!(said(&[]), "1.2.3");
    assert_eq!(said(&[("PATH", "/nowhere")]), "1.2.3");
    assert_eq!(said(&[("CARGO_FEATURE_REMOTE", "1")]), "1.2.3 +remote");
    assert_eq!(
        said(&[("CKPTFS_COMMIT", "0123456789abcdef")]),
        "1.2.3 (0123456)"
    );
    for none in ["", "main", "0123456789\nabc"] {
        assert_eq!(said(&[("CKPTFS_COMMIT", none)]), "1.2.3", "{none:?}");
    }
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("SKIPPED {}: no git", module_path!());
        return;
    }
    for repository in [folder.path(), &package] {
        git(repository, &["init", "-q"]);
        git(repository, &["commit", "-q", "--allow-empty", "-m", "a"]);
        let head = git(repository, &["rev-parse", "HEAD"]);
        let expected = match repository == package {
            true => format!("1.2.3 ({})", &head[..7]),
            false => "1.2.3".to_owned(),
        };
        assert_eq!(said(&[]), expected);
    }
    let packaged = r#"{"git": {"sha1": "fedcba9876543210"}, "path_in_vcs": ""}"#;
    fs::write(package.join(".cargo_vcs_info.json"), packaged).unwrap();
    assert_eq!(said(&[]), "1.2.3 (fedcba9)");
}

//! Man pages, completions and log lines.

use std::fs;

use serde_json::Value;

use crate::common::programs::*;

#[test]
fn every_command_has_a_man_page_with_its_flags() {
    let stage = Stage::new();
    fs::create_dir(stage.other("man")).unwrap();
    assert_eq!(stage.run(&["man", "man"]).status.code(), Some(0));
    for (page, flag) in [
        ("ckptfs", "log\\-format"),
        ("ckptfs-mount", "allow\\-other"),
        ("ckptfs-export", "reflink"),
        ("ckptfs-verify", "against"),
    ] {
        let text = fs::read_to_string(stage.other("man").join(format!("{page}.1"))).unwrap();
        assert!(text.contains(flag), "{page}");
    }
    let page = fs::read_to_string(stage.other("man").join("ckptfs-mount.1")).unwrap();
    let (_, synopsis) = page.split_once(".SH SYNOPSIS\n").unwrap();
    let line = synopsis.lines().next().unwrap();
    assert!(line.ends_with("[OPTIONS] <SOURCE> <MOUNTPOINT>"), "{line}");
    assert!(page.contains("\\-\\-threads\\fR \\fI<N>"), "{page}");
}

#[test]
fn shells_complete_commands_and_flags() {
    let stage = Stage::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = stage.run(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("max-shard-size") && text.contains("export"),
            "{shell}"
        );
    }
}

#[test]
fn log_lines_are_json_on_request() {
    let stage = Stage::new();
    let config = stage.source().join("config.json");
    fs::write(config, r#"{"model_type": "unknown"}"#).unwrap();
    let output = stage.run(&["--log-format", "json", "inspect", "source"]);
    let text = String::from_utf8(output.stderr).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(
        line["fields"]["message"]
            .as_str()
            .unwrap()
            .contains("no table for family")
    );
}

#[test]
fn a_path_that_leads_nowhere_is_told_with_its_argument() {
    let stage = Stage::new();
    for (arguments, argument) in [
        (&["inspect", "nowhere"][..], "SOURCE"),
        (
            &["inspect", "source", "--config-from", "nowhere"],
            "--config-from",
        ),
        (&["inspect", "source", "--mapping", "nowhere"], "--mapping"),
        (&["verify", "source", "--against", "nowhere"], "--against"),
    ] {
        let output = stage.run(arguments);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let said = complaint(&output);
        assert!(
            said.contains("nowhere: there is no such file or folder"),
            "{said}"
        );
        assert!(said.contains(argument), "{said}");
    }
}

#[test]
fn the_version_is_followed_by_commit_and_features() {
    let output = Stage::new().run(&["--version"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let mut words = said.split_whitespace().peekable();
    assert_eq!(words.next(), Some("ckptfs"));
    assert_eq!(words.next(), Some(env!("CARGO_PKG_VERSION")));
    let commit = words.next_if(|word| word.starts_with('('));
    if let Some(commit) = commit {
        let digits = commit.trim_matches(['(', ')']);
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(digits.len() == 7 && is_hex, "{said}");
    }
    let features: Vec<&str> = words.collect();
    assert_eq!(features.contains(&"+remote"), cfg!(feature = "remote"));
}

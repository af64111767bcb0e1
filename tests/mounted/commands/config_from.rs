//! The config of a checkpoint that has none: a model of the hub's local cache, and the usual one.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::common::programs::*;

/// A source without a config, which lies in the hub's cache under `home` as `org/tiny`, as huggingface_hub lays it out.
fn cached() -> Stage {
    let stage = Stage::new();
    let model = stage.other("home/hub/models--org--tiny");
    for folder in ["refs", "blobs", "snapshots/abc"] {
        fs::create_dir_all(model.join(folder)).unwrap();
    }
    fs::write(model.join("refs/main"), "abc").unwrap();
    for name in ["config.json", "tokenizer.json"] {
        let blob = model.join("blobs").join(name);
        match name {
            "config.json" => fs::rename(stage.source().join(name), blob).unwrap(),
            _ => fs::write(blob, "{}").unwrap(),
        }
        symlink(
            format!("../../blobs/{name}"),
            model.join("snapshots/abc").join(name),
        )
        .unwrap();
    }
    stage
}

fn inspect(stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command
        .current_dir(stage.other("."))
        .args(["inspect", "source"])
        .args(arguments);
    for (name, value) in variables {
        command.env(name, stage.other(value));
    }
    command.env_remove("HF_HUB_CACHE").output().unwrap()
}

#[test]
fn a_model_of_the_hubs_cache_is_taken_by_its_name() {
    let stage = cached();
    let found = inspect(
        &stage,
        &["--config-from", "org/tiny"],
        &[("HF_HOME", "home")],
    );
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(
        found.status.success() && text.contains("tokenizer.json"),
        "{text}"
    );
    let absent = inspect(
        &stage,
        &["--config-from", "org/other"],
        &[("HF_HOME", "home")],
    );
    let text = String::from_utf8(absent.stderr).unwrap();
    assert!(
        text.contains("org/other: there is no such file or folder"),
        "{text}"
    );
    assert_eq!(
        (absent.status.code(), text.lines().count()),
        (Some(4), 1),
        "{text}"
    );
}

#[test]
fn the_usual_config_is_for_checkpoints_that_have_none() {
    let stage = cached();
    let usual = ("CKPTFS_CONFIG_FROM", "home/hub/models--org--tiny");
    assert!(inspect(&stage, &[], &[usual]).status.success());
    assert!(!inspect(&stage, &[], &[]).status.success());
    let config = stage.other("home/hub/models--org--tiny/blobs/config.json");
    fs::copy(&config, stage.source().join("config.json")).unwrap();
    fs::write(&config, "no config").unwrap();
    assert!(inspect(&stage, &[], &[usual]).status.success());
}

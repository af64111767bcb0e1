//! Options that stand in the environment.

use std::fs;
use std::process::{Command, Output};

use crate::common::programs::*;
use crate::need_fuse;

fn run(stage: &Stage, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.current_dir(stage.other("")).args(arguments);
    command.env("XDG_STATE_HOME", stage.state());
    command.envs(variables.iter().copied()).output().unwrap()
}

fn printed(stage: &Stage, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = run(stage, variables, arguments);
    assert!(output.status.success(), "{variables:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_variable_stands_for_its_option_until_the_command_line_says_otherwise() {
    let stage = Stage::new();
    let inspect = ["inspect", "source", "--json"];
    let dtype = |value| [("CKPTFS_DTYPE", value)];
    let with = |value: &'static str| [&inspect[..], &["--dtype", value]].concat();
    let (kept, cast) = (
        printed(&stage, &[], &inspect),
        printed(&stage, &[], &with("f32")),
    );
    assert_ne!(kept, cast);
    assert_eq!(printed(&stage, &dtype("f32"), &inspect), cast);
    assert_eq!(printed(&stage, &dtype("f32"), &with("keep")), kept);
    assert_eq!(printed(&stage, &dtype(""), &inspect), kept);
    let flag = |value| printed(&stage, &[("CKPTFS_JSON", value)], &["inspect", "source"]);
    assert_eq!(flag("yes"), kept);
    assert_eq!(flag("0"), printed(&stage, &[], &["inspect", "source"]));
}

#[test]
fn a_variable_that_the_command_line_contradicts_is_passed_over() {
    let stage = Stage::new();
    let output = run(
        &stage,
        &[("CKPTFS_QUIET", "1")],
        &["-v", "inspect", "source"],
    );
    assert!(
        output.status.success() && !output.stderr.is_empty(),
        "{output:?}"
    );
    let against = ["verify", "source", "--against", "source"];
    let said = printed(&stage, &[("CKPTFS_NAN", "true")], &against);
    assert!(said.starts_with("12 equal"), "{said}");
}

#[test]
fn a_wrong_value_is_told_by_the_name_of_its_variable() {
    let stage = Stage::new();
    for (name, value, arguments) in [
        ("CKPTFS_DTYPE", "f33", &["inspect", "source"][..]),
        ("CKPTFS_JSON", "maybe", &["inspect", "source"]),
        ("CKPTFS_MAX_SHARD_SIZE", "5", &["export", "source", "copy"]),
        ("CKPTFS_LOG_FORMAT", "xml", &["status"]),
    ] {
        let output = run(&stage, &[(name, value)], arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let first = said.lines().next().unwrap();
        assert!(first.contains(name) && first.contains(value), "{said}");
    }
    let output = run(
        &stage,
        &[("CKPTFS_DTYPE", "f33")],
        &["inspect", "source", "--dtype", "f34"],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("'f34' for '--dtype <DTYPE>'"), "{said}");
}

#[test]
fn a_mount_in_the_background_has_the_options_of_its_environment() {
    need_fuse!();
    let stage = Stage::new();
    let variables = [("CKPTFS_DTYPE", "f32"), ("CKPTFS_MKDIR", "1")];
    printed(&stage, &variables, &["mount", "--daemon", "source", "made"]);
    let size = |path: &str| fs::metadata(stage.other(path)).unwrap().len();
    let [shown, stored] = ["made", "source"].map(|at| size(&format!("{at}/model.safetensors")));
    assert!(shown > stored * 3 / 2, "{shown} {stored}");
    printed(&stage, &[], &["umount", "made"]);
}

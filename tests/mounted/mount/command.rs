//! The subcommands: what they say, and the status that they end with.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

#[test]
fn a_daemon_is_ready_when_its_command_returns() {
    need_fuse!();
    let stage = Stage::new();
    let output = stage.run(&["mount", "--daemon", "source", "point"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("is mounted at") && said.lines().count() == 1,
        "{said}"
    );
    assert!(output.stderr.is_empty());
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    assert!(fs::read(stage.weights()).unwrap() == source);
    assert_eq!(stage.run(&["umount", "point"]).status.code(), Some(0));
    assert!(!stage.is_mounted());
}

#[test]
fn a_daemon_writes_its_log_to_a_file() {
    need_fuse!();
    let stage = Stage::new();
    let output = stage.run(&["mount", "source", "point", "--daemon", "--log-file", "log"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    File::options()
        .write(true)
        .open(stage.source().join("model.safetensors"))
        .unwrap()
        .set_len(100)
        .unwrap();
    fs::read(stage.weights()).unwrap_err();
    assert_eq!(stage.run(&["umount", "point"]).status.code(), Some(0));
    within(|| {
        let log = fs::read_to_string(stage.other("log")).unwrap();
        log.contains("model.safetensors").then_some(())
    });
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    need_fuse!();
    let stage = Stage::new();
    for (arguments, code) in [
        (["mount", "missing", "point", "--daemon"], 4),
        (["mount", "source", "missing", "--daemon"], 3),
        (["mount", "source", "source", "--daemon"], 3),
    ] {
        let output = stage.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        complaint(&output);
        assert!(output.stdout.is_empty());
    }
    let output = stage.run(&[
        "mount",
        "source",
        "point",
        "--daemon",
        "--log-file",
        "missing/log",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("missing/log"));
}

#[test]
fn bad_mount_points_are_refused_in_one_line() {
    need_fuse!();
    let stage = Stage::new();
    fs::create_dir_all(stage.other("full/x")).unwrap();
    fs::create_dir(stage.source().join("inside")).unwrap();
    fs::write(stage.other("file"), "").unwrap();
    symlink(stage.point(), stage.other("link")).unwrap();
    let said = |point: &str| {
        let output = stage.run(&["mount", "source", point]);
        assert_eq!(output.status.code(), Some(3), "{point}: {output:?}");
        complaint(&output)
    };
    assert!(said("full").contains("not empty"));
    assert!(said("source/inside").contains("inside the source"));
    assert!(said("file").contains("no directory"));
    assert!(said("link").contains("symbolic link"));
    assert!(said("missing").contains("mkdir"));
    assert!(said("/dev/shm").contains("another filesystem (tmpfs)"));
    let program = stage.mount();
    assert!(said("point").contains("ckptfs umount"));
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn a_mount_point_of_another_user_is_refused_with_what_to_do() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    fs::set_permissions(stage.other(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(stage.copy_of_program());
    command
        .args(["mount", "source", "point"])
        .uid(65_534)
        .gid(65_534);
    let output = command.current_dir(stage.other("")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = complaint(&output);
    // Without rights to the device or a helper there is an earlier reason.
    let words = [
        "only where this user may write; name an empty directory",
        "/dev/fuse",
        "fusermount3 ",
    ];
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

#[test]
fn umount_waits_for_readers_or_hides_from_them() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let mut reader = stage.reader();
    let output = stage.run(&["umount", "point"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("--lazy"));
    assert_eq!(
        stage.run(&["umount", "--lazy", "point"]).status.code(),
        Some(0)
    );
    assert!(!stage.is_mounted());
    drop(reader.stdin.take());
    reader.wait().unwrap();
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn umount_takes_nothing_but_views() {
    need_fuse!();
    let stage = Stage::new();
    let said = |point: &str| {
        let output = stage.run(&["umount", point]);
        assert_eq!(output.status.code(), Some(3));
        complaint(&output)
    };
    assert!(said("point").contains("nothing is mounted"));
    assert!(said("missing").contains("there is no such directory"));
    assert!(said("/proc").contains("another kind (proc)"));
}

#[test]
fn wrong_usage_is_status_two() {
    let stage = Stage::new();
    for arguments in [
        &["mount"][..],
        &["mount", "source", "point", "--threads", "0"],
        &["mount", "source", "point", "--max-shard-size", "5XB"],
        &["mount", "source", "point", "--log-file", "x"],
        &["mount", "source", "point", "--tied", "maybe"],
        &["demount", "point"],
    ] {
        assert_eq!(stage.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn help_documents_the_exit_status() {
    let output = Stage::new().run(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("4  a source file cannot be read"));
}

#[test]
fn names_in_errors_do_not_steer_the_terminal() {
    let output = Stage::new().run(&["inspect", "a\u{1b}[31m\nb"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(complaint(&output).contains("a\\u{1b}[31m\\nb"));
}

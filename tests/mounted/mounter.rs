//! Mounts whose server has no privileges: a descriptor handed in by a mounter, and a namespace of one's own.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::programs::*;
use crate::need_fuse;

/// Runs a program as the user 65534, without capabilities or a way to get any.
const WITHOUT_PRIVILEGES: [&str; 6] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--",
];

/// Root, a program to lower privileges with, and a stage that every user may read.
fn lowered() -> Option<(Stage, PathBuf)> {
    let can_lower = Command::new("setpriv").arg("--version").output().is_ok();
    if !is_root() || !can_lower {
        eprintln!("NOT TESTED: this needs root and setpriv");
        return None;
    }
    let stage = Stage::new();
    fs::set_permissions(stage.other("."), Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(stage.source()).unwrap() {
        let file = entry.unwrap().path();
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    let program = stage.copy_of_program();
    Some((stage, program))
}

fn expected(stage: &Stage) -> Vec<u8> {
    assert!(stage.run(&["export", "source", "local"]).status.success());
    fs::read(stage.other("local/model.safetensors")).unwrap()
}

struct Mounter(Child);

impl Mounter {
    fn of(stage: &Stage, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command
            .current_dir(stage.other("."))
            .args(["mounter", "point"])
            .args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with("waits for its server\n"), "{line}");
        // What the server says goes nowhere, but must not break it.
        std::thread::spawn(move || stdout.lines().count());
        Self(child)
    }

    fn end(mut self, stage: &Stage) {
        // SAFETY: kill takes numbers alone; the child has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        within(|| self.0.try_wait().unwrap());
        within(|| (!stage.is_mounted()).then_some(()));
    }
}

impl Drop for Mounter {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn an_inherited_descriptor_is_served_without_privileges() {
    need_fuse!();
    let Some((stage, program)) = lowered() else {
        return;
    };
    let expected = expected(&stage);
    let program = program.to_str().unwrap().to_owned();
    let server = [program.as_str(), "mount", "source", "{}", "--threads", "4"];
    let arguments = [&["--"], &WITHOUT_PRIVILEGES[..], &server].concat();
    let mounter = Mounter::of(&stage, &arguments);
    let weights = within(|| fs::read(stage.weights()).ok());
    assert_eq!(weights, expected);
    // Readers of other users are let in.
    let read = Command::new("setpriv")
        .args(["--reuid=65533", "--clear-groups", "--regid=65533", "cat"])
        .arg(stage.weights())
        .output()
        .unwrap();
    assert_eq!(read.stdout, expected);
    mounter.end(&stage);
}

#[test]
fn a_descriptor_comes_over_a_socket() {
    need_fuse!();
    let Some((stage, program)) = lowered() else {
        return;
    };
    let expected = expected(&stage);
    let mounter = Mounter::of(&stage, &["--socket", "socket"]);
    let [lower, flags @ ..] = &WITHOUT_PRIVILEGES;
    let mut command = Command::new(lower);
    command
        .current_dir(stage.other("."))
        .args(flags)
        .arg(program);
    let mut server = command.args(["mount", "source", "socket"]).spawn().unwrap();
    let weights = within(|| fs::read(stage.weights()).ok());
    assert_eq!(weights, expected);
    mounter.end(&stage);
    // The kernel ends the session, and with it the server.
    assert!(within(|| server.try_wait().unwrap()).success());
}

#[test]
fn descriptors_that_are_none_are_refused() {
    let stage = Stage::new();
    for (arguments, said) in [
        (&["mount", "source", "/dev/fd/77"][..], "/dev/fd/77"),
        (
            &["mount", "source", "/dev/fd/3", "--daemon"],
            "leave --daemon out",
        ),
        (
            &["umount", "/dev/fd/3"],
            "the mounter, which alone unmounts it",
        ),
    ] {
        let output = stage.run(arguments);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let line = complaint(&output);
        assert!(line.contains(said), "{line}");
    }
}

#[test]
fn a_namespace_of_ones_own_needs_no_root() {
    need_fuse!();
    let stage = Stage::new();
    let mut command = Command::new("unshare");
    command
        .current_dir(stage.other("."))
        .args(["-Urm", env!("CARGO_BIN_EXE_ckptfs")]);
    command.args(["exec", "source", "--", "cat", "{}/config.json"]);
    let output = command.output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("unshare") {
        eprintln!("NOT TESTED: user namespaces are not allowed here: {output:?}");
        return;
    }
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        output.stdout,
        fs::read(stage.source().join("config.json")).unwrap()
    );
}

//! The log that every mount has, `ckptfs log`, and the last error that `ckptfs status` shows.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

const STRANGER: u32 = 65_534;

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Cuts the source off, and reads what is gone by then.
fn fail(stage: &Stage) {
    let source = stage.source().join("model.safetensors");
    let source = File::options().write(true).open(source).unwrap();
    source.set_len(100).unwrap();
    let error = fs::read(stage.weights()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

/// The entry of the stage's mount in `status --json`, once it has a last error.
fn failed(stage: &Stage) -> Value {
    within(|| {
        let all: Value = serde_json::from_str(&said(&stage.run(&["status", "--json"]))).unwrap();
        let point = stage.point().display().to_string();
        let mut mounts = all.as_array().unwrap().iter();
        let own = mounts.find(|mount| mount["point"] == *point).unwrap();
        (!own["last_error"].is_null()).then(|| own.clone())
    })
}

fn signal(process: &Value, signal: i32) {
    let process = i32::try_from(process.as_u64().unwrap()).unwrap();
    // SAFETY: kill takes numbers alone; the process serves the mount of this test.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

#[test]
fn a_failed_read_of_a_daemon_leaves_a_trace() {
    need_fuse!();
    let stage = Stage::new();
    let mut mount = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    mount.args(["mount", "source", "point", "--daemon"]);
    mount
        .current_dir(stage.other(""))
        .env("XDG_STATE_HOME", stage.state());
    // Meant for another program.
    said(&mount.env("RUST_LOG", "tokenizers=debug").output().unwrap());
    fail(&stage);
    let mount = failed(&stage);
    let is_told = |text: &str| text.contains("model.safetensors: read at");
    assert!(is_told(mount["last_error"].as_str().unwrap()), "{mount}");
    let log = PathBuf::from(mount["log"].as_str().unwrap());
    assert!(log.starts_with(stage.state().join("ckptfs")), "{mount}");
    assert!(is_told(&fs::read_to_string(log).unwrap()));
    let line = said(&stage.run(&["status"]));
    let process = format!("by process {}; last error: ", mount["pid"]);
    assert!(line.contains(&process) && is_told(&line), "{line}");
    assert!(is_told(&said(&stage.run(&["log", "point"]))));
    said(&stage.run(&["umount", "point"]));
    assert!(is_told(&said(&stage.run(&["log", "point"]))));
    fs::remove_dir(stage.point()).unwrap();
    assert!(is_told(&said(&stage.run(&["log", "point"]))));
}

#[test]
fn counts_of_a_daemon_reach_its_log_whatever_rust_log_says() {
    need_fuse!();
    let stage = Stage::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.args(["mount", "source", "point", "--daemon", "--stats"]);
    command
        .env("RUST_LOG", "error")
        .env("XDG_STATE_HOME", stage.state());
    said(&command.current_dir(stage.other("")).output().unwrap());
    fail(&stage);
    signal(&failed(&stage)["pid"], libc::SIGUSR1);
    let counts = || {
        said(&stage.run(&["log", "point"]))
            .matches("errors=")
            .count()
    };
    within(|| (counts() == 1).then_some(()));
    said(&stage.run(&["umount", "point"]));
    within(|| (counts() == 2).then_some(()));
}

#[test]
fn a_mount_in_the_foreground_and_one_of_a_command_have_a_log_too() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    fail(&stage);
    assert_eq!(failed(&stage)["pid"], program.id());
    program.signal(libc::SIGTERM);
    let (code, complaint) = program.wait();
    assert_eq!(code, Some(0));
    assert!(complaint.contains("model.safetensors: read at"));
    let fresh = Stage::new();
    let source = fresh.source().join("model.safetensors");
    let script = format!(
        "truncate -s 100 {}; cat {{}}/model.safetensors; until {} log {{}} | grep 'read at'; do sleep 0.05; done",
        source.display(),
        env!("CARGO_BIN_EXE_ckptfs"),
    );
    assert!(said(&fresh.run(&["exec", "source", "--", "sh", "-c", &script])).contains("read at"));
}

#[test]
fn the_last_error_of_a_mount_outlives_its_process() {
    need_fuse!();
    let stage = Stage::new();
    said(&stage.run(&["mount", "source", "point", "--daemon"]));
    fail(&stage);
    signal(&failed(&stage)["pid"], libc::SIGKILL);
    let own = within(|| {
        let line = said(&stage.run(&["status"]));
        line.contains("its process died").then_some(line)
    });
    assert!(own.contains("removes it; last error: "), "{own}");
    said(&stage.run(&["umount", "point"]));
}

#[test]
fn a_mount_without_a_line_leaves_no_file() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    assert_eq!(said(&stage.run(&["log", "point"])), "");
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
    assert_eq!(
        fs::read_dir(stage.state().join("ckptfs")).unwrap().count(),
        0
    );
    let output = stage.run(&["log", "point"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("has logged a line here"));
}

#[test]
fn no_log_lies_in_the_source() {
    need_fuse!();
    let stage = Stage::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.args(["mount", "source", "point", "--daemon"]);
    command
        .env("XDG_STATE_HOME", stage.source())
        .env("TMPDIR", stage.other(""));
    said(&command.current_dir(stage.other("")).output().unwrap());
    fail(&stage);
    let log = failed(&stage)["log"].as_str().unwrap().to_owned();
    assert!(!Path::new(&log).starts_with(stage.source()), "{log}");
    said(&stage.run(&["umount", "point"]));
    fs::remove_file(log).unwrap();
}

#[test]
fn where_no_log_can_be_kept_the_view_is_mounted_and_that_is_said() {
    need_fuse!();
    let stage = Stage::new();
    fs::write(stage.other("file"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.args(["mount", "source", "point", "--daemon"]);
    command.env("XDG_STATE_HOME", stage.other("file/state"));
    command.env("TMPDIR", stage.other("file/temporary"));
    let output = command.current_dir(stage.other("")).output().unwrap();
    said(&output);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.contains("the mount keeps no log") && warned.contains("XDG_STATE_HOME"));
    assert!(fs::read(stage.weights()).is_ok());
    said(&stage.run(&["umount", "point"]));
}

#[test]
fn a_users_log_lies_in_the_users_home_and_root_sees_its_last_error() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let_mount(STRANGER, &stage);
    let home = stage.other("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(STRANGER), Some(STRANGER)).unwrap();
    let program = stage.copy_of_program();
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(stage.other(""));
        command.env("HOME", &home).env_remove("XDG_STATE_HOME");
        command.uid(STRANGER).gid(STRANGER).output().unwrap()
    };
    let output = as_user(&["mount", "source", "point", "--daemon"]);
    if String::from_utf8_lossy(&output.stderr).contains("program fusermount3") {
        eprintln!("NOT TESTED: users may not mount here: {output:?}");
        return;
    }
    said(&output);
    let source = File::options()
        .write(true)
        .open(stage.source().join("model.safetensors"));
    source.unwrap().set_len(100).unwrap();
    let mut cat = Command::new("cat");
    cat.arg(stage.weights()).uid(STRANGER).gid(STRANGER);
    assert!(!cat.output().unwrap().status.success());
    let mount = failed(&stage);
    let log = PathBuf::from(mount["log"].as_str().unwrap());
    assert!(log.starts_with(home.join(".local/state/ckptfs")), "{mount}");
    let own = said(&as_user(&["status"]));
    assert!(
        own.contains(&format!("by process {}; last error: ", mount["pid"])),
        "{own}"
    );
    assert!(said(&as_user(&["log", "point"])).contains("read at"));
    said(&as_user(&["umount", "point"]));
}

/// A `/dev` with FUSE, a null device and the socket of a system's log, for this test's mount namespace alone.
fn own_devices(stage: &Stage) -> UnixDatagram {
    let devices = stage.other("dev");
    fs::create_dir(&devices).unwrap();
    for name in ["fuse", "null"] {
        let device = devices.join(name);
        fs::write(&device, "").unwrap();
        let mut bind = Command::new("mount");
        bind.arg("--bind")
            .arg(Path::new("/dev").join(name))
            .arg(device);
        assert!(bind.status().unwrap().success());
    }
    let socket = UnixDatagram::bind(devices.join("log")).unwrap();
    let patience = Some(Duration::from_secs(120));
    socket.set_read_timeout(patience).unwrap();
    let mut bind = Command::new("mount");
    bind.arg("--rbind").arg(devices).arg("/dev");
    assert!(bind.status().unwrap().success());
    socket
}

#[test]
fn a_daemon_logs_to_the_systems_log_where_there_is_one() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let system = own_devices(&stage);
    said(&stage.run(&["mount", "source", "point", "--daemon"]));
    fail(&stage);
    let mut message = [0; 4096];
    let length = system.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..length]).into_owned();
    let process = failed(&stage)["pid"].clone();
    assert!(
        message.starts_with(&format!("<27>ckptfs[{process}]: ")),
        "{message}"
    );
    assert!(message.contains("model.safetensors: read at"), "{message}");
    said(&stage.run(&["umount", "point"]));
}

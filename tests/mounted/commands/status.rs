//! `ckptfs status`.

use std::io::{BufRead, Read};

use crate::common::programs::*;
use crate::need_fuse;

#[test]
fn every_mount_is_listed_with_its_source() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let listed = |arguments: &[&str]| {
        let output = stage.run(arguments);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let (point, process) = (stage.point(), program.id());
    let point = point.display();
    let line = format!("source is mounted at {point} by process {process}\n");
    assert!(listed(&["status"]).contains(&line));
    let all: serde_json::Value = serde_json::from_str(&listed(&["status", "--json"])).unwrap();
    let mounts = all.as_array().unwrap();
    let own = mounts
        .iter()
        .find(|mount| mount["point"] == stage.point().to_str().unwrap());
    assert_eq!(own.unwrap()["is_served"], true);
    assert_eq!(own.unwrap()["pid"], process);
    assert_eq!(own.unwrap()["last_error"], serde_json::Value::Null);
    program.signal(libc::SIGKILL);
    program.wait();
    let repair = format!(
        "its process died; ckptfs umount {} removes it",
        stage.point().display()
    );
    assert!(listed(&["status"]).contains(&repair));
    assert_eq!(stage.run(&["umount", "point"]).status.code(), Some(0));
    assert!(!listed(&["status"]).contains(stage.point().to_str().unwrap()));
}

#[test]
fn a_stopped_program_holds_no_status_up() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    program.signal(libc::SIGSTOP);
    // A thread that has taken a request already would keep who asks until it goes on.
    within(|| program.is_stopped().then_some(()));
    // The process that is to go on is named though the mount does not answer.
    let mut status = std::process::Command::new("timeout");
    status.args(["20", env!("CARGO_BIN_EXE_ckptfs"), "status"]);
    let output = status.output().unwrap();
    program.signal(libc::SIGCONT);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (point, process) = (stage.point(), program.id());
    let line = format!(
        "source is mounted at {} by process {process}, which does not answer; let that process go on\n",
        point.display()
    );
    assert!(String::from_utf8(output.stdout).unwrap().contains(&line));
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn the_source_is_listed_absolute_however_it_was_named() {
    need_fuse!();
    let stage = Stage::new();
    assert!(
        stage
            .run(&["mount", "source", "point", "--daemon"])
            .status
            .success()
    );
    let said = String::from_utf8(stage.run(&["status"]).stdout).unwrap();
    let source = stage.source().display().to_string();
    assert!(said.lines().any(|line| line.starts_with(&source)), "{said}");
    assert!(stage.run(&["umount", "point"]).status.success());
}

#[test]
fn the_fullest_log_names_no_files_of_programs() {
    need_fuse!();
    let stage = Stage::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command
        .args(["--log-format", "json"])
        .env("RUST_LOG", "trace");
    let program = stage.mount_by(command);
    std::fs::read(stage.weights()).unwrap();
    program.signal(libc::SIGTERM);
    let (code, log) = program.wait();
    assert_eq!(code, Some(0));
    assert!(!log.contains(".rs"), "{log}");
}

#[test]
fn counts_are_logged_when_asked_for_and_at_the_end() {
    need_fuse!();
    let stage = Stage::new();
    let run = |signal: i32, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command
            .args(["--log-format", "json"])
            .args(["mount", "--dtype", "f32"])
            .args(more);
        command
            .arg(stage.source())
            .arg(stage.point())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        within(|| stage.weights().exists().then_some(()));
        std::fs::read(stage.weights()).unwrap();
        let id = child.id() as i32;
        let send = |signal| {
            // SAFETY: kill takes numbers alone; the child has not been waited for.
            unsafe { libc::kill(id, signal) };
        };
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut lines = String::new();
        if signal != 0 {
            send(signal);
            stderr.read_line(&mut lines).unwrap();
        }
        send(libc::SIGTERM);
        stderr.read_to_string(&mut lines).unwrap();
        child.wait().unwrap();
        let parsed = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        parsed.collect::<Vec<serde_json::Value>>()
    };
    let size = std::fs::metadata(stage.source().join("model.safetensors"))
        .unwrap()
        .len();
    for (signal, more) in [(libc::SIGUSR1, &[][..]), (0, &["--stats"])] {
        let lines = run(signal, more);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let counts = &lines[0]["fields"];
        assert!(counts["bytes"].as_u64().unwrap() > size, "{counts}");
        assert!(counts["source_reads"].as_u64().unwrap() > 0, "{counts}");
        assert_eq!(counts["errors"], 0);
    }
}

#[test]
fn a_mount_point_that_is_no_text_is_listed_too() {
    use std::os::unix::ffi::OsStrExt;
    need_fuse!();
    let stage = Stage::new();
    let name = std::ffi::OsStr::from_bytes(b"point\xff");
    let point = stage.point().with_file_name(name);
    std::fs::create_dir(&point).unwrap();
    let mut mount = std::process::Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    mount
        .arg("mount")
        .arg(stage.source())
        .arg(&point)
        .arg("--daemon");
    assert!(mount.output().unwrap().status.success());
    let output = stage.run(&["status", "--json"]);
    std::process::Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .arg("umount")
        .arg(&point)
        .status()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = point.display().to_string();
    let mut mounts = all.as_array().unwrap().iter();
    assert!(mounts.any(|mount| mount["point"] == *shown), "{all}");
}

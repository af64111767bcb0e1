//! A log that takes no lines: requests and ends do not wait for it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use crate::common::programs::*;
use crate::need_fuse;

/// A pipe that holds all that it can.
fn full_pipe() -> (io::PipeReader, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let set = |flags: i32| {
        // SAFETY: fcntl takes numbers alone, and the descriptor is open.
        assert_ne!(
            unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, flags) },
            -1
        );
    };
    set(libc::O_NONBLOCK);
    let mut file = File::from(writer.try_clone().unwrap());
    while file.write(&[b'.'; 4096]).is_ok() {}
    while file.write(b".").is_ok() {}
    set(0);
    (reader, writer)
}

fn break_source(stage: &Stage) {
    let file = File::options()
        .write(true)
        .open(stage.source().join("model.safetensors"));
    file.unwrap().set_len(100).unwrap();
}

/// Mounts `source` on `point` with such a standard error.
fn mount(stage: &Stage, stderr: Stdio) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command
        .args(["mount", "source", "point"])
        .current_dir(stage.other(""));
    let child = command
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    within(|| stage.is_mounted().then_some(()));
    child
}

fn terminate(child: &std::process::Child) {
    // SAFETY: kill takes numbers alone; the child has not been waited for, so that its id is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
}

#[test]
fn a_log_that_blocks_holds_up_neither_reads_nor_the_end() {
    need_fuse!();
    let stage = Stage::new();
    let (_reader, writer) = full_pipe();
    let mut child = mount(&stage, writer.into());
    break_source(&stage);
    for _ in 0..20 {
        assert_eq!(
            fs::read(stage.weights()).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
    }
    assert!(fs::read(stage.point().join("config.json")).is_ok());
    terminate(&child);
    let status = within(|| child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!stage.is_mounted());
}

#[test]
fn a_failure_is_told_by_the_exit_status_where_nothing_takes_its_line() {
    need_fuse!();
    let stage = Stage::new();
    let (_reader, writer) = full_pipe();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command
        .args(["mount", "missing", "point"])
        .current_dir(stage.other(""));
    let mut child = command.stderr(Stdio::from(writer)).spawn().unwrap();
    let status = within(|| child.try_wait().unwrap());
    assert_eq!(status.code(), Some(4));
}

#[test]
fn a_full_standard_output_holds_up_neither_serving_nor_the_end() {
    need_fuse!();
    for daemon in [false, true] {
        let stage = Stage::new();
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command
            .args(["mount", "source", "point"])
            .args(daemon.then_some("--daemon"))
            .current_dir(stage.other(""));
        let command = command.stdout(Stdio::from(writer)).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        within(|| stage.is_mounted().then_some(()));
        assert!(fs::read(stage.weights()).is_ok());
        if !daemon {
            terminate(&child);
        }
        let status = within(|| child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        assert_eq!(stage.is_mounted(), daemon);
    }
}

#[test]
fn a_fifo_as_log_file_that_is_never_read_holds_nothing_up() {
    need_fuse!();
    let stage = Stage::new();
    let fifo = stage.other("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut file = File::options().read(true).write(true).open(&fifo).unwrap();
    // SAFETY: the descriptor is open, and owned by `file` alone: this one is its duplicate.
    let mut filler = unsafe { File::from_raw_fd(libc::dup(file.as_raw_fd())) };
    // SAFETY: fcntl takes numbers alone, and the descriptor is open.
    unsafe { libc::fcntl(filler.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    while filler.write(&[b'.'; 4096]).is_ok() {}
    let output = stage.run(&["mount", "--daemon", "--log-file", "fifo", "source", "point"]);
    assert!(output.status.success(), "{output:?}");
    break_source(&stage);
    assert_eq!(
        fs::read(stage.weights()).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert!(stage.run(&["umount", "point"]).status.success());
    file.read_exact(&mut [0; 4096]).unwrap();
}

#[test]
fn a_line_that_waited_is_written_when_there_is_room() {
    need_fuse!();
    let stage = Stage::new();
    let (mut reader, writer) = full_pipe();
    let mut child = mount(&stage, writer.into());
    break_source(&stage);
    assert!(fs::read(stage.weights()).is_err());
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        reader.read_to_end(&mut said).unwrap();
        String::from_utf8(said).unwrap()
    });
    terminate(&child);
    assert_eq!(within(|| child.try_wait().unwrap()).code(), Some(0));
    let said = reading.join().unwrap();
    assert!(
        said.contains("model.safetensors: read at"),
        "{}",
        said.trim_start_matches('.')
    );
}

//! Standard output and standard error that take nothing, as on a full disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::hint::says_what_to_do;
use crate::common::programs::*;
use crate::need_fuse;

fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// The program with a log that cannot be written.
fn without_log() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec 2>/dev/full; exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_ckptfs"));
    command
}

fn errno(result: io::Result<Vec<u8>>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn a_log_that_cannot_be_written_ends_no_mount() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount_by(without_log());
    let weights = stage.source().join("model.safetensors");
    let source = File::options().write(true).open(weights).unwrap();
    source.set_len(100_000).unwrap();
    for _ in 0..40 {
        assert_eq!(errno(fs::read(stage.weights())), Some(libc::EIO));
        program.signal(libc::SIGUSR1);
    }
    assert!(fs::read(stage.point().join("config.json")).is_ok());
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
    assert!(!stage.is_mounted());
}

#[test]
fn a_log_that_cannot_be_written_takes_no_grace_away() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount_by(without_log());
    let mut file = File::open(stage.weights()).unwrap();
    let start = Instant::now();
    program.signal(libc::SIGTERM);
    within(|| (!stage.is_mounted()).then_some(()));
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == source);
    assert_eq!(program.wait().0, Some(0));
    assert!(start.elapsed() > Duration::from_secs(4));
}

#[test]
fn a_warning_that_cannot_be_written_decides_nothing() {
    let stage = Stage::new();
    let config = stage.source().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let unknown = text
        .replace("\"llama\"", "\"no-such-family\"")
        .replace("LlamaForCausalLM", "NoSuchModel");
    fs::write(config, unknown).unwrap();
    let said = stage.run(&["inspect", "source"]);
    assert!(said.status.success() && !said.stderr.is_empty(), "{said:?}");
    let mut inspect = without_log();
    inspect.args(["inspect", "source"]);
    let output = inspect.current_dir(stage.other("")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, said.stdout);
}

fn with_full_output(stage: &Stage, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.current_dir(stage.other("")).args(arguments);
    command.stdout(full()).output().unwrap()
}

#[test]
fn an_output_that_cannot_be_written_is_named_with_status_three() {
    let stage = Stage::new();
    for arguments in [
        &["inspect", "source"][..],
        &["inspect", "source", "--html", "page.html"],
        &["verify", "source"],
        &["export", "source", "exported"],
        &["status"],
        &["completions", "bash"],
    ] {
        let output = with_full_output(&stage, arguments);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = complaint(&output);
        assert!(said.starts_with("ckptfs: standard output: "), "{said}");
        assert!(says_what_to_do(&said), "{said}");
    }
}

#[test]
fn a_mount_that_cannot_be_announced_is_taken_away() {
    need_fuse!();
    let stage = Stage::new();
    for more in [&[][..], &["--daemon"]] {
        let arguments = [&["mount", "source", "point"][..], more].concat();
        let output = with_full_output(&stage, &arguments);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(complaint(&output).contains("standard output"));
        assert!(!stage.is_mounted());
    }
}

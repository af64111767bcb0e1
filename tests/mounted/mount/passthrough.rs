//! Files that the kernel reads from the source by itself.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::programs::*;
use crate::need_fuse;

/// Passthrough came with Linux 6.9.
fn kernel_can() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse());
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next()) >= (6, 9)
}

#[test]
fn the_kernel_reads_what_inspect_says_equals_the_source() {
    need_fuse!();
    let stage = Stage::new();
    let output = stage.run(&["inspect", "source", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let same_as = report["files"][0]["same_as"].as_str().unwrap();
    assert!(same_as.ends_with("source/model.safetensors"), "{same_as}");
    for wanted in [true, false] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(["mount", "source", "point", "--stats"]);
        if wanted {
            command.arg("--passthrough");
        }
        let (read, log) = read_and_end(&stage, command.env("RUST_LOG", "info"));
        let expected = fs::read(stage.source().join("model.safetensors")).unwrap();
        assert!(read == expected);
        let by_kernel = wanted && is_root() && kernel_can();
        let said = log.contains("model.safetensors: the kernel reads");
        assert_eq!(said, by_kernel, "{log}");
        assert_eq!(log.contains(" bytes=0 "), by_kernel, "{log}");
    }
}

/// The weights, and what the mount wrote to standard error.
fn read_and_end(stage: &Stage, command: &mut Command) -> (Vec<u8>, String) {
    command
        .current_dir(stage.other("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let bytes = within(|| fs::read(stage.weights()).ok());
    stage.run(&["umount", "point"]);
    let output = child.wait_with_output().unwrap();
    (bytes, String::from_utf8(output.stderr).unwrap())
}

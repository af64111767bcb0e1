//! `ckptfs exec`: a mount as long as a command.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::common::programs::*;
use crate::need_fuse;

/// A stage whose temporary directory is its own.
struct Private(Stage);

impl Private {
    fn new() -> Self {
        let stage = Stage::new();
        fs::create_dir(stage.other("tmp")).unwrap();
        Self(stage)
    }

    fn exec(&self, command: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        program.env("TMPDIR", self.0.other("tmp"));
        program
            .arg("exec")
            .arg(self.0.source())
            .arg("--")
            .args(command);
        program
    }

    fn output(&self, command: &[&str]) -> Output {
        let output = self.exec(command).output().unwrap();
        self.assert_clean();
        output
    }

    fn assert_clean(&self) {
        let left = fs::read_dir(self.0.other("tmp")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn the_command_sees_the_view_under_the_name_of_the_source() {
    need_fuse!();
    let stage = Private::new();
    let output = stage.output(&["sh", "-c", "echo {}; ls -ld {}/.."]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().next().unwrap().ends_with("/source"), "{said}");
    assert!(
        said.lines().nth(1).unwrap().starts_with("drwx------"),
        "{said}"
    );
    let model = stage.0.source().join("model.safetensors");
    let output = stage.output(&["cmp", "{}/model.safetensors", model.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn the_status_is_the_commands() {
    need_fuse!();
    let stage = Private::new();
    let status = |script: &str| stage.output(&["sh", "-c", script, "{}"]).status.code();
    assert_eq!(status("exit 0"), Some(0));
    assert_eq!(status("exit 7"), Some(7));
    assert_eq!(status("kill -9 $$"), Some(137));
    let missing = stage.output(&["no-such-program", "{}"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(complaint(&missing).contains("no-such-program"));
    let data = stage.output(&["/etc/passwd", "{}"]);
    assert_eq!(data.status.code(), Some(126));
}

#[test]
fn a_command_without_the_path_is_a_mistake() {
    let stage = Private::new();
    let output = stage.output(&["ls"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("{}"));
    assert_eq!(stage.output(&[]).status.code(), Some(2));
}

#[test]
fn signals_reach_the_command() {
    need_fuse!();
    let stage = Private::new();
    for (signal, name) in [
        (libc::SIGTERM, "TERM"),
        (libc::SIGINT, "INT"),
        (libc::SIGUSR1, "USR1"),
    ] {
        let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.02; done");
        let mut child = stage
            .exec(&["sh", "-c", &script, "{}"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        // SAFETY: kill takes numbers alone; the child has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
        stage.assert_clean();
    }
}

/// vLLM takes a second Ctrl-C for impatience.
#[test]
fn control_c_reaches_the_command_once() {
    need_fuse!();
    let stage = Private::new();
    let script = "trap 'echo hit; came=1' INT; echo ready; until [ $came ]; do sleep 0.1; done; for i in 1 2 3 4 5; do sleep 0.1; done";
    let program = env!("CARGO_BIN_EXE_ckptfs");
    let line = format!(
        "{program} exec source -- sh -c \"{}\" {{}}",
        script.replace('$', "\\$")
    );
    let mut terminal = Command::new("script");
    terminal
        .args(["-qefc", &line, "/dev/null"])
        .current_dir(stage.0.other(""));
    terminal.env("TMPDIR", stage.0.other("tmp"));
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut terminal) = terminal.spawn() else {
        eprintln!("SKIPPED: no program script, which makes a terminal");
        return;
    };
    let mut said = BufReader::new(terminal.stdout.take().unwrap()).lines();
    let mut lines = said.by_ref().map(|line| line.unwrap());
    assert!(lines.any(|line| line.contains("ready")));
    let mut keys = terminal.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    let rest: Vec<String> = lines.collect();
    drop(keys);
    assert_eq!(
        rest.iter().filter(|line| line.contains("hit")).count(),
        1,
        "{rest:?}"
    );
    terminal.wait().unwrap();
    stage.assert_clean();
}

#[test]
fn nothing_of_ours_is_open_in_the_command() {
    need_fuse!();
    let stage = Private::new();
    let output = stage.output(&["sh", "-c", "ls -l /proc/self/fd # {}"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        !said.contains("fuse") && !said.contains("safetensors"),
        "{said}"
    );
}

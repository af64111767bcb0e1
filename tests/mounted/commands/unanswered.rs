//! Places that do not answer, or that nothing can be found from: each is named, in time.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// Longest time that a command may take on a machine that has much else to do. One that waits for the view never ends.
const PATIENCE: &str = "100";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command, killed where it waits for long.
fn command(stage: &Stage, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", PATIENCE, env!("CARGO_BIN_EXE_ckptfs")]);
    command.args(words).current_dir(stage.other(""));
    command.env("XDG_STATE_HOME", stage.state());
    command
}

fn assert_refused(words: &str, output: &Output) {
    let code = output.status.code();
    assert!(
        [Some(2), Some(3), Some(4)].contains(&code),
        "{words}: {output:?}"
    );
    let said = said(output);
    assert!(
        said.contains("does not answer; let the process"),
        "{words}: {said}"
    );
}

#[test]
fn no_command_waits_for_a_view_whose_process_is_stopped() {
    need_fuse!();
    let stage = Stage::new();
    fs::create_dir(stage.other("other")).unwrap();
    symlink("point/x", stage.other("link")).unwrap();
    let program = stage.mount();
    program.signal(libc::SIGSTOP);
    within(|| program.is_stopped().then_some(()));
    let mut lines = vec!["mount source point/x".to_owned()];
    for place in ["point/x", "link"] {
        lines.extend([
            format!("inspect {place}"),
            format!("verify source --against {place}"),
            format!("export source {place}"),
            format!("export {place} out"),
            format!("inspect source --html {place}"),
            format!("man {place}"),
            format!("log {place}"),
            format!("umount {place}"),
            format!("mounter other --socket {place}"),
            format!("mount {place} other"),
            format!("exec {place} -- ls {{}}"),
            format!("mapping check {place} --config-from source"),
            format!("mount source other --daemon --log-file {place}"),
            format!("mount source other --add-delta {place}=0.5"),
        ]);
        for option in ["config-from", "mapping", "average", "merge"] {
            lines.push(format!("mount source other --{option} {place}"));
        }
    }
    let begin = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = command(&stage, &words);
        (
            line.clone(),
            command.stderr(Stdio::piped()).spawn().unwrap(),
        )
    };
    let mut children: Vec<_> = lines.iter().map(begin).collect();
    let mut exec = command(&stage, &["exec", "source", "--", "ls", "{}"]);
    exec.env("TMPDIR", stage.point()).stderr(Stdio::piped());
    children.push(("TMPDIR".to_owned(), exec.spawn().unwrap()));
    for (variable, line) in [
        ("CKPTFS_CONFIG_FROM", "inspect source"),
        ("HF_HOME", "inspect source --config-from org/model"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut inspect = command(&stage, &words);
        inspect.env(variable, stage.point()).stderr(Stdio::piped());
        children.push((variable.to_owned(), inspect.spawn().unwrap()));
    }
    for (line, child) in children {
        assert_refused(&line, &child.wait_with_output().unwrap());
    }
    for state in [stage.state(), stage.point()] {
        let mut status = command(&stage, &["status"]);
        let output = status.env("XDG_STATE_HOME", state).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    program.signal(libc::SIGCONT);
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn a_state_folder_that_does_not_answer_holds_no_mount_up() {
    need_fuse!();
    let stage = Stage::new();
    fs::create_dir(stage.other("other")).unwrap();
    let program = stage.mount();
    program.signal(libc::SIGSTOP);
    within(|| program.is_stopped().then_some(()));
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "100", env!("CARGO_BIN_EXE_ckptfs")]);
    command.args(["mount", "source", "other", "--daemon"]);
    command
        .env("XDG_STATE_HOME", stage.point())
        .env("TMPDIR", stage.other(""));
    let output = command.current_dir(stage.other("")).output().unwrap();
    program.signal(libc::SIGCONT);
    assert!(output.status.success(), "{output:?}");
    assert!(stage.run(&["umount", "other"]).status.success());
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn a_removed_working_directory_is_named() {
    let stage = Stage::new();
    let (source, gone) = (stage.source(), stage.other("gone"));
    let source = source.to_str().unwrap();
    for words in [
        &["inspect", "x"][..],
        &["inspect", source, "--config-from", "x"],
        &["inspect", source, "--mapping", "x"],
        &["inspect", source, "--html", "x"],
        &["inspect", source, "--merge", "x"],
        &["inspect", source, "--average", "x"],
        &["inspect", source, "--add-delta", "x=1"],
        &["mount", "x", "/"],
        &["mount", source, "x"],
        &["mount", source, "/", "--daemon", "--log-file", "x"],
        &["mount", source, "/", "--config-from", "x"],
        &["export", source, "x"],
        &["exec", "x", "--", "ls", "{}"],
        &["verify", source, "--against", "x"],
        &["umount", "x"],
        &["log", "x"],
        &["man", "x"],
        &["mapping", "check", "x", "--config-from", "y"],
    ] {
        fs::create_dir(&gone).unwrap();
        let script = "cd \"$1\" && rmdir \"$1\" && shift && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&gone);
        command.arg(env!("CARGO_BIN_EXE_ckptfs")).args(words);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        let said = said(&output);
        assert!(
            said.contains("the working directory cannot be used"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn without_proc_it_is_proc_that_is_named() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let program = stage.mount();
    let mut hide = Command::new("mount");
    hide.args(["-t", "tmpfs", "none", "/proc"]);
    assert!(hide.status().unwrap().success());
    let point = stage.point().display().to_string();
    for words in [&["status"][..], &["umount", &point], &["log", &point]] {
        let output = stage.run(words);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {output:?}");
        assert!(
            complaint(&output).contains("mount /proc"),
            "{words:?}: {output:?}"
        );
    }
    fs::create_dir(stage.other("second")).unwrap();
    let output = stage.run(&["mount", "source", "second", "--daemon"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("mount /proc"), "{output:?}");
    let output = stage.run(&["exec", "source", "--", "ls", "{}"]);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("model.safetensors"),
        "{output:?}"
    );
    assert!(
        Command::new("umount")
            .arg("/proc")
            .status()
            .unwrap()
            .success()
    );
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
    assert!(!stage.is_mounted());
}

#[test]
fn without_a_null_device_commands_run_and_a_daemon_names_it() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let devices = stage.other("dev");
    fs::create_dir(&devices).unwrap();
    fs::write(devices.join("fuse"), "").unwrap();
    for (from, to) in [
        ("/dev/fuse", devices.join("fuse")),
        (devices.to_str().unwrap(), "/dev".into()),
    ] {
        let mut bind = Command::new("mount");
        bind.arg("--rbind").arg(from).arg(to);
        assert!(bind.status().unwrap().success());
    }
    // A child of this test gets its standard input from the null device, unless it gets another.
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(words).current_dir(stage.other(""));
        command.env("XDG_STATE_HOME", stage.state());
        command.stdin(Stdio::piped()).output().unwrap()
    };
    let output = run(&["exec", "source", "--", "ls", "{}"]);
    assert!(output.status.success(), "{output:?}");
    let output = run(&["mount", "source", "point", "--daemon"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("/dev/null") && said(&output).contains("mknod"));
    assert!(!std::path::Path::new("/dev/null").exists());
    assert!(!stage.is_mounted());
}

#[test]
fn of_many_who_unmount_at_once_each_succeeds_or_finds_nothing() {
    need_fuse!();
    let stage = Stage::new();
    for lazily in [0, 4, 8] {
        assert!(
            stage
                .run(&["mount", "source", "point", "--daemon"])
                .status
                .success()
        );
        let file = fs::File::open(stage.weights()).unwrap();
        let file = (lazily > 0).then_some(file);
        let unmount = |number: usize| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
            command.arg("umount").arg(stage.point());
            command.args((number < lazily).then_some("--lazy"));
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..8).map(unmount).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = said(&output);
            let is_late = ["nothing is mounted here", "is in use"]
                .iter()
                .any(|it| said.contains(it));
            assert!(output.status.success() || is_late, "{said}");
        }
        assert!(!stage.is_mounted());
        drop(file);
    }
}

#[test]
fn a_folder_for_mounts_of_commands_that_cannot_be_used_is_named() {
    need_fuse!();
    let stage = Stage::new();
    fs::write(stage.other("file"), "").unwrap();
    let mut places = vec!["absent", "absent/deeper", "file"];
    fs::create_dir(stage.other("read-only")).unwrap();
    if is_root() {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "ro", "none"])
            .arg(stage.other("read-only"));
        assert!(mount.status().unwrap().success());
        places.push("read-only");
    }
    for place in places {
        let mut exec = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        exec.arg("exec")
            .arg(stage.source())
            .args(["--", "ls", "{}"]);
        exec.env("TMPDIR", stage.other(place))
            .env("XDG_STATE_HOME", stage.state());
        let output = exec.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = complaint(&output);
        assert!(
            said.contains(stage.other(place).to_str().unwrap()),
            "{said}"
        );
        assert!(
            said.contains("set TMPDIR to one that can be written"),
            "{said}"
        );
    }
}

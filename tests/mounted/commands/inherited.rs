//! States that a parent process may leave to the program: signals ignored or blocked, descriptors, limits.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::programs::*;
use crate::{need_fuse, need_root};

const STRANGER: u32 = 65_534;

/// Signals that a parent may block or ignore, as all that the program acts on.
const STOPPING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ckptfs"))
}

/// `command`, started with these signals ignored and those blocked.
fn inheriting(mut command: Command, ignored: &[i32], blocked: &[i32]) -> Command {
    let (ignored, blocked) = (ignored.to_vec(), blocked.to_vec());
    let change = move || {
        // SAFETY: the calls take numbers and a set that outlives them.
        unsafe {
            for signal in &ignored {
                libc::signal(*signal, libc::SIG_IGN);
            }
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in &blocked {
                libc::sigaddset(&mut set, *signal);
            }
            match libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    };
    // SAFETY: between fork and exec the closure makes system calls alone.
    unsafe { command.pre_exec(change) };
    command
}

/// `command` with the arguments of `ckptfs exec`, whose temporary directory is the stage's own.
fn exec_by(mut command: Command, stage: &Stage, words: &[&str]) -> Command {
    fs::create_dir_all(stage.other("tmp")).unwrap();
    command.env("TMPDIR", stage.other("tmp"));
    command
        .arg("exec")
        .arg(stage.source())
        .arg("--")
        .args(words);
    command
}

fn exec(stage: &Stage, script: &str) -> Command {
    exec_by(program(), stage, &["sh", "-c", script, "{}"])
}

/// The mask that a line of /proc/PID/status shows.
fn mask(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    u64::from_str_radix(line.unwrap().trim_start_matches(':').trim(), 16).unwrap()
}

#[test]
fn an_ignored_or_blocked_sigchld_hides_no_end_of_a_command() {
    need_fuse!();
    let stage = Stage::new();
    for (ignored, blocked) in [(&[libc::SIGCHLD][..], &[][..]), (&[], &[libc::SIGCHLD])] {
        let mut child = inheriting(exec(&stage, "exit 7"), ignored, blocked);
        let mut child = child.spawn().unwrap();
        let status = within(|| child.try_wait().unwrap());
        assert_eq!(status.code(), Some(7), "{ignored:?} {blocked:?}");
    }
}

#[test]
fn a_command_gets_back_what_was_inherited() {
    need_fuse!();
    let stage = Stage::new();
    let signals = [
        libc::SIGCHLD,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGXFSZ,
        libc::SIGPIPE,
    ];
    let bit = |signal: i32| 1 << (signal - 1);
    let all: u64 = signals.iter().map(|signal| bit(*signal)).sum();
    for (ignored, blocked) in [(&signals[..], &[][..]), (&[], &signals)] {
        let mut limited = Command::new("prlimit");
        limited
            .args(["--nofile=300:4000"])
            .arg(env!("CARGO_BIN_EXE_ckptfs"));
        // A shell would set dispositions of its own.
        let words = [
            "cat",
            "/proc/self/status",
            "/proc/self/limits",
            "{}/config.json",
        ];
        let limited = exec_by(limited, &stage, &words);
        let output = inheriting(limited, ignored, blocked).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let files = said
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .unwrap();
        assert!(files.trim_start().starts_with("300 "), "{said}");
        let want = |is_set: bool| if is_set { all } else { 0 };
        assert_eq!(
            mask(&said, "SigIgn") & all,
            want(!ignored.is_empty()),
            "{said}"
        );
        assert_eq!(
            mask(&said, "SigBlk") & all,
            want(!blocked.is_empty()),
            "{said}"
        );
    }
}

#[test]
fn an_umask_that_denies_all_hinders_no_command_and_no_log() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let_mount(STRANGER, &stage);
    let home = stage.other("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(STRANGER), Some(STRANGER)).unwrap();
    let copy = stage.copy_of_program();
    let run = |words: &[&str]| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 777; exec \"$@\"", "sh"])
            .arg(&copy);
        command.args(words).current_dir(stage.other(""));
        command
            .env("TMPDIR", &home)
            .env("XDG_STATE_HOME", home.join("state"));
        command.uid(STRANGER).gid(STRANGER).output().unwrap()
    };
    let output = run(&["exec", "source", "--", "cat", "{}/config.json"]);
    if String::from_utf8_lossy(&output.stderr).contains("program fusermount3") {
        eprintln!("NOT TESTED: users may not mount here: {output:?}");
        return;
    }
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let output = run(&["mount", "source", "point", "--daemon"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let output = run(&["log", "point"]);
    assert!(output.status.success(), "{output:?}");
    assert!(run(&["umount", "point"]).status.success());
    let left = fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["state"]);
}

#[test]
fn blocked_signals_end_a_mount_all_the_same() {
    need_fuse!();
    for signal in STOPPING {
        let stage = Stage::new();
        let mounted = stage.mount_by(inheriting(program(), &[], &STOPPING));
        mounted.signal(signal);
        assert_eq!(mounted.wait(), (Some(0), String::new()), "signal {signal}");
        assert!(!stage.is_mounted());
    }
}

#[test]
fn an_ignored_sigchld_hinders_no_user_who_mounts_by_the_helper() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let_mount(STRANGER, &stage);
    let copy = stage.copy_of_program();
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(arguments).current_dir(stage.other(""));
        command.uid(STRANGER).gid(STRANGER);
        inheriting(command, &[libc::SIGCHLD], &[]).output().unwrap()
    };
    let output = as_user(&["mount", "--daemon", "source", "point"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("program fusermount3") {
        eprintln!("SKIPPED: users may not mount here: {said}");
        return;
    }
    assert!(output.status.success(), "{output:?}");
    let output = as_user(&["umount", "point"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!stage.is_mounted());
}

/// A pipe whose write end is no longer closed on exec.
fn inherited_pipe() -> (io::PipeReader, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    // SAFETY: fcntl takes numbers alone, and the descriptor is open.
    assert_ne!(
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFD, 0) },
        -1
    );
    (reader, writer)
}

#[test]
fn a_daemon_keeps_no_inherited_descriptor() {
    need_fuse!();
    let stage = Stage::new();
    let (mut reader, writer) = inherited_pipe();
    let output = stage.run(&["mount", "--daemon", "source", "point"]);
    assert!(output.status.success(), "{output:?}");
    drop(writer);
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(reader.read_to_end(&mut Vec::new()).unwrap()));
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(0));
    assert!(fs::read(stage.weights()).is_ok());
    assert!(stage.run(&["umount", "point"]).status.success());
}

#[test]
fn a_log_beyond_the_limit_of_file_sizes_costs_a_line_and_no_mount() {
    need_fuse!();
    let stage = Stage::new();
    let log = stage.other("log");
    fs::write(&log, [b'x'; 4096]).unwrap();
    let mut limited = Command::new("prlimit");
    limited
        .arg("--fsize=4096")
        .arg(env!("CARGO_BIN_EXE_ckptfs"));
    limited.args(["mount", "--daemon", "--log-file", "log", "source", "point"]);
    let output = limited.current_dir(stage.other("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    File::options()
        .write(true)
        .open(stage.source().join("model.safetensors"))
        .unwrap()
        .set_len(100)
        .unwrap();
    for _ in 0..3 {
        assert_eq!(
            fs::read(stage.weights()).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
    }
    assert!(fs::read(stage.point().join("config.json")).is_ok());
    assert!(stage.run(&["umount", "point"]).status.success());
    assert_eq!(fs::metadata(&log).unwrap().len(), 4096);
}

#[test]
fn what_a_killed_command_leaves_is_taken_away_by_the_next_program() {
    need_fuse!();
    for next in [
        &["status"][..],
        &["inspect", "source"],
        &["mount", "missing", "point"],
    ] {
        let stage = Stage::new();
        let mut child = exec(&stage, "echo $0; exec sleep 60");
        // The command outlives the program, and keeps the mount's directory busy.
        let mut child = child
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let group = child.id() as i32;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(fs::read_dir(stage.other("tmp")).unwrap().count(), 1);
        let output = program()
            .args(next)
            .current_dir(stage.other(""))
            .env("TMPDIR", stage.other("tmp"))
            .output()
            .unwrap();
        let left = fs::read_dir(stage.other("tmp")).unwrap().count();
        // SAFETY: kill takes numbers alone; the group's number is its own as long as the command lives.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        assert_eq!(left, 0, "{next:?} {output:?}");
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!table.contains(line.trim()), "{next:?}");
    }
}

#[test]
fn what_a_living_command_works_on_stays() {
    need_fuse!();
    let stage = Stage::new();
    let mut child = exec(&stage, "echo ready; read line; cat $0/config.json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    let output = program()
        .arg("status")
        .env("TMPDIR", stage.other("tmp"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    drop(child.stdin.take());
    let mut config = String::new();
    said.read_to_string(&mut config).unwrap();
    assert!(config.contains("llama"), "{config}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn of_two_mounts_on_one_point_at_the_same_moment_one_is_refused() {
    need_fuse!();
    for _ in 0..10 {
        let stage = Stage::new();
        let start = || {
            let mut command = program();
            command.args(["mount", "--daemon", "source", "point"]);
            command
                .current_dir(stage.other(""))
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let mut codes = both.each_ref().map(|output| output.status.code());
        codes.sort();
        assert_eq!(codes, [Some(0), Some(3)], "{both:?}");
        assert!(stage.run(&["umount", "point"]).status.success());
        assert!(!stage.is_mounted());
    }
}

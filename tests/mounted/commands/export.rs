//! `ckptfs export`: complete under its name, or not there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::mounts::noise;
use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// All files below a directory by name.
pub fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn export(stage: &Stage, more: &[&str]) -> String {
    let output = stage.run(&[&["export", "source", "out"], more].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(!stage.other(".out.ckptfs-export").exists());
    String::from_utf8(output.stdout).unwrap()
}

/// Whether pieces of an interrupted export are on disk.
pub fn has_pieces(stage: &Stage) -> bool {
    let journal = fs::read_to_string(stage.other(".out.ckptfs-export/journal"));
    journal.is_ok_and(|text| text.lines().count() > 1)
}

/// Starts an export and stops it once pieces are on disk, as often as it takes.
pub fn stopped(stage: &Stage) -> Child {
    within(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
        command.args(["export", "source", "out", "--threads", "1"]);
        command
            .current_dir(stage.other(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        within(|| (has_pieces(stage) || child.try_wait().unwrap().is_some()).then_some(()));
        // SAFETY: kill takes numbers alone; the child has not been waited for where it still runs.
        unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) };
        let is_running = child.try_wait().unwrap().is_none() && has_pieces(stage);
        if !is_running {
            child.kill().ok();
            child.wait().unwrap();
            fs::remove_dir_all(stage.other("out")).ok();
        }
        is_running.then_some(child)
    })
}

/// Leaves an export that was killed after some pieces.
pub fn interrupt(stage: &Stage) {
    let mut child = stopped(stage);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Replaces the weights by `megabytes` of bytes that start otherwise for each seed.
pub fn enlarge(stage: &Stage, megabytes: usize, seed: u64) {
    let elements = megabytes << 19;
    let header = format!(
        r#"{{"w":{{"dtype":"BF16","shape":[{elements}],"data_offsets":[0,{}]}}}}"#,
        elements * 2
    );
    let mut file = File::create(stage.source().join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut block = noise(1 << 20, seed);
    for number in 0..megabytes as u64 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
    }
    fs::write(
        stage.source().join("config.json"),
        r#"{"model_type": "unknown"}"#,
    )
    .unwrap();
}

/// Starts an export and kills it after a while; whether it was not done by then.
fn killed_after(stage: &Stage, time: Duration) -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(["export", "source", "out", "--threads", "1"])
        .current_dir(stage.other(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
    let done = stage.other("out").exists();
    if done {
        fs::remove_dir_all(stage.other("out")).unwrap();
    }
    !done
}

#[test]
fn an_export_is_what_a_mount_shows() {
    need_fuse!();
    let stage = Stage::new();
    let view = ["--max-shard-size", "3MB", "--dtype", "f32"];
    let said = export(&stage, &view);
    assert!(
        said.starts_with("out: ") && said.lines().count() == 1,
        "{said}"
    );
    let mut program = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    program
        .args(["exec", "source"])
        .args(view)
        .args(["--", "diff", "-r", "{}", "out"]);
    let compared = program.current_dir(stage.other("")).output().unwrap();
    assert_eq!(compared.status.code(), Some(0), "{compared:?}");
    assert!(files(&stage.other("out")).len() > 3);
}

#[test]
fn nothing_is_overwritten() {
    let stage = Stage::new();
    fs::create_dir(stage.other("empty")).unwrap();
    fs::write(stage.other("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", stage.other("link")).unwrap();
    for (destination, reason) in [
        ("empty", "exists already"),
        ("file", "exists already"),
        ("link", "exists already"),
        ("source", "exists already"),
        ("source/out", "inside the source"),
        ("missing/out", "No such file"),
    ] {
        let output = stage.run(&["export", "source", destination]);
        assert_eq!(output.status.code(), Some(3), "{destination}");
        assert!(complaint(&output).contains(reason), "{output:?}");
    }
    assert_eq!(files(&stage.source()).len(), 2);
}

#[test]
fn what_someone_else_prepared_is_not_written_into() {
    let stage = Stage::new();
    let (staging, victim) = (stage.other(".out.ckptfs-export"), stage.other("victim"));
    fs::create_dir_all(victim.join("files")).unwrap();
    fs::write(victim.join("journal"), "mine").unwrap();
    fs::write(victim.join("files/model.safetensors"), "mine").unwrap();
    let refused = || {
        let output = stage.run(&["export", "source", "out"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(complaint(&output).contains("not left by an export of yours"));
        for name in ["journal", "files/model.safetensors"] {
            assert_eq!(fs::read_to_string(victim.join(name)).unwrap(), "mine");
        }
    };
    std::os::unix::fs::symlink("victim", &staging).unwrap();
    refused();
    fs::remove_file(&staging).unwrap();
    fs::write(&staging, "").unwrap();
    refused();
    fs::remove_file(&staging).unwrap();
    fs::rename(&victim, &staging).unwrap();
    std::os::unix::fs::symlink(".out.ckptfs-export", &victim).unwrap();
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o777)).unwrap();
    refused();
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
    need_root!();
    std::os::unix::fs::chown(&staging, Some(65_534), None).unwrap();
    refused();
}

#[test]
fn a_journal_of_garbage_costs_time_alone() {
    let stage = Stage::new();
    let whole = Stage::new();
    export(&whole, &[]);
    for garbage in [
        &b"\xff\xfe\0"[..],
        b"",
        b"0 0 18446744073709551615\n",
        &[0; 4096],
    ] {
        let staging = stage.other(".out.ckptfs-export");
        fs::create_dir_all(staging.join("files/model.safetensors")).unwrap();
        fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(staging.join("journal"), garbage).unwrap();
        let output = stage.run(&["export", "source", "out"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(files(&stage.other("out")) == files(&whole.other("out")));
        fs::remove_dir_all(stage.other("out")).unwrap();
    }
}

#[test]
fn ten_kills_cost_time_alone() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    let times = noise(1000, std::process::id().into());
    let kills = times
        .iter()
        .filter(|time| killed_after(&stage, Duration::from_millis(u64::from(**time % 100))));
    assert_eq!(kills.take(10).count(), 10);
    let output = stage.run(&["export", "source", "out"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let at = |folder: &str| stage.other(folder).join("model.safetensors");
    fs::rename(stage.other("out"), stage.other("resumed")).unwrap();
    stage.run(&["export", "source", "out"]);
    assert!(fs::read(at("resumed")).unwrap() == fs::read(at("out")).unwrap());
}

#[test]
fn what_was_written_is_not_written_again_unless_the_source_changed() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    interrupt(&stage);
    let resumed = stage.run(&["export", "source", "out"]);
    let said = String::from_utf8(resumed.stdout).unwrap();
    assert!(said.contains("written before"), "{said}");
    fs::remove_dir_all(stage.other("out")).unwrap();
    interrupt(&stage);
    enlarge(&stage, 192, 2);
    let afresh = stage.run(&["export", "source", "out"]);
    let said = String::from_utf8(afresh.stdout).unwrap();
    assert!(!said.contains("written before"), "{said}");
    let exported = fs::read(stage.other("out/model.safetensors")).unwrap();
    assert!(exported.ends_with(&noise(1 << 20, 2)[8..]));
}

#[test]
fn one_export_at_a_time_goes_to_a_place() {
    let stage = Stage::new();
    fs::create_dir(stage.other(".out.ckptfs-export")).unwrap();
    let journal = File::create(stage.other(".out.ckptfs-export/journal")).unwrap();
    // SAFETY: flock takes numbers alone, and the descriptor is open.
    assert_eq!(
        unsafe { libc::flock(journal.as_raw_fd(), libc::LOCK_EX) },
        0
    );
    let output = stage.run(&["export", "source", "out"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("another export"));
    drop(journal);
    export(&stage, &[]);
}

#[test]
fn a_terminal_sees_rate_and_time_left() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    let program = env!("CARGO_BIN_EXE_ckptfs");
    let line = format!("stty cols 120; {program} export source out --threads 1 --checksum");
    let mut terminal = Command::new("script");
    terminal
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::null());
    let Ok(output) = terminal.current_dir(stage.other("")).output() else {
        eprintln!("SKIPPED: no program script, which makes a terminal");
        return;
    };
    let said = String::from_utf8(output.stdout).unwrap();
    for part in [
        "writing ",
        "summing ",
        "201.33 MB ",
        "/s ",
        " left",
        "out: 2 files",
    ] {
        assert!(said.contains(part), "no {part:?} in {said:?}");
    }
}

#[test]
fn sums_are_those_of_sha256sum() {
    let stage = Stage::new();
    export(&stage, &["--checksum"]);
    let mut check = Command::new("sha256sum");
    check
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(stage.other("out"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap().lines().count();
    assert_eq!(lines, files(&stage.other("out")).len() - 1);
}

#[test]
fn an_export_opens_no_more_than_the_source() {
    let stage = Stage::new();
    let model = "model.safetensors";
    fs::set_permissions(
        stage.source().join(model),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    export(&stage, &[]);
    let mode = fs::metadata(stage.other("out").join(model))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_does_not_fit_is_not_begun() {
    need_root!();
    let stage = Stage::new();
    fs::create_dir(stage.other("small")).unwrap();
    let small = stage.other("small");
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(&small);
    if !mount.status().unwrap().success() {
        eprintln!("SKIPPED: no tmpfs can be mounted");
        return;
    }
    let output = stage.run(&["export", "source", "small/out"]);
    let left = fs::read_dir(&small).unwrap().count();
    Command::new("umount")
        .arg("-l")
        .arg(&small)
        .status()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("are free"));
    assert_eq!(left, 0);
}

/// A checkpoint that changes while it is exported gives no export.
#[test]
fn a_failed_export_has_no_name() {
    let stage = Stage::new();
    enlarge(&stage, 192, 1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckptfs"))
        .args(["export", "source", "out", "--threads", "1"])
        .current_dir(stage.other(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    within(|| {
        stage
            .other(".out.ckptfs-export/files")
            .exists()
            .then_some(())
    });
    let model = File::options()
        .write(true)
        .open(stage.source().join("model.safetensors"))
        .unwrap();
    model.set_len(1000).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!stage.other("out").exists());
}

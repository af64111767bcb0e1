//! The end of a mount: by signals, by other processes, by force.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ckptfs::mount::{Options, When, mount, unmount};

use crate::common::mounts::inline;
use crate::common::programs::*;
use crate::{need_fuse, need_root};

#[test]
fn every_stop_signal_unmounts() {
    need_fuse!();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGALRM] {
        let stage = Stage::new();
        let program = stage.mount();
        assert!(fs::read(stage.weights()).unwrap().len() > 8 << 20);
        program.signal(signal);
        assert_eq!(program.wait(), (Some(0), String::new()), "signal {signal}");
        assert!(!stage.is_mounted());
        assert!(fs::read_dir(stage.point()).unwrap().next().is_none());
    }
}

#[test]
fn an_open_file_is_served_to_its_end() {
    need_fuse!();
    let stage = Stage::new();
    let size = fs::metadata(stage.source().join("model.safetensors"))
        .unwrap()
        .len();
    let program = stage.mount();
    let mut reader = stage.reader();
    program.signal(libc::SIGTERM);
    within(|| (!stage.is_mounted()).then_some(()));
    drop(reader.stdin.take());
    let mut count = String::new();
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_to_string(&mut count)
        .unwrap();
    assert_eq!(count.trim(), size.to_string());
    reader.wait().unwrap();
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("in use") && said.lines().count() == 1,
        "{said}"
    );
    assert!(!stage.is_mounted());
}

#[test]
fn a_reader_that_stays_is_left_after_the_grace() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let mut file = File::open(stage.weights()).unwrap();
    let start = Instant::now();
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("was still in use"), "{said}");
    assert!(start.elapsed() >= Duration::from_secs(4));
    assert!(!stage.is_mounted());
    let error = file.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
}

#[test]
fn a_second_signal_ends_at_once() {
    need_fuse!();
    let ends_before_the_grace = || {
        let stage = Stage::new();
        let program = stage.mount();
        let _file = File::open(stage.weights()).unwrap();
        let start = Instant::now();
        program.signal(libc::SIGINT);
        within(|| (!stage.is_mounted()).then_some(()));
        program.signal(libc::SIGINT);
        assert_eq!(program.wait().0, Some(0));
        start.elapsed() < Duration::from_secs(4)
    };
    // On a busy machine anything may take so long.
    assert!((0..10).any(|_| ends_before_the_grace()));
}

#[test]
fn readers_inside_do_not_hold_the_signal_up() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Reads succeed, or fail once the mount is gone; none hangs.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::read(stage.weights()).ok();
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait().0, Some(0));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!stage.is_mounted());
}

#[test]
fn someone_else_may_unmount() {
    need_fuse!();
    let stage = Stage::new();
    for flags in [&[][..], &["-l"]] {
        let program = stage.mount();
        let status = Command::new("umount")
            .args(flags)
            .arg(stage.point())
            .status();
        assert!(status.unwrap().success());
        assert_eq!(program.wait(), (Some(0), String::new()));
    }
}

#[test]
fn a_view_in_a_directory_of_another_name_by_now_is_unmounted() {
    need_fuse!();
    let stage = Stage::new();
    let outer = stage.other("outer");
    fs::create_dir_all(outer.join("point")).unwrap();
    let point = outer.join("point");
    let options = Options::new(stage.source());
    let view = mount(vec![inline("a", &[b"bytes"])], &point, &options).unwrap();
    let moved = stage.other("moved");
    fs::rename(&outer, &moved).unwrap();
    assert_eq!(fs::read(moved.join("point/a")).unwrap(), b"bytes");
    view.unmount().unwrap();
    assert!(fs::read_dir(moved.join("point")).unwrap().next().is_none());
}

#[test]
fn nohup_outlives_the_terminal() {
    need_fuse!();
    let stage = Stage::new();
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_ckptfs"));
    let program = stage.mount_by(nohup);
    program.signal(libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(100));
    assert!(fs::metadata(stage.weights()).is_ok());
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn what_a_kill_leaves_is_taken_away_by_the_next_mount() {
    need_fuse!();
    let stage = Stage::new();
    let reader = || File::open(stage.weights()).unwrap();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let program = stage.mount();
        readers.push(reader());
        program.signal(libc::SIGKILL);
        program.wait();
    }
    let program = stage.mount();
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    assert!(fs::read(stage.weights()).unwrap() == source);
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("process died was left here"), "{said}");
    assert!(!stage.is_mounted());
}

#[test]
fn a_stopped_program_holds_no_mount_up() {
    need_fuse!();
    let stage = Stage::new();
    fs::create_dir(stage.other("elsewhere")).unwrap();
    let program = stage.mount();
    fs::metadata(stage.weights()).unwrap();
    program.signal(libc::SIGSTOP);
    // A thread that has taken a request already would keep who asks until it goes on.
    within(|| program.is_stopped().then_some(()));
    std::os::unix::fs::symlink("point", stage.other("link")).unwrap();
    let mount = |source: &str, point: &str, more: &[&str]| {
        let start = Instant::now();
        let mut command = Command::new("timeout");
        command.args([
            "-s",
            "KILL",
            "120",
            env!("CARGO_BIN_EXE_ckptfs"),
            "mount",
            source,
            point,
        ]);
        command.args(more);
        let output = command.current_dir(stage.other("")).output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(120));
        (output.status.code(), complaint(&output))
    };
    let (code, said) = mount("source", "point", &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("a view is mounted here already") || said.contains("does not answer"),
        "{said}"
    );
    for (source, more) in [
        ("point", &[][..]),
        ("link", &[]),
        ("source", &["--config-from", "link"]),
    ] {
        let (code, said) = mount(source, "elsewhere", more);
        assert_eq!(code, Some(4), "{said}");
        assert!(said.contains("does not answer"), "{said}");
    }
    program.signal(libc::SIGCONT);
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn a_dead_mount_of_another_program_is_left_alone() {
    need_fuse!();
    need_root!();
    let stage = Stage::new();
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    let [kind, target, options] = ["fuse.other", stage.point().to_str().unwrap(), &options]
        .map(|text| CString::new(text).unwrap());
    // SAFETY: every pointer is to a string that ends in a zero byte and outlives the call.
    let failed = unsafe {
        libc::mount(
            c"other".as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    drop(device);
    let output = stage.run(&["mount", "source", "point"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("process died is left here; to remove it: fusermount3 -u"));
    assert!(stage.is_mounted());
}

#[test]
fn a_view_that_has_ended_takes_no_other_away() {
    need_fuse!();
    let (point, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options::new(source.path());
    let view = || mount(vec![inline("a", &[b"bytes"])], point.path(), &options).unwrap();
    for _ in 0..50 {
        let first = view();
        unmount(point.path(), When::Unused).unwrap();
        let second = view();
        first.unmount().unwrap();
        assert_eq!(fs::read(point.path().join("a")).unwrap(), b"bytes");
        second.unmount().unwrap();
    }
}

//! Limits and ends: few descriptors, little memory, dead mounts taken over, readers in every kind of call.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::common::programs::*;
use crate::need_fuse;

/// `ckptfs` under limits of prlimit(1).
fn limited(limits: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.args(limits).arg(env!("CARGO_BIN_EXE_ckptfs"));
    command
}

fn one_tensor(name: &str, value: u8) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}}}"#);
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &[value; 8],
    ]
    .concat()
}

/// A checkpoint of as many shards as named, each with one tensor.
fn shards(stage: &Stage, count: usize) {
    let source = stage.source();
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("config.json"), r#"{"model_type":"free"}"#).unwrap();
    for shard in 1..=count {
        let name = format!("model-{shard:05}-of-{count:05}.safetensors");
        fs::write(
            source.join(name),
            one_tensor(&format!("t{shard:05}"), shard as u8),
        )
        .unwrap();
    }
}

fn ended(program: Foreground) {
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn ten_thousand_shards_under_256_descriptors() {
    need_fuse!();
    every_shard_is_read(10_000, 256);
}

#[test]
fn forty_shards_under_28_descriptors() {
    need_fuse!();
    every_shard_is_read(40, 28);
}

/// A mount either comes up and serves or is refused: none is left without a daemon.
fn mounts_or_is_refused(limit: &str, reason: &str) -> bool {
    let stage = Stage::new();
    let mut mount = limited(&[limit]);
    mount.args(["mount", "--daemon", "--threads", "4", "source", "point"]);
    let output = mount.current_dir(stage.other("")).output().unwrap();
    if output.status.success() {
        let source = stage.source().join("model.safetensors");
        assert!(fs::read(stage.weights()).unwrap() == fs::read(source).unwrap());
        assert!(stage.run(&["umount", "point"]).status.success());
        return true;
    }
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains(reason), "{output:?}");
    assert_eq!(fs::read_dir(stage.point()).unwrap().count(), 0);
    false
}

#[test]
fn too_few_descriptors_are_refused_before_the_mount() {
    need_fuse!();
    let mounts = |count| {
        let limit = format!("--nofile={count}:{count}");
        mounts_or_is_refused(&limit, "more file descriptors")
    };
    assert!(!mounts(8) && mounts(24));
    for count in 9..24 {
        mounts(count);
    }
}

#[test]
fn too_little_memory_for_the_threads_is_refused_before_the_mount() {
    need_fuse!();
    let mounts = |mib| {
        let limit = format!("--as={}", mib << 20);
        mounts_or_is_refused(&limit, "MiB more of addresses")
    };
    assert!(!mounts(48) && mounts(160));
    for mib in (64..160).step_by(16) {
        mounts(mib);
    }
}

fn every_shard_is_read(count: usize, descriptors: usize) {
    let stage = Stage::new();
    shards(&stage, count);
    let program = stage.mount_by(limited(&[&format!("--nofile={descriptors}:{descriptors}")]));
    let bytes = fs::read(stage.weights()).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for shard in 1..=count {
        assert_eq!(
            tensors.tensor(&format!("t{shard:05}")).unwrap().data(),
            [shard as u8; 8]
        );
    }
    ended(program);
}

#[test]
fn little_address_space_is_said_or_enough() {
    need_fuse!();
    let stage = Stage::new();
    let run = |megabytes: u64| -> Output {
        let mut command = limited(&[&format!("--as={}", megabytes << 20)]);
        command
            .args(["inspect", "source"])
            .current_dir(stage.other(""))
            .output()
            .unwrap()
    };
    assert_eq!(run(64).status.code(), Some(0), "{:?}", run(64));
    let program = stage.mount_by(limited(&[&format!("--as={}", 256 << 20)]));
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(fs::read(stage.weights()).unwrap() == source));
        }
    });
    ended(program);
}

#[test]
fn a_dead_mount_is_cleared_with_readers_inside() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let file = File::open(stage.weights()).unwrap();
    file.read_exact_at(&mut [0; 4096], 0).unwrap();
    program.signal(libc::SIGKILL);
    program.wait();
    assert_eq!(
        stage.run(&["umount", "--lazy", "point"]).status.code(),
        Some(0)
    );
    let program = stage.mount();
    assert_eq!(
        file.read_at(&mut [0; 4096], 9 << 20)
            .unwrap_err()
            .raw_os_error(),
        Some(libc::ENOTCONN)
    );
    let source = fs::read(stage.source().join("model.safetensors")).unwrap();
    assert!(fs::read(stage.weights()).unwrap() == source);
    drop(file);
    ended(program);
}

#[test]
fn a_mapped_file_is_served_after_the_signal() {
    need_fuse!();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let stage = Stage::new();
        let source = fs::read(stage.source().join("model.safetensors")).unwrap();
        let program = stage.mount();
        let file = File::open(stage.weights()).unwrap();
        // SAFETY: nothing changes the source, and the map goes before the program does.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        drop(file);
        program.signal(signal);
        within(|| (!stage.is_mounted()).then_some(()));
        assert!(map[..] == source[..], "signal {signal}");
        drop(map);
        let (status, said) = program.wait();
        assert_eq!(status, Some(0), "{said}");
    }
}

#[test]
fn a_killed_program_hangs_no_reader() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let (weights, starts) = (stage.weights(), std::sync::Barrier::new(9));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let file = File::open(&weights).unwrap();
                starts.wait();
                let read = |block: u64| file.read_at(&mut [0; 65_536], block << 16);
                // To the first error: nothing blocks, and what comes is of the mount's end.
                let error = (0..160).cycle().find_map(|block| {
                    // SAFETY: posix_fadvise takes numbers alone.
                    unsafe {
                        libc::posix_fadvise(
                            std::os::fd::AsRawFd::as_raw_fd(&file),
                            0,
                            0,
                            libc::POSIX_FADV_DONTNEED,
                        )
                    };
                    read(block).err()
                });
                assert!(matches!(
                    error.unwrap().raw_os_error(),
                    Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO)
                ));
            });
        }
        starts.wait();
        program.signal(libc::SIGKILL);
        program.wait();
    });
}

/// Maps a file, says so, and touches its end when it is told to.
const MAPPER: &str = "
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(bytes[0], flush=True)
sys.stdin.readline()
print(bytes[-4096])
";

#[test]
fn a_killed_program_ends_who_maps_its_files() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let mut mapper = Command::new("python3");
    mapper.args(["-c", MAPPER]).arg(stage.weights());
    mapper.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mapper = mapper.spawn().unwrap();
    let mut said = [0; 2];
    mapper
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    program.signal(libc::SIGKILL);
    program.wait();
    mapper.stdin.take().unwrap().write_all(b"\n").unwrap();
    let end = within(|| mapper.try_wait().unwrap());
    assert_eq!(end.signal(), Some(libc::SIGBUS));
}

//! Many readers for long: every block right, and nothing grows. CKPTFS_LOAD_SECONDS sets for how long.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::programs::*;

const READERS: u64 = 64;
const BLOCK: usize = 64 << 10;

/// Memory in bytes, descriptors and threads of a process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // Pages of mapped sources are the page cache's, not the program's.
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let memory = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        Self {
            memory,
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}

/// One reader's way of reading, picked by its number, until `end`.
fn read_until(end: Instant, number: u64, path: &Path, expected: &[u8], blocks: &AtomicU64) {
    let flags = if number % 4 == 2 { libc::O_DIRECT } else { 0 };
    let mut state = number + 1;
    while Instant::now() < end {
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(path)
            .unwrap();
        // SAFETY: nothing changes the source.
        let map = (number % 4 == 3).then(|| unsafe { memmap2::Mmap::map(&file) }.unwrap());
        for _ in 0..64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(number | 1);
            let start = (state >> 33) as usize % (expected.len() - BLOCK);
            let wanted = &expected[start..start + BLOCK];
            match &map {
                Some(map) => assert!(map[start..start + BLOCK] == *wanted, "block at {start}"),
                None => {
                    let mut block = vec![0; BLOCK];
                    file.read_exact_at(&mut block, start as u64).unwrap();
                    assert!(block == *wanted, "block at {start}");
                }
            }
            blocks.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(fs::metadata(path).unwrap().len(), expected.len() as u64);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }
}

/// Reads for `time` and says what the program then uses.
fn load(stage: &Stage, pid: u32, expected: &[u8], time: Duration, blocks: &AtomicU64) -> Usage {
    let (end, path) = (Instant::now() + time, stage.weights());
    thread::scope(|scope| {
        for number in 0..READERS {
            let path = &path;
            scope.spawn(move || read_until(end, number, path, expected, blocks));
        }
        // Files far larger than memory would be read again and again: the cache is dropped for the same effect.
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(200));
            let file = File::open(&path).unwrap();
            // SAFETY: posix_fadvise takes numbers alone.
            unsafe {
                libc::posix_fadvise(
                    std::os::fd::AsRawFd::as_raw_fd(&file),
                    0,
                    0,
                    libc::POSIX_FADV_DONTNEED,
                )
            };
        }
    });
    Usage::of(pid)
}

#[test]
fn nothing_grows_and_no_block_is_wrong() {
    need_fuse!();
    let seconds = std::env::var("CKPTFS_LOAD_SECONDS").map_or(12, |text| text.parse().unwrap());
    let stage = Stage::new();
    let expected = fs::read(stage.source().join("model.safetensors")).unwrap();
    let program = stage.mount();
    let blocks = AtomicU64::new(0);
    let first = load(
        &stage,
        program.id(),
        &expected,
        Duration::from_secs(3),
        &blocks,
    );
    let last = load(
        &stage,
        program.id(),
        &expected,
        Duration::from_secs(seconds),
        &blocks,
    );
    println!(
        "{} blocks of {BLOCK} bytes; {first:?}, {seconds} s later {last:?}",
        blocks.into_inner()
    );
    assert!(
        last.memory < first.memory + (16 << 20),
        "{first:?} {last:?}"
    );
    assert!(
        last.descriptors <= first.descriptors && last.threads <= first.threads,
        "{first:?} {last:?}"
    );
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

//! Many readers for long: every block right, and nothing grows. CKPTFS_LOAD_SECONDS sets for how long; from a minute on the
//! view is of 4 GiB.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::mounts::noise;
use crate::common::programs::*;
use crate::need_fuse;

const READERS: u64 = 64;
const BLOCK: usize = 64 << 10;

/// The data repeat after a prime number of bytes, so that no block is that of another page.
const PERIOD: usize = 1_048_583;

/// A mounted file of weights whose every byte is known.
struct Weights {
    path: PathBuf,
    size: usize,
    /// Where the data begin, and what they are for one period and a block more.
    start: usize,
    noise: Vec<u8>,
}

impl Weights {
    fn block(&self, offset: usize) -> &[u8] {
        let phase = (offset - self.start) % PERIOD;
        &self.noise[phase..phase + BLOCK]
    }

    /// Writes the source of `stage`: tensors of 16 MiB, `size` bytes in all.
    fn lay_out(stage: &Stage, size: usize) -> Vec<u8> {
        let mut noise = noise(PERIOD, 7);
        noise.extend_from_within(..BLOCK);
        let (length, entries) = (16 << 20, 0..size / (16 << 20));
        let entry = |number: usize| {
            let range = format!("{},{}", number * length, (number + 1) * length);
            format!(
                r#""t{number:03}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{range}]}}"#
            )
        };
        let header = format!("{{{}}}", entries.map(entry).collect::<Vec<_>>().join(","));
        fs::write(
            stage.source().join("config.json"),
            r#"{"model_type":"free"}"#,
        )
        .unwrap();
        let file = File::create(stage.source().join("model.safetensors")).unwrap();
        let mut file = BufWriter::new(file);
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let mut left = size;
        while left > 0 {
            let part = left.min(PERIOD);
            file.write_all(&noise[..part]).unwrap();
            left -= part;
        }
        noise
    }

    /// The file of `stage`, which is mounted, above data that were laid out.
    fn of(stage: &Stage, noise: Vec<u8>) -> Self {
        let path = stage.weights();
        let mut length = [0; 8];
        File::open(&path).unwrap().read_exact(&mut length).unwrap();
        let start = 8 + u64::from_le_bytes(length) as usize;
        let size = fs::metadata(&path).unwrap().len() as usize;
        Self {
            path,
            size,
            start,
            noise,
        }
    }
}

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

/// Rounds that every reader makes, however long they take.
const ROUNDS: u64 = 3;

/// One reader's way of reading, picked by its number, until `end`.
fn read_until(end: Instant, number: u64, weights: &Weights, blocks: &AtomicU64) {
    let flags = if number % 4 == 2 { libc::O_DIRECT } else { 0 };
    let mut state = number + 1;
    let mut rounds = 0..;
    while rounds.next() < Some(ROUNDS) || Instant::now() < end {
        let mut options = File::options();
        let file = options.read(true).custom_flags(flags).open(&weights.path);
        let file = file.unwrap();
        // SAFETY: nothing changes the source.
        let map = (number % 4 == 3).then(|| unsafe { memmap2::Mmap::map(&file) }.unwrap());
        for _ in 0..64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(number | 1);
            let range = weights.size - weights.start - BLOCK;
            let start = weights.start + (state >> 16) as usize % range;
            let wanted = weights.block(start);
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
        assert_eq!(
            fs::metadata(&weights.path).unwrap().len(),
            weights.size as u64
        );
        assert_eq!(
            fs::read_dir(weights.path.parent().unwrap())
                .unwrap()
                .count(),
            2
        );
    }
}

/// Reads for `time` and says what the program then uses.
fn load(pid: u32, weights: &Weights, time: Duration, blocks: &AtomicU64) -> Usage {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for number in 0..READERS {
            scope.spawn(move || read_until(end, number, weights, blocks));
        }
        // Files far larger than memory would be read again and again: the cache is dropped for the same effect.
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(200));
            drop_cache(&weights.path);
        }
    });
    Usage::of(pid)
}

fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: posix_fadvise takes numbers alone.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[test]
fn nothing_grows_and_no_block_is_wrong() {
    need_fuse!();
    let seconds = std::env::var("CKPTFS_LOAD_SECONDS").map_or(12, |text| text.parse().unwrap());
    let size = if seconds < 60 { 64 << 20 } else { 4 << 30 };
    let stage = Stage::new();
    let noise = Weights::lay_out(&stage, size);
    // Read past the page cache, until readers whose pages the kernel does not keep have parts of it stay there.
    let source = stage.source().join("model.safetensors");
    File::open(&source).unwrap().sync_all().unwrap();
    drop_cache(&source);
    let program = stage.mount();
    let weights = Weights::of(&stage, noise);
    let blocks = AtomicU64::new(0);
    let warm_up = Duration::from_secs(seconds.clamp(12, 120) / 4);
    let first = load(program.id(), &weights, warm_up, &blocks);
    let last = load(
        program.id(),
        &weights,
        Duration::from_secs(seconds),
        &blocks,
    );
    println!(
        "{} blocks of {BLOCK} bytes out of {size}; {first:?}, {seconds} s later {last:?}",
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
    let is_expected = |line: &str| line.contains("no table for family free");
    assert!(status == Some(0) && said.lines().all(is_expected), "{said}");
}

//! The ways in which loaders read, each over byte ranges of files.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use memmap2::Mmap;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Bytes `start..end` of a file.
pub type Range = (PathBuf, u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `read()` of 1 MiB.
    Sequential,
    /// A map, every page touched in order: safetensors' `load_file`.
    Mapped,
    /// The same by four threads, each with a quarter of the ranges' bytes, all files mapped at once.
    MappedByFour,
    /// Two readers of everything at the same time.
    Two,
    /// Two readers at the same time, each of one half.
    Halves,
    /// O_DIRECT, 1 MiB.
    Direct,
    /// Two such readers of everything at the same time: the ranks of a tensor-parallel server.
    TwoDirect,
    /// 2000 reads at random places.
    Random(usize),
}

impl Reader {
    /// Reads, and returns how many bytes.
    pub fn read(self, ranges: &[Range]) -> u64 {
        match self {
            Self::Sequential => ranges.iter().map(|range| sequential(range, 0)).sum(),
            Self::Direct => ranges
                .iter()
                .map(|range| sequential(range, libc::O_DIRECT))
                .sum(),
            Self::Mapped => ranges.iter().map(mapped).sum(),
            Self::MappedByFour => by_four(ranges),
            Self::Two => at_once([ranges; 2], |ranges| Self::Sequential.read(ranges)),
            Self::TwoDirect => at_once([ranges; 2], |ranges| Self::Direct.read(ranges)),
            Self::Halves => at_once([part(ranges, 0, 2), part(ranges, 1, 2)], |ranges| {
                Self::Sequential.read(&ranges)
            }),
            Self::Random(size) => random(ranges, size),
        }
    }
}

fn sequential((path, start, end): &Range, flags: i32) -> u64 {
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.expect("a file to read");
    // O_DIRECT wants aligned memory and offsets.
    let mut buffer = vec![0; MIB + PAGE];
    let skip = buffer.as_ptr().align_offset(PAGE);
    let buffer = &mut buffer[skip..skip + MIB];
    let mut at = start / PAGE as u64 * PAGE as u64;
    while at < *end {
        let count = file.read_at(buffer, at).expect("bytes");
        assert!(count > 0, "{path:?} ends at {at}");
        at += count as u64;
    }
    end - start
}

fn mapped((path, start, end): &Range) -> u64 {
    touch(&map(path), *start as usize, *end as usize)
}

fn map(path: &Path) -> Mmap {
    let file = File::open(path).expect("a file to map");
    // SAFETY: the file is not written while the benchmark runs; loaders map it as well, private, and advise the same.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL);
        Mmap::map(&file).expect("a map")
    }
}

fn touch(map: &Mmap, start: usize, end: usize) -> u64 {
    let words = map[start..end].chunks(64).map(|line| u64::from(line[0]));
    black_box(words.sum::<u64>());
    (end - start) as u64
}

fn by_four(ranges: &[Range]) -> u64 {
    let maps: Vec<Mmap> = ranges.iter().map(|(path, ..)| map(path)).collect();
    let quarters = [0, 1, 2, 3].map(|number| part(ranges, number, 4));
    at_once(quarters, |ranges| {
        let maps = maps.iter().zip(ranges);
        maps.map(|(map, (_, start, end))| touch(map, start as usize, end as usize))
            .sum()
    })
}

/// The same part of each range.
fn part(ranges: &[Range], number: u64, parts: u64) -> Vec<Range> {
    let of = |(path, start, end): &Range| {
        let at = |number| start + (end - start) * number / parts;
        (path.clone(), at(number), at(number + 1))
    };
    ranges.iter().map(of).collect()
}

/// Each share by a thread of its own, all at the same time.
fn at_once<T: Send, const N: usize>(shares: [T; N], read: impl Fn(T) -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let read = &read;
        let readers = shares.map(|share| scope.spawn(move || read(share)));
        let counts = readers.map(|reader| reader.join().expect("a reader"));
        counts.iter().sum()
    })
}

fn random(ranges: &[Range], size: usize) -> u64 {
    let (path, start, end) = &ranges[0];
    let file = File::open(path).expect("a file to read");
    let mut buffer = vec![0; size];
    let mut state = 7u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        let at = start + (state >> 20) % (end - start - size as u64);
        file.read_exact_at(&mut buffer, at).expect("bytes");
    }
    2000 * size as u64
}

/// The weight files of a folder, whole.
pub fn shards(folder: &Path) -> Vec<Range> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut shards: Vec<Range> = paths
        .filter(|path| path.extension().is_some_and(|name| name == "safetensors"))
        .map(|path| {
            let size = path.metadata().expect("its size").len();
            (path, 0, size)
        })
        .collect();
    shards.sort();
    shards
}

/// Where the tensors lie whose names have one of `parts` in them.
pub fn tensors(folder: &Path, parts: &[&str]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for (path, ..) in shards(folder) {
        let header = header(&path);
        let data = header.len() as u64 + 8;
        let json: serde_json::Value = serde_json::from_slice(&header).expect("a header");
        for (name, entry) in json.as_object().into_iter().flatten() {
            if parts.iter().any(|part| name.contains(part)) {
                let at = |i: usize| data + entry["data_offsets"][i].as_u64().unwrap_or(0);
                ranges.push((path.clone(), at(0), at(1)));
            }
        }
    }
    ranges.sort();
    ranges
}

fn header(path: &Path) -> Vec<u8> {
    let file = File::open(path).expect("a shard");
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).expect("a length");
    let mut header = vec![0; u64::from_le_bytes(length) as usize];
    file.read_exact_at(&mut header, 8).expect("a header");
    header
}

/// Drops what the page cache holds of a folder's files. Needs no privilege.
pub fn forget(folder: &Path) {
    for (path, ..) in shards(folder) {
        let file = File::open(path).expect("a shard");
        // SAFETY: the call takes a descriptor and numbers.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

/// Reads a folder's files in such a way that the page cache holds each page by itself.
pub fn page_by_page(folder: &Path) {
    forget(folder);
    for (path, _, size) in shards(folder) {
        let file = File::open(path).expect("a shard");
        // SAFETY: the call takes a descriptor and numbers.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        for page in (0..size).step_by(PAGE) {
            file.read_at(&mut [0; PAGE], page).expect("a page");
        }
    }
}

/// Bytes of a folder's files that lie in the page cache.
pub fn cached(folder: &Path) -> u64 {
    let pages = shards(folder).into_iter().map(|(path, _, size)| {
        let map = map(&path);
        let mut resident = vec![0u8; (size as usize).div_ceil(PAGE)];
        // SAFETY: the map and the vector, a byte for each of its pages, outlive the call.
        unsafe { libc::mincore(map.as_ptr() as *mut _, size as usize, resident.as_mut_ptr()) };
        resident.iter().filter(|page| **page & 1 == 1).count() as u64
    });
    pages.sum::<u64>() * PAGE as u64
}

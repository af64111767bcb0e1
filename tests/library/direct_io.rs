//! Direct I/O for sources whose bytes the kernel caches under the mount's own name gives the same bytes as buffered I/O.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ckptfs::output::{Attributes, Segment, VirtualFile};
use ckptfs::read::{ReadFile, Reader};
use ckptfs::source::{Caching, SourceFile};
use ckptfs::tensor::{Dtype, Shape, Tensor, contiguous};
use tempfile::NamedTempFile;

/// Bytes before the first tensor of a source: no block of a disk begins there.
const FRONT: usize = 1_234;

/// A file that the page cache does not hold.
fn cold(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(bytes).unwrap();
    file.as_file().sync_all().unwrap();
    // SAFETY: posix_fadvise takes a descriptor and numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    file
}

/// Pages of a file in the page cache.
fn cached(path: &Path) -> usize {
    let file = File::open(path).unwrap();
    // SAFETY: the file is not shortened while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let mut pages = vec![0u8; map.len().div_ceil(4096)];
    // SAFETY: the map and the vector, a byte for each of its pages, outlive the call.
    unsafe { libc::mincore(map.as_ptr() as *mut _, map.len(), pages.as_mut_ptr()) };
    pages.iter().filter(|page| **page & 1 == 1).count()
}

/// Bytes that differ from place to place, finite as floats.
fn noise(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(4) as u32).map(|i| i.wrapping_mul(2_654_435_761) & 0x3FFF_FFFF);
    let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

fn open(file: &NamedTempFile) -> Arc<SourceFile> {
    SourceFile::open(&file.path().canonicalize().unwrap()).unwrap()
}

fn stored(source: Arc<SourceFile>, dtype: Dtype, dims: &[u64]) -> Tensor {
    let shape = Shape::new(dims).unwrap();
    let layout = contiguous(FRONT as u64, &shape);
    Tensor::stored(source, dtype, shape, layout).unwrap()
}

fn shown(tensor: Tensor) -> VirtualFile {
    let attributes = Attributes {
        mode: 0o444,
        uid: 0,
        gid: 0,
        modified: (0, 0),
    };
    let header = Segment::Inline(b"a header of some bytes".as_slice().into());
    VirtualFile::new("x", attributes, vec![header, Segment::Tensor(tensor)])
}

/// The tensor's bytes as the kernel asks for them, requests of 512 KiB, in order, by four threads; and how many bytes those
/// had the disk read.
fn read_through(file: &VirtualFile, caching: Caching) -> (Vec<u8>, u64) {
    const REQUEST: usize = 512 << 10;
    let mut bytes = vec![0; file.size() as usize];
    let requests = bytes.chunks_mut(REQUEST).enumerate().collect::<Vec<_>>();
    let requests = std::sync::Mutex::new(requests.into_iter());
    let (read_bytes, reader) = (AtomicU64::new(0), Reader::default());
    let serve = || {
        while let Some((number, target)) = { requests.lock().unwrap().next() } {
            let offset = (number * REQUEST) as u64;
            let got = reader.read(file, offset, REQUEST, caching).unwrap();
            target.copy_from_slice(&got);
        }
        read_bytes.fetch_add(read_by_thread(), Ordering::Relaxed);
    };
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(serve)));
    });
    let bytes = bytes.split_off(b"a header of some bytes".len());
    (bytes, read_bytes.into_inner())
}

/// Bytes that this thread had the disk read.
fn read_by_thread() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    line.unwrap().parse().unwrap()
}

/// Whether the test can tell anything here.
fn is_possible(source: &SourceFile) -> bool {
    let is_possible = source.supports_direct_io();
    if !is_possible {
        eprintln!(
            "NOT TESTED: {} cannot be read past the page cache; build on ext4 or XFS, Linux 6.1 or newer",
            source.path().display()
        );
    }
    is_possible
}

#[test]
fn a_cold_source_is_not_in_the_page_cache_after_it_was_read() {
    let bytes = noise(FRONT + (5 << 20));
    let file = cold(&bytes);
    let source = open(&file);
    if !is_possible(&source) {
        return;
    }
    let tensor = stored(source, Dtype::BF16, &[5 << 9, 1 << 10]);
    let (got, read) = read_through(&shown(tensor), Caching::Kernel);
    assert!(got == bytes[FRONT..]);
    assert_eq!(cached(file.path()), 0);
    // Both ends of a request share a block with its neighbours.
    assert!(read < bytes.len() as u64 * 11 / 10, "{read} bytes");
}

/// The even rows of each head, then the odd ones.
fn in_rotary_order(tensor: &Tensor, half: u64) -> Tensor {
    let dims = tensor.shape().dims();
    let heads = tensor.reshape(&[dims[0] / (2 * half), half, 2, dims[1]]);
    let rows = heads.unwrap().permute(&[0, 2, 1, 3]).unwrap();
    rows.reshape(dims).unwrap()
}

/// Rows of bf16 in heads of 1 MiB, and the same in rotary order: a request of 512 KiB holds half a head, every other row.
struct Heads {
    bytes: Vec<u8>,
    file: NamedTempFile,
    source: Arc<SourceFile>,
}

impl Heads {
    const COUNT: usize = 4;
    const HALF: usize = 64;
    const WIDTH: usize = 4096;
    const SIZE: usize = Self::COUNT * 2 * Self::HALF * Self::WIDTH * 2;

    fn cold() -> Self {
        let bytes = noise(FRONT + Self::SIZE);
        let file = cold(&bytes);
        let source = open(&file);
        Self {
            bytes,
            file,
            source,
        }
    }

    fn rotary(&self) -> VirtualFile {
        let dims = [Self::COUNT * 2 * Self::HALF, Self::WIDTH].map(|size| size as u64);
        let tensor = stored(self.source.clone(), Dtype::BF16, &dims);
        shown(in_rotary_order(&tensor, Self::HALF as u64))
    }

    fn row(&self, head: usize, part: usize, i: usize) -> &[u8] {
        let start = FRONT + (head * 2 * Self::HALF + i * 2 + part) * Self::WIDTH * 2;
        &self.bytes[start..start + Self::WIDTH * 2]
    }
}

#[test]
fn rows_in_rotary_order_are_read_once_past_the_page_cache() {
    let heads = Heads::cold();
    if !is_possible(&heads.source) {
        return;
    }
    let (got, read) = read_through(&heads.rotary(), Caching::Kernel);
    let half = Heads::HALF;
    let places = (0..Heads::COUNT * 2 * half).map(|at| (at / half / 2, at / half % 2, at % half));
    let want: Vec<u8> = places
        .flat_map(|(head, part, i)| heads.row(head, part, i))
        .copied()
        .collect();
    assert!(got == want);
    assert_eq!(cached(heads.file.path()), 0);
    assert!(read < Heads::SIZE as u64 * 3 / 2, "{read} bytes");
}

/// Casts an f32 source of `dims` to bf16, cold: the bytes equal those read through the page cache, and are not left there.
/// Returns how many bytes the disk read.
fn read_cast(dims: [u64; 2], make: impl Fn(Tensor) -> Tensor) -> Option<u64> {
    let bytes = noise(FRONT + (dims[0] * dims[1] * 4) as usize);
    let (file, warm) = (cold(&bytes), cold(&bytes));
    let source = open(&file);
    if !is_possible(&source) {
        return None;
    }
    std::fs::read(warm.path()).unwrap();
    let cast = |source| {
        let made = make(stored(source, Dtype::F32, &dims));
        shown(made.cast(Dtype::BF16).unwrap())
    };
    let (got, read) = read_through(&cast(source), Caching::Kernel);
    assert!(got == read_through(&cast(open(&warm)), Caching::Kernel).0);
    assert_eq!(cached(file.path()), 0, "{dims:?}");
    assert!(cached(warm.path()) > 0);
    Some(read)
}

#[test]
fn rows_of_all_lengths_in_rotary_order_are_read_once_and_cast() {
    for width in [2 << 10, 4 << 10, 8 << 10] {
        let Some(read) = read_cast([512, width], |tensor| in_rotary_order(&tensor, 64)) else {
            return;
        };
        assert!(
            read < 512 * width * 4 * 3 / 2,
            "width {width}: {read} bytes"
        );
    }
}

/// The columns of so many ranks side by side: right, and how many bytes of all the disk was read for, in hundredths. The files.
fn read_columns(ranks: usize) -> Option<(u64, Vec<NamedTempFile>)> {
    const ROWS: usize = 2048;
    let width = 4096 / ranks;
    let noise = noise(FRONT + ROWS * width + ranks);
    let bytes: Vec<&[u8]> = (0..ranks)
        .map(|rank| &noise[rank..][..FRONT + ROWS * width])
        .collect();
    let files: Vec<NamedTempFile> = bytes.iter().map(|bytes| cold(bytes)).collect();
    let sources: Vec<_> = files.iter().map(open).collect();
    if !is_possible(&sources[0]) {
        return None;
    }
    let dims = [ROWS as u64, width as u64];
    let tensors: Vec<Tensor> = sources
        .into_iter()
        .map(|source| stored(source, Dtype::U8, &dims))
        .collect();
    let (got, read) = read_through(
        &shown(Tensor::concat(&tensors, 1).unwrap()),
        Caching::Kernel,
    );
    let row = |row: usize| {
        bytes
            .iter()
            .flat_map(move |bytes| &bytes[FRONT + row * width..][..width])
    };
    assert!(got.iter().eq((0..ROWS).flat_map(row)));
    Some((read * 100 / got.len() as u64, files))
}

#[test]
fn columns_of_two_ranks_are_read_once_past_the_page_cache() {
    let Some((hundredths, files)) = read_columns(2) else {
        return;
    };
    assert!(files.iter().all(|file| cached(file.path()) == 0));
    assert!(hundredths < 150, "{hundredths}");
}

#[test]
fn columns_of_many_ranks_are_read_ahead_by_the_kernel_and_once() {
    let Some((hundredths, files)) = read_columns(16) else {
        return;
    };
    assert!(files.iter().all(|file| cached(file.path()) > 0));
    assert!(hundredths < 120, "{hundredths}");
}

#[test]
fn short_reads_of_rows_in_rotary_order_read_little_more() {
    let heads = Heads::cold();
    if !is_possible(&heads.source) {
        return;
    }
    let (shown, before) = (heads.rotary(), read_by_thread());
    let (count, length, reader) = (40, 32 << 10, Reader::default());
    for number in 0..count {
        let offset = (number * 7 % count * Heads::SIZE / count) as u64;
        reader
            .read(&shown, offset, length, Caching::Kernel)
            .unwrap();
    }
    let read = read_by_thread() - before;
    assert!(read < 3 * (count * length) as u64, "{read} bytes");
}

#[test]
fn a_cast_past_the_page_cache_is_the_cast_of_the_same_bytes() {
    read_cast([3 << 9, 1 << 10], |tensor| tensor);
}

#[test]
fn what_the_kernel_does_not_keep_stays_in_the_page_cache() {
    let bytes = noise(FRONT + (5 << 20));
    let file = cold(&bytes);
    let tensor = stored(open(&file), Dtype::BF16, &[5 << 9, 1 << 10]);
    let (got, _) = read_through(&shown(tensor), Caching::Bypass);
    assert!(got == bytes[FRONT..]);
    assert_eq!(cached(file.path()), bytes.len().div_ceil(4096));
}

#[test]
fn a_source_that_shrank_is_an_error_past_the_page_cache_too() {
    let bytes = noise(FRONT + (5 << 20));
    let file = cold(&bytes);
    let tensor = stored(open(&file), Dtype::BF16, &[5 << 9, 1 << 10]);
    let shown = shown(tensor);
    let options = OpenOptions::new().write(true).open(file.path()).unwrap();
    options.set_len(2 << 20).unwrap();
    for offset in [0, 1 << 20, 3 << 20] {
        let result = Reader::default().read(&shown, offset, 512 << 10, Caching::Kernel);
        assert_eq!(result.unwrap_err().errno(), libc::EIO);
    }
}

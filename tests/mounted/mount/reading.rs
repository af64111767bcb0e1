//! Any offset, any length, any way of reading gives the bytes of the file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::common::mounts::*;
use crate::common::programs::Stage;
use crate::need_fuse;

const LENGTH: usize = 3 * (1 << 20) + 4321;

/// A view of a header and a source file, the bytes that it must show, and the folder of the source.
fn view() -> (View, Vec<u8>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("weights");
    let (header, body) = (noise(1003, 1), noise(LENGTH, 2));
    write(&source, &body, 0o644);
    let view = View::of(vec![
        shifted("weights", &header, &source),
        inline("empty", &[]),
    ]);
    (view, [header, body].concat(), folder)
}

/// Offsets and lengths around everything that could matter.
fn ranges(size: usize) -> Vec<(usize, usize)> {
    let offsets = [
        0,
        1,
        511,
        512,
        1002,
        1003,
        1004,
        4095,
        4096,
        65_537,
        (1 << 20) - 1,
        size - 4097,
        size - 1,
        size,
    ];
    let lengths = [0, 1, 2, 511, 4096, 131_073, 1 << 20, (1 << 20) + 1, 4 << 20];
    let pairs = offsets
        .iter()
        .flat_map(|offset| lengths.map(|length| (*offset, length)));
    pairs.collect()
}

fn check(file: &File, expected: &[u8]) {
    for (offset, length) in ranges(expected.len()) {
        let mut buffer = vec![0; length];
        let count = file.read_at(&mut buffer, offset as u64).unwrap();
        let end = expected.len().min(offset + length);
        assert!(
            buffer[..count] == expected[offset..end],
            "{offset} + {length}"
        );
    }
}

#[test]
fn buffered_reads() {
    need_fuse!();
    let (view, expected, _folder) = view();
    let file = File::open(view.path("weights")).unwrap();
    check(&file, &expected);
    assert_eq!(fs::read(view.path("weights")).unwrap(), expected);
    assert!(fs::read(view.path("empty")).unwrap().is_empty());
}

#[test]
fn direct_reads() {
    need_fuse!();
    let (view, expected, _folder) = view();
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_DIRECT | libc::O_NONBLOCK);
    check(&file.open(view.path("weights")).unwrap(), &expected);
}

#[test]
fn mapped_reads() {
    need_fuse!();
    let (view, expected, _folder) = view();
    let file = File::open(view.path("weights")).unwrap();
    // SAFETY: the source of the view changes in no test that maps it.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    for (offset, length) in ranges(expected.len()) {
        let end = expected.len().min(offset + length);
        assert!(
            map[offset..end] == expected[offset..end],
            "{offset} + {length}"
        );
    }
    assert!(map[..] == expected[..]);
}

#[test]
fn nothing_lies_behind_the_end() {
    need_fuse!();
    let (view, expected, _folder) = view();
    let file = File::open(view.path("weights")).unwrap();
    for offset in [
        expected.len() as u64,
        expected.len() as u64 + 1,
        1 << 40,
        i64::MAX as u64 - 9,
    ] {
        assert_eq!(file.read_at(&mut [0; 9], offset).unwrap(), 0, "{offset}");
    }
}

#[test]
fn seeks_know_one_extent_of_data() {
    need_fuse!();
    let (view, expected, _folder) = view();
    let mut file = File::open(view.path("weights")).unwrap();
    let size = expected.len() as u64;
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), size);
    let seek = |offset: i64, whence| {
        // SAFETY: lseek takes numbers alone.
        unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }
    };
    assert_eq!(seek(5, libc::SEEK_DATA), 5);
    assert_eq!(seek(5, libc::SEEK_HOLE), size as i64);
    assert_eq!(seek(size as i64, libc::SEEK_DATA), -1);
}

fn copied(view: &View, flags: &[&str]) -> Vec<u8> {
    let target = tempfile::tempdir().unwrap();
    let copy = target.path().join("copy");
    let mut command = Command::new("cp");
    let status = command.args(flags).arg(view.path("")).arg(&copy).status();
    assert!(status.unwrap().success(), "cp {flags:?}");
    assert!(fs::read(copy.join("empty")).unwrap().is_empty());
    fs::read(copy.join("weights")).unwrap()
}

#[test]
fn copies_are_the_files() {
    need_fuse!();
    let (view, expected, _folder) = view();
    for flags in [
        &["-r"][..],
        &["-a"],
        &["-r", "--sparse=always"],
        &["-r", "--reflink=auto"],
    ] {
        assert!(copied(&view, flags) == expected, "cp {flags:?}");
    }
}

fn fault_all_pages(path: &Path, expected: &[u8]) {
    let file = File::open(path).unwrap();
    // SAFETY: the source of the view changes in no test that maps it.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    for page in (0..expected.len()).step_by(4096).rev() {
        assert_eq!(map[page], expected[page]);
    }
}

#[test]
fn one_thread_serves_many_readers() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<_> = (0..4).map(|seed| noise(2 << 20, seed)).collect();
    let files = bytes.iter().enumerate().map(|(index, bytes)| {
        let source = folder.path().join(index.to_string());
        write(&source, bytes, 0o644);
        shifted(&index.to_string(), b"", &source)
    });
    let one = std::num::NonZeroUsize::new(1);
    let view = View::with(files.collect(), |options| options.threads = one);
    thread::scope(|scope| {
        for reader in 0..16 {
            let (path, bytes) = (view.path(&(reader % 4).to_string()), &bytes[reader % 4]);
            scope.spawn(move || fault_all_pages(&path, bytes));
        }
    });
}

#[test]
fn two_mounts_show_the_same() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("weights");
    write(&source, &noise(100_000, 3), 0o640);
    let files = || {
        vec![
            inline("a/config.json", &[b"{}"]),
            shifted("weights", b"head", &source),
        ]
    };
    let (one, other) = (View::of(files()), View::of(files()));
    for name in ["", "a", "a/config.json", "weights"] {
        use std::os::unix::fs::MetadataExt;
        let stat = |view: &View| {
            let stat = fs::metadata(view.path(name)).unwrap();
            (
                stat.ino(),
                stat.size(),
                stat.mode(),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.uid(),
            )
        };
        assert_eq!(stat(&one), stat(&other), "{name}");
    }
    let mut bytes = Vec::new();
    File::open(other.path("weights"))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(fs::read(one.path("weights")).unwrap(), bytes);
}

#[test]
fn a_sparse_file_of_any_size_is_served() {
    need_fuse!();
    const SIZE: u64 = 1 << 57;
    // Filesystems on disks have no files of such a size.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let stage = Stage::new();
    let entry = format!(r#"{{"dtype":"U8","shape":[{SIZE}],"data_offsets":[0,{SIZE}]}}"#);
    let header = format!(r#"{{"w":{entry}}}"#);
    let front = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let weights = File::create(folder.path().join("model.safetensors")).unwrap();
    weights.write_all_at(&front, 0).unwrap();
    weights.set_len(front.len() as u64 + SIZE).unwrap();
    weights
        .write_all_at(b"end", front.len() as u64 + SIZE - 3)
        .unwrap();
    fs::write(
        folder.path().join("config.json"),
        r#"{"model_type":"free"}"#,
    )
    .unwrap();
    fs::remove_dir_all(stage.source()).unwrap();
    std::os::unix::fs::symlink(folder.path(), stage.source()).unwrap();
    let program = stage.mount();
    let shown = File::open(stage.weights()).unwrap();
    let end = shown.metadata().unwrap().len();
    for start in [end - SIZE, end / 2, end - 8192] {
        let mut buffer = vec![1; 8192];
        shown.read_exact_at(&mut buffer, start).unwrap();
        let zeros = buffer.strip_suffix(b"end").unwrap_or(&buffer);
        assert!(zeros.iter().all(|byte| *byte == 0), "at {start}");
        assert_eq!(zeros.len() < buffer.len(), start + 8192 == end);
    }
    drop(shown);
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

//! Sources that change while readers loop: every read is old bytes or EIO, never a mixture.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ckptfs::read::{ReadFile, Reader};
use ckptfs::source::Caching;

use crate::common::mounts::*;
use crate::common::programs::*;
use crate::need_fuse;

const SIZE: usize = 4 << 20;
const BLOCK: usize = 64 << 10;
/// As much as is read past the page cache at once.
const PART: usize = SIZE / 2 - BLOCK;

/// Outcomes of reads, counted by readers that read in a loop.
#[derive(Default)]
struct Seen {
    old: AtomicUsize,
    refused: AtomicUsize,
}

/// Reads blocks until `stop`, half of them past the page cache.
fn read_on(path: &Path, bytes: &[u8], flags: i32, stop: &AtomicBool, seen: &Seen) {
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .unwrap();
    let mut buffer = vec![0; BLOCK];
    for block in (0..SIZE / BLOCK).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let start = block * BLOCK;
        match file.read_exact_at(&mut buffer, start as u64) {
            Ok(()) => {
                assert!(
                    buffer == bytes[start..start + BLOCK],
                    "a mixture at {start}"
                );
                seen.old.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Reads after a change that must all succeed before it counts as none: each block once, by each of four readers.
const UNREFUSED: usize = 4 * SIZE / BLOCK;

impl Seen {
    fn counts(&self) -> [usize; 2] {
        [&self.old, &self.refused].map(|count| count.load(Ordering::Relaxed))
    }

    /// Waits until readers have met a change, or have read so much since that there was none.
    fn wait_for(&self, before: [usize; 2]) -> bool {
        within(|| {
            let [old, refused] = self.counts();
            let is_refused = refused > before[1];
            (is_refused || old > before[0] + UNREFUSED).then_some(is_refused)
        })
    }
}

/// Readers of a changing and of an untouched source while `change` happens. Whether the changed one was refused after.
fn under_readers(change: impl FnOnce(&Path)) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (changing, steady) = (folder.path().join("changing"), folder.path().join("steady"));
    let bytes = noise(SIZE, 21);
    write(&changing, &bytes, 0o644);
    write(&steady, &bytes, 0o644);
    let view = View::of(vec![
        shifted("changing", b"", &changing),
        shifted("steady", b"", &steady),
    ]);
    let (stop, seen, other) = (AtomicBool::new(false), Seen::default(), Seen::default());
    let is_refused = thread::scope(|scope| {
        for flags in [0, 0, libc::O_DIRECT, libc::O_DIRECT] {
            for (name, seen) in [("changing", &seen), ("steady", &other)] {
                let (path, bytes, stop) = (view.path(name), &bytes, &stop);
                scope.spawn(move || read_on(&path, bytes, flags, stop, seen));
            }
        }
        let have_read = || [&seen, &other].iter().all(|seen| seen.counts()[0] > 0);
        within(|| have_read().then_some(()));
        change(&changing);
        let (before, steady) = (seen.counts(), other.counts()[0]);
        let is_refused = seen.wait_for(before);
        within(|| (other.counts()[0] > steady).then_some(()));
        stop.store(true, Ordering::Relaxed);
        is_refused
    });
    assert_eq!(other.refused.into_inner(), 0);
    view.unmount().unwrap();
    is_refused
}

#[test]
fn truncated() {
    need_fuse!();
    let cut = |path: &Path| {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(SIZE as u64 / 2)
            .unwrap()
    };
    assert!(under_readers(cut));
}

#[test]
fn truncated_and_written_again() {
    need_fuse!();
    assert!(under_readers(
        |path| fs::write(path, noise(SIZE, 22)).unwrap()
    ));
}

#[test]
fn rewritten_in_place_with_the_same_size() {
    need_fuse!();
    let rewrite = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&noise(SIZE, 23), 0).unwrap();
    };
    assert!(under_readers(rewrite));
}

#[test]
fn renamed_over() {
    need_fuse!();
    let replace = |path: &Path| {
        let new = path.with_extension("new");
        fs::write(&new, noise(SIZE, 24)).unwrap();
        fs::rename(new, path).unwrap();
    };
    assert!(!under_readers(replace));
}

#[test]
fn deleted() {
    need_fuse!();
    assert!(!under_readers(|path| fs::remove_file(path).unwrap()));
}

#[test]
fn permissions_taken_away() {
    need_fuse!();
    assert!(!under_readers(|path| fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o0)
    )
    .unwrap()));
}

/// Writes other bytes and sets the time back that tells of it.
fn write_unseen(path: &Path, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(bytes, 9000).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn a_change_of_mode_or_links_excuses_no_later_change() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("weights");
    let chmod = |mode| fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
    let excuses: [&dyn Fn(); 2] = [&|| chmod(0o600), &|| {
        fs::hard_link(&source, folder.path().join("link")).unwrap()
    }];
    for excuse in excuses {
        write(&source, &noise(SIZE, 26), 0o644);
        let file = ckptfs::source::SourceFile::open(&source).unwrap();
        let read = || file.read_exact_at(&mut [0; 8], 9000);
        // Times of files are as coarse as the kernel's clock.
        let tick = || thread::sleep(Duration::from_millis(20));
        tick();
        excuse();
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| read().unwrap()))));
        tick();
        write_unseen(&source, b"othermix");
        let error = read().unwrap_err().to_string();
        assert!(error.contains("(change time)"), "{error}");
        tick();
        chmod(0o640);
        assert!(read().is_err(), "excused what was doubtful already");
    }
}

#[test]
fn appended() {
    need_fuse!();
    use std::io::Write;
    let append = |path: &Path| {
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .write_all(b"more")
            .unwrap()
    };
    assert!(under_readers(append));
}

#[test]
fn a_read_that_a_write_overtakes_is_old_or_an_error() {
    let (old, new) = (noise(SIZE, 25), noise(SIZE, 26));
    let folder = tempfile::tempdir().unwrap();
    // A cold source is read past the page cache, which the writes go through.
    for is_cold in [false, true] {
        let mut whole = 0;
        for round in 0..60 {
            let source = folder.path().join(round.to_string());
            write(&source, &old, 0o644);
            let rewritten = File::options().write(true).open(&source).unwrap();
            if is_cold {
                rewritten.sync_all().unwrap();
                // SAFETY: posix_fadvise takes a descriptor and numbers.
                unsafe {
                    libc::posix_fadvise(rewritten.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
                };
            }
            let file = shifted("weights", b"", &source);
            // Times of files are as coarse as the kernel's clock.
            thread::sleep(Duration::from_millis(5));
            let has_read = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    // On a busy machine the first read may begin late.
                    let waits = round % 4 == 0;
                    within(|| (!waits || has_read.load(Ordering::Relaxed)).then_some(()));
                    thread::sleep(Duration::from_micros(50 * round));
                    rewritten.write_all_at(&new, 0).unwrap();
                    rewritten.sync_data().unwrap();
                });
                let reader = Reader::default();
                while let Ok(bytes) = reader.read(&file, 0, PART, Caching::Kernel) {
                    assert!(*bytes == old[..PART], "a mixture in round {round}");
                    has_read.store(true, Ordering::Relaxed);
                    whole += 1;
                }
            });
            fs::remove_file(&source).unwrap();
        }
        assert!(whole > 0, "no read came before a write");
    }
}

#[test]
fn a_changed_source_is_logged_in_few_lines() {
    need_fuse!();
    let stage = Stage::new();
    let program = stage.mount();
    let source = stage.source().join("model.safetensors");
    File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .write_all_at(b"other", 5_000_000)
        .unwrap();
    let reader = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(stage.weights())
        .unwrap();
    let read = |block: u64| {
        reader
            .read_at(&mut [0; 4096], block * 4096)
            .map_err(|error| error.raw_os_error())
    };
    assert!((0..500).all(|block| read(block) == Err(Some(libc::EIO))));
    drop(reader);
    program.signal(libc::SIGTERM);
    let (status, said) = program.wait();
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("model.safetensors") && said.contains("changed since it was mounted"),
        "{said}"
    );
    assert!((2..=12).contains(&said.lines().count()), "{said}");
}

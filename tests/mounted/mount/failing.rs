//! A request that fails answers an error, and nothing else happens.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ckptfs::error::{Error, Result};
use ckptfs::output::VirtualFile;
use ckptfs::read::{ReadFile, Reader, Reply};
use ckptfs::source::Caching;

use crate::common::mounts::*;
use crate::need_fuse;

/// Fails in a way that the path of the file names, else reads.
#[derive(Debug, Default)]
struct Faulty(Reader);

impl ReadFile for Faulty {
    fn read(&self, file: &VirtualFile, at: u64, size: usize, caching: Caching) -> Result<Reply> {
        let system = |errno| {
            Err(Error::io(
                file.path().as_ref(),
                io::Error::from_raw_os_error(errno),
            ))
        };
        match file.path() {
            "panics" => panic!("on purpose"),
            "short" => self.0.read(file, at, size / 2, caching),
            "stale" => system(libc::ESTALE),
            "descriptors" => system(libc::EMFILE),
            "memory" => system(libc::ENOMEM),
            _ => self.0.read(file, at, size, caching),
        }
    }
}

#[test]
fn errors_panics_and_short_reads_answer_an_errno() {
    need_fuse!();
    let bytes = noise(300_000, 4);
    let faults = [
        ("panics", libc::EIO),
        ("short", libc::EIO),
        ("stale", libc::EIO),
        ("descriptors", libc::EMFILE),
        ("memory", libc::ENOMEM),
    ];
    let names = faults.iter().map(|(name, _)| *name).chain(["good"]);
    let files = names.map(|name| inline(name, &[&bytes])).collect();
    let view = View::with(files, |options| {
        options.reader = Arc::new(Faulty::default())
    });
    for (name, errno) in faults {
        for _ in 0..20 {
            let error = fs::read(view.path(name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno), "{name}");
        }
        assert_eq!(
            fs::metadata(view.path(name)).unwrap().len(),
            300_000,
            "{name}"
        );
        assert!(fs::read(view.path("good")).unwrap() == bytes);
    }
    view.unmount().unwrap();
}

#[test]
fn a_truncated_source_fails_alone() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    let (cut, whole) = (folder.path().join("cut"), folder.path().join("whole"));
    let bytes = noise(4 << 20, 5);
    write(&cut, &bytes, 0o644);
    write(&whole, &bytes, 0o644);
    let view = View::of(vec![
        shifted("cut", b"head", &cut),
        shifted("whole", b"", &whole),
    ]);
    let file = File::open(view.path("cut")).unwrap();
    file.read_exact_at(&mut [0; 100], 0).unwrap();
    File::options()
        .write(true)
        .open(&cut)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    for offset in [2 << 20, (1 << 20) - 100, 3 << 20] {
        let error = file.read_at(&mut [0; 4096], offset).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{offset}");
    }
    assert_eq!(fs::metadata(view.path("cut")).unwrap().len(), (4 << 20) + 4);
    assert!(fs::read(view.path("whole")).unwrap() == bytes);
    drop(file);
    view.unmount().unwrap();
}

#[test]
fn a_replaced_or_deleted_source_goes_on() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    let (deleted, replaced) = (
        folder.path().join("deleted"),
        folder.path().join("replaced"),
    );
    let bytes = noise(1 << 20, 6);
    write(&deleted, &bytes, 0o644);
    write(&replaced, &bytes, 0o644);
    let view = View::of(vec![
        shifted("deleted", b"", &deleted),
        shifted("replaced", b"", &replaced),
    ]);
    fs::remove_file(&deleted).unwrap();
    write(&folder.path().join("new"), &noise(1 << 20, 7), 0o644);
    fs::rename(folder.path().join("new"), &replaced).unwrap();
    assert!(fs::read(view.path("deleted")).unwrap() == bytes);
    assert!(fs::read(view.path("replaced")).unwrap() == bytes);
}

/// Waits with files of one name until it is told not to.
#[derive(Debug)]
struct Slow(Reader, Arc<AtomicBool>);

impl ReadFile for Slow {
    fn read(&self, file: &VirtualFile, at: u64, size: usize, caching: Caching) -> Result<Reply> {
        while self.1.load(Ordering::Relaxed) && file.path() == "slow" {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.read(file, at, size, caching)
    }
}

#[test]
fn a_read_that_waits_holds_up_no_other_and_ends_before_the_mount_does() {
    need_fuse!();
    let files = vec![inline("slow", &[b"slow"]), inline("quick", &[b"quick"])];
    let is_slow = Arc::new(AtomicBool::new(true));
    let reader = Arc::new(Slow(Reader::default(), is_slow.clone()));
    let view = View::with(files, |options| options.reader = reader);
    let path = view.path("slow");
    let reader = std::thread::spawn(move || fs::read(path).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fs::read(view.path("quick")).unwrap(), b"quick");
    let unmounting = std::thread::spawn(move || view.unmount());
    std::thread::sleep(Duration::from_millis(50));
    is_slow.store(false, Ordering::Relaxed);
    assert_eq!(reader.join().unwrap(), b"slow");
    unmounting.join().unwrap().unwrap();
}

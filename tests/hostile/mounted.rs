//! Changes to sources, readers and the daemon while a view is mounted.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, symlink};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use ckptfs::output::VirtualFile;
use ckptfs::read::{ReadFile, Reply};
use ckptfs::source::Caching;

use super::make::tensors::named;
use crate::common::mounts::*;
use crate::common::programs::*;
use crate::need_fuse;

/// A view of one file, and the folder of its source.
struct Shown {
    view: View,
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Shown {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, bytes) = (folder.path().join("weights"), noise(1 << 20, 79));
        write(&source, &bytes, 0o644);
        let files = vec![
            shifted("weights", b"head", &source),
            inline("other", &[b"other"]),
        ];
        Self {
            view: View::of(files),
            folder,
            bytes,
        }
    }

    fn source(&self) -> std::path::PathBuf {
        self.folder.path().join("weights")
    }

    /// Reads the view past all caches.
    fn read(&self, offset: u64) -> Result<Vec<u8>, Option<i32>> {
        let mut buffer = vec![0; 4096];
        let count = direct(&self.view.path("weights")).read_at(&mut buffer, offset);
        let count = count.map_err(|error| error.raw_os_error())?;
        Ok(buffer[..count].to_vec())
    }

    fn check_old_bytes(&self) {
        assert_eq!(self.read(4 + 8192).unwrap(), self.bytes[8192..8192 + 4096]);
    }

    fn check_refused(&self) {
        for offset in [0, 8192, (1 << 20) - 4000] {
            assert_eq!(self.read(offset), Err(Some(libc::EIO)), "at {offset}");
        }
        assert_eq!(
            fs::metadata(self.view.path("weights")).unwrap().len(),
            (1 << 20) + 4
        );
        assert_eq!(fs::read(self.view.path("other")).unwrap(), b"other");
    }
}

fn complains(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let said = complaint(output);
    assert!(said.contains(words), "{said}");
}

cases! {
    79 a_source_that_is_truncated, "EIO, never a short answer; the program and the other files live" => {
        need_fuse!();
        let shown = Shown::new();
        File::options().write(true).open(shown.source()).unwrap().set_len(100_000).unwrap();
        shown.check_refused();
        File::options().write(true).open(shown.source()).unwrap().set_len(0).unwrap();
        shown.check_refused();
    }

    80 a_source_that_is_replaced, "the old bytes, from the file that was mounted" => {
        need_fuse!();
        let shown = Shown::new();
        let new = shown.folder.path().join("new");
        write(&new, &noise(1 << 20, 80), 0o644);
        fs::rename(new, shown.source()).unwrap();
        shown.check_old_bytes();
    }

    81 a_source_that_is_deleted, "the old bytes" => {
        need_fuse!();
        let shown = Shown::new();
        fs::remove_file(shown.source()).unwrap();
        shown.check_old_bytes();
    }

    82 a_source_that_is_overwritten, "EIO from the next read on, whatever its size; cached pages stay the old ones" => {
        need_fuse!();
        let shown = Shown::new();
        shown.check_old_bytes();
        File::options().write(true).open(shown.source()).unwrap().write_all_at(b"other", 9000).unwrap();
        shown.check_refused();
    }

    83 a_disk_that_fails, "an errno of its own each, in tests/mounted/faults.rs: EIO, ESTALE, short reads, delays" => {
        need_fuse!();
        #[derive(Debug)]
        struct Broken;
        impl ReadFile for Broken {
            fn read(&self, file: &VirtualFile, _: u64, _: usize, _: Caching) -> ckptfs::error::Result<Reply> {
                Err(ckptfs::error::Error::io(file.path().as_ref(), std::io::Error::from_raw_os_error(libc::EREMOTEIO)))
            }
        }
        let view = View::with(vec![inline("file", &[&[1; 10_000]])], |options| options.reader = Arc::new(Broken));
        let error = fs::read(view.path("file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }

    84 a_program_that_is_killed, "ENOTCONN for its readers; the next start clears the place, and says so" => {
        need_fuse!();
        let stage = Stage::new();
        let program = stage.mount();
        let file = File::open(stage.weights()).unwrap();
        program.signal(libc::SIGKILL);
        program.wait();
        assert_eq!(direct_error(&file), Some(libc::ENOTCONN));
        let again = stage.run(&["mount", "source", "point", "--daemon"]);
        assert_eq!(again.status.code(), Some(0), "{again:?}");
        assert!(String::from_utf8_lossy(&again.stderr).contains("process died was left here and is taken away"));
        assert!(fs::metadata(stage.weights()).is_ok());
        assert_eq!(stage.run(&["umount", "--lazy", "point"]).status.code(), Some(0));
    }

    85 a_program_with_little_memory, "works within 256 MB of addresses, whatever is read" => {
        need_fuse!();
        let stage = Stage::new();
        let mut limited = Command::new("prlimit");
        limited.args([&format!("--as={}", 256 << 20), env!("CARGO_BIN_EXE_ckptfs")]);
        let (program, source) = (stage.mount_by(limited), stage.source().join("model.safetensors"));
        assert!(fs::read(stage.weights()).unwrap() == fs::read(source).unwrap());
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait().0, Some(0));
    }

    86 more_shards_than_descriptors, "served through a pool of descriptors, in tests/mounted/limits.rs with ten thousand" => {
        need_fuse!();
        let stage = Stage::new();
        let source = stage.other("shards");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("config.json"), r#"{"model_type":"free"}"#).unwrap();
        for shard in 0..100 {
            let name = format!("model-{:05}-of-00100.safetensors", shard + 1);
            fs::write(source.join(name), named(&[&format!("t{shard}")])).unwrap();
        }
        let mut limited = Command::new("prlimit");
        limited.args(["--nofile=40:40", env!("CARGO_BIN_EXE_ckptfs"), "inspect", "shards"]);
        let output = limited.current_dir(stage.other("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    87 a_thousand_readers, "all served, by one thread too" => {
        need_fuse!();
        let folder = tempfile::tempdir().unwrap();
        let (source, bytes) = (folder.path().join("weights"), noise(4 << 20, 87));
        write(&source, &bytes, 0o644);
        for threads in [1, 4] {
            let view = View::with(vec![shifted("weights", b"", &source)], |options| options.threads = NonZeroUsize::new(threads));
            let (path, bytes) = (view.path("weights"), &bytes);
            thread::scope(|scope| {
                for reader in 0..1000_usize {
                    let path = &path;
                    let read = move || {
                        let (mut buffer, offset) = ([0; 4096], reader * 4096);
                        File::open(path).unwrap().read_exact_at(&mut buffer, offset as u64).unwrap();
                        assert!(buffer == bytes[offset..offset + 4096]);
                    };
                    thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, read).unwrap();
                }
            });
        }
    }

    88 a_view_as_its_own_source, "refused; a view of a view is shown" => {
        need_fuse!();
        let stage = Stage::new();
        let program = stage.mount();
        fs::create_dir(stage.other("second")).unwrap();
        complains(&stage.run(&["mount", "point", "point"]), 3, "a view is mounted here already");
        complains(&stage.run(&["mount", "source", "source"]), 3, "the source itself");
        let second = stage.run(&["mount", "--daemon", "point", "second"]);
        assert_eq!(second.status.code(), Some(0), "{second:?}");
        assert!(fs::read(stage.other("second/model.safetensors")).unwrap() == fs::read(stage.weights()).unwrap());
        assert_eq!(stage.run(&["umount", "second"]).status.code(), Some(0));
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait().0, Some(0));
    }

    89 places_that_cannot_be_mounted_on, "refused with what to do" => {
        need_fuse!();
        let stage = Stage::new();
        fs::create_dir_all(stage.other("full/x")).unwrap();
        symlink("point", stage.other("link")).unwrap();
        let refused = |point: &str, words: &str| complains(&stage.run(&["mount", "source", point]), 3, words);
        refused("full", "not empty");
        refused("link", "symbolic link");
        refused(".", "would be hidden");
        refused("source/model.safetensors", "no directory");
        refused("missing", "mkdir");
        let program = stage.mount();
        refused("point", "a view is mounted here already");
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait().0, Some(0));
    }

    90 an_end_with_readers_inside, "their open files are served for a grace; a warning tells when that was not enough" => {
        need_fuse!();
        let stage = Stage::new();
        let program = stage.mount();
        let file = File::open(stage.weights()).unwrap();
        program.signal(libc::SIGTERM);
        within(|| (!stage.is_mounted()).then_some(()));
        file.read_exact_at(&mut [0; 4096], 4096).unwrap();
        let (status, said) = program.wait();
        assert!(status == Some(0) && said.contains("was still in use"), "{said}");
    }
}

/// A file opened so that no read is answered from the page cache.
fn direct(path: &std::path::Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .unwrap()
}

/// The errno of a read of pages that were never read.
fn direct_error(file: &File) -> Option<i32> {
    let end = file.metadata().map_or(8 << 20, |stat| stat.len());
    file.read_at(&mut [0; 4096], end / 2)
        .unwrap_err()
        .raw_os_error()
}

//! Other users, odd calls and places without FUSE.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::mounts::*;
use crate::common::programs::*;
use crate::{need_fuse, need_root};

const STRANGER: u32 = 65_534;

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Runs `cat` as a user who owns nothing, and returns its message.
fn stranger_reads(path: &Path) -> Output {
    Command::new("cat")
        .arg(path)
        .uid(STRANGER)
        .gid(STRANGER)
        .output()
        .unwrap()
}

/// `script` in a mount namespace of its own, where it may hide what it likes.
fn apart(stage: &Stage, script: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_ckptfs");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", program]);
    command.current_dir(stage.other("")).output().unwrap()
}

cases! {
    91 a_reader_who_is_another_user, "EACCES by the kernel" => {
        need_fuse!();
        need_root!();
        let view = View::of(vec![inline("file", &[b"x"])]);
        let output = stranger_reads(&view.path("file"));
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("denied"), "{output:?}");
    }

    92 a_user_who_would_let_others_in, "refused with the line that root has to add" => {
        need_fuse!();
        need_root!();
        let configuration = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        let allowed = configuration.lines().any(|line| line.trim() == "user_allow_other");
        let stage = Stage::new();
        fs::set_permissions(stage.other(""), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(stage.copy_of_program());
        command.args(["mount", "--allow-other", "source", "point"]);
        let output = command.current_dir(stage.other("")).uid(STRANGER).gid(STRANGER).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = complaint(&output);
        // Without rights to the device or a helper there is an earlier reason.
        let words = ["user_allow_other", "/dev/fuse", "fusermount3"];
        assert!(allowed || words.iter().any(|word| said.contains(word)), "{said}");
    }

    93 private_weights_shown_to_all, "only their owner reads them, --allow-other or not" => {
        need_fuse!();
        need_root!();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        write(&folder.path().join("private"), b"x", 0o600);
        write(&folder.path().join("public"), b"x", 0o644);
        let file = |name: &str| shifted(name, b"", &folder.path().join(name));
        // Files stand apart: a directory is as private as the most private file in it.
        let view = View::with(vec![file("public")], |options| options.allow_other = true);
        assert!(stranger_reads(&view.path("public")).status.success());
        let view = View::with(vec![file("private")], |options| options.allow_other = true);
        assert!(!stranger_reads(&view.path("private")).status.success());
        assert_eq!(fs::metadata(view.path("private")).unwrap().mode() & 0o7777, 0o600);
    }

    94 modes_that_would_run_or_rule, "masked; the mount is nosuid, nodev and noexec" => {
        need_fuse!();
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("x"), b"#!/bin/sh\n", 0o7777);
        let view = View::of(vec![shifted("x", b"", &folder.path().join("x"))]);
        assert_eq!(fs::metadata(view.path("x")).unwrap().mode() & 0o7777, 0o644);
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let point = view.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        let line = table.lines().find(|line| line.contains(&point)).unwrap();
        assert!(["nosuid", "nodev", "noexec", "ro,"].iter().all(|option| line.contains(option)), "{line}");
    }

    95 anything_that_writes, "EROFS, or EACCES for a shared writable map; in tests/mounted/mount.rs call by call" => {
        need_fuse!();
        let view = View::of(vec![inline("file", &[b"x"]), inline("folder/file", &[b"x"])]);
        let (file, new) = (view.path("file"), view.path("new"));
        for result in [
            errno(OpenOptions::new().read(true).write(true).open(&file)),
            errno(File::create(&new)),
            errno(fs::create_dir(&new)),
            errno(fs::rename(&file, &new)),
            errno(fs::remove_file(&file)),
            errno(fs::hard_link(&file, &new)),
            errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o777))),
        ] {
            assert_eq!(result, Some(libc::EROFS));
        }
        let file = File::open(file).unwrap();
        // SAFETY: the map is only asked for.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), 1, libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_eq!((map, io::Error::last_os_error().raw_os_error()), (libc::MAP_FAILED, Some(libc::EACCES)));
    }

    96 odd_offsets_and_lengths, "what the file has there, up to its end; nothing behind it" => {
        need_fuse!();
        let bytes = noise(100_003, 96);
        let view = View::of(vec![inline("file", &[&bytes])]);
        for flags in [0, libc::O_DIRECT] {
            let file = OpenOptions::new().read(true).custom_flags(flags).open(view.path("file")).unwrap();
            for (offset, length) in [(0, 512), (1, 100), (511, 513), (99_999, 4096), (100_002, 1), (100_003, 1), (1 << 40, 9)] {
                let mut buffer = vec![0; length];
                let count = file.read_at(&mut buffer, offset).unwrap();
                let start = bytes.len().min(offset as usize);
                assert!(buffer[..count] == bytes[start..bytes.len().min(start + length)], "{offset} + {length}");
            }
            assert_eq!(file.read_at(&mut [0; 9], i64::MAX as u64 - 9).unwrap(), 0);
            assert_eq!(errno(file.read_at(&mut [0; 9], u64::MAX)), Some(libc::EINVAL));
        }
    }

    97 names_that_cannot_be, "ENAMETOOLONG or ENOENT" => {
        need_fuse!();
        let view = View::of(vec![inline("folder/file", &[b"x"])]);
        let find = |name: &[u8]| errno(fs::metadata(view.path("folder").join(OsStr::from_bytes(name))));
        assert_eq!(find(&[b'x'; 300]), Some(libc::ENAMETOOLONG));
        for name in [&b"x"[..], b"\xff\xfe", b"file ", "\u{202e}".as_bytes(), b"\\", b"*"] {
            assert_eq!(find(name), Some(libc::ENOENT), "{name:?}");
        }
        assert_eq!(find(b"file/x"), Some(libc::ENOTDIR));
        assert_eq!(find(b"../folder/file"), None);
    }

    98 listings_through_a_small_buffer, "every name once, and again from any place that telldir gave" => {
        need_fuse!();
        let names: Vec<String> = (0..10_000).map(|index| format!("shard-{index:05}")).collect();
        let view = View::of(names.iter().map(|name| inline(name, &[b"x"])).collect());
        let folder = Folder::open(&view.path(""));
        let (all, places): (Vec<_>, Vec<_>) = std::iter::from_fn(|| folder.next()).unzip();
        assert_eq!(all.len(), names.len() + 2);
        for at in [0, 1, 77, 5000, 9999] {
            folder.seek(places[at]);
            assert_eq!(folder.next().unwrap().0, all[at], "entry {at}");
        }
        let file = File::open(view.path("")).unwrap();
        assert_eq!(entries_in_small_pieces(&file), names.len() + 2);
    }

    99 a_container_without_fuse, "refused with the options that the container needs" => {
        need_root!();
        let stage = Stage::new();
        let without = apart(&stage, "mount -t tmpfs none /dev && exec \"$1\" mount source point");
        assert_eq!(without.status.code(), Some(3), "{without:?}");
        let said = complaint(&without);
        assert!(said.contains("/dev/fuse: is missing") && said.contains("--device /dev/fuse --cap-add SYS_ADMIN"), "{said}");
        let inside = apart(&stage, "mount -t tmpfs none /dev && exec \"$1\" inspect source");
        assert_eq!(inside.status.code(), Some(0), "inspect needs no FUSE: {inside:?}");
    }

    100 other_mounts_of_a_view, "bind mounts and the lower side of an overlay show the same bytes" => {
        need_fuse!();
        need_root!();
        let stage = Stage::new();
        let program = stage.mount();
        let script = "mkdir bound upper work merged && mount --bind point bound && cmp bound/model.safetensors source/model.safetensors \
            && mount -t tmpfs none upper && mkdir upper/u upper/w \
            && { mount -t overlay none merged -o lowerdir=point,upperdir=upper/u,workdir=upper/w || { echo no overlay; exit 0; }; } \
            && echo x > merged/new && cmp merged/model.safetensors source/model.safetensors && ! test -e point/new";
        let output = apart(&stage, script);
        assert!(output.status.success(), "{output:?}");
        program.signal(libc::SIGTERM);
        assert_eq!(program.wait().0, Some(0));
    }
}

/// A directory as readdir(3) lists it.
struct Folder(*mut libc::DIR);

impl Folder {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: `path` ends in a zero byte and outlives the call.
        let folder = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!folder.is_null());
        Self(folder)
    }

    /// The next name, and the place before it.
    fn next(&self) -> Option<(CString, libc::c_long)> {
        // SAFETY: the stream is open, and the entry is copied before the next call.
        unsafe {
            let place = libc::telldir(self.0);
            let entry = libc::readdir(self.0).as_ref()?;
            Some((CStr::from_ptr(entry.d_name.as_ptr()).to_owned(), place))
        }
    }

    fn seek(&self, place: libc::c_long) {
        // SAFETY: the stream is open and `place` is one that it gave.
        unsafe { libc::seekdir(self.0, place) }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and used no more.
        unsafe { libc::closedir(self.0) };
    }
}

/// Counts the entries of getdents64 when each call has room for two.
fn entries_in_small_pieces(folder: &File) -> usize {
    let (mut buffer, mut count) = ([0_u8; 80], 0);
    loop {
        let (pointer, size) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the kernel writes at most `size` bytes to `pointer`.
        let filled =
            unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), pointer, size) };
        let Some(mut rest) = usize::try_from(filled)
            .ok()
            .and_then(|filled| buffer.get(..filled))
        else {
            panic!("{}", io::Error::last_os_error());
        };
        if rest.is_empty() {
            return count;
        }
        while let Some(length) = rest.get(16..18) {
            count += 1;
            rest = &rest[usize::from(u16::from_le_bytes([length[0], length[1]]))..];
        }
    }
}

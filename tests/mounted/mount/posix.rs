//! The calls of pjdfstest on a read-only filesystem. The suite itself makes its files on the filesystem that it
//! tests, which this one refuses.

use std::ffi::{CString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;

use crate::common::mounts::*;
use crate::need_fuse;

/// A call on a file, a folder and a name that nothing has; -1 is its failure.
type Call = fn(*const c_char, *const c_char, *const c_char) -> i32;

/// Rows of a name and a call on some of `file`, `folder` and `new`.
macro_rules! calls {
    ($($name:literal: |$file:pat_param, $folder:pat_param, $new:pat_param| $call:expr;)*) => {
        &[$(($name, |$file, $folder, $new| {
            // SAFETY: every pointer is null or to a string that ends in a zero byte and outlives the call.
            unsafe { $call }
        })),*]
    };
}

const HERE: i32 = libc::AT_FDCWD;

const WRITES: &[(&str, Call)] = calls! {
    "chmod/09": |file, _, _| libc::chmod(file, 0);
    "chmod/09, fchmodat": |file, _, _| libc::fchmodat(HERE, file, 0o7777, 0);
    "chmod/09, of a folder": |_, folder, _| libc::chmod(folder, 0o777);
    "chown/09": |file, _, _| libc::chown(file, 1, 1);
    "chown/09, lchown": |file, _, _| libc::lchown(file, 1, 1);
    "link/16": |file, _, new| libc::link(file, new);
    "mkdir/09": |_, _, new| libc::mkdir(new, 0o755);
    "mkfifo/08": |_, _, new| libc::mkfifo(new, 0o644);
    "mknod/08": |_, _, new| libc::mknod(new, libc::S_IFREG | 0o644, 0);
    "mknod/08, a device": |_, _, new| libc::mknod(new, libc::S_IFCHR | 0o644, libc::makedev(1, 3));
    "open/14, O_WRONLY": |file, _, _| libc::open(file, libc::O_WRONLY);
    "open/14, O_RDWR": |file, _, _| libc::open(file, libc::O_RDWR);
    "open/14, O_RDONLY | O_TRUNC": |file, _, _| libc::open(file, libc::O_RDONLY | libc::O_TRUNC);
    "open/14, O_APPEND": |file, _, _| libc::open(file, libc::O_WRONLY | libc::O_APPEND);
    "open/15": |_, _, new| libc::open(new, libc::O_RDONLY | libc::O_CREAT, 0o644);
    "open/15, O_EXCL": |_, _, new| libc::open(new, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o644);
    "open/15, O_TMPFILE": |_, folder, _| libc::open(folder, libc::O_RDWR | libc::O_TMPFILE, 0o644);
    "open/15, creat": |_, _, new| libc::creat(new, 0o644);
    "rename/16": |file, _, new| libc::rename(file, new);
    "rename/16, of a folder": |_, folder, new| libc::rename(folder, new);
    "rmdir/14": |_, folder, _| libc::rmdir(folder);
    "symlink/10": |_, _, new| libc::symlink(c"target".as_ptr(), new);
    "truncate/10": |file, _, _| libc::truncate(file, 0);
    "truncate/10, to more": |file, _, _| libc::truncate(file, 1 << 40);
    "unlink/12": |file, _, _| libc::unlink(file);
    "utimensat": |file, _, _| libc::utimensat(HERE, file, null(), 0);
    "utimes": |file, _, _| libc::utimes(file, null());
    "setxattr": |file, _, _| libc::setxattr(file, c"user.x".as_ptr(), c"y".as_ptr().cast(), 1, 0);
    "lsetxattr": |file, _, _| libc::lsetxattr(file, c"user.x".as_ptr(), c"y".as_ptr().cast(), 1, 0);
    "removexattr": |file, _, _| libc::removexattr(file, c"user.x".as_ptr());
    "access": |file, _, _| libc::access(file, libc::W_OK);
};

/// Errors that have nothing to do with writing stay what they are.
const ENOENT: &[(&str, Call)] = calls! {
    "open/06": |_, _, new| libc::open(new, libc::O_RDONLY);
    "chmod/04": |_, _, new| libc::chmod(new, 0o644);
    "truncate/04": |_, _, new| libc::truncate(new, 0);
};
const EEXIST: &[(&str, Call)] = calls! {
    "mkdir/10": |_, folder, _| libc::mkdir(folder, 0o755);
    "symlink/08": |file, _, _| libc::symlink(c"target".as_ptr(), file);
};
const ENOTDIR: &[(&str, Call)] = calls! {
    "open, O_DIRECTORY": |file, _, _| libc::open(file, libc::O_RDONLY | libc::O_DIRECTORY);
};
const EFAULT: &[(&str, Call)] = calls! {
    "open/21": |_, _, _| libc::open(null(), libc::O_RDONLY);
};

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// The errno of `call` on a view.
fn errno(view: &View, call: Call) -> i32 {
    let [file, folder, new] = ["file", "folder", "new"].map(|name| c_path(&view.path(name)));
    let status = call(file.as_ptr(), folder.as_ptr(), new.as_ptr());
    let errno = io::Error::last_os_error().raw_os_error().unwrap();
    assert_eq!(status, -1);
    errno
}

fn view() -> View {
    View::of(vec![
        inline("file", &[b"0123456789"]),
        inline("folder/file", &[b"x"]),
    ])
}

#[test]
fn every_call_that_writes_gives_erofs() {
    need_fuse!();
    let view = view();
    for (name, call) in WRITES {
        assert_eq!(errno(&view, *call), libc::EROFS, "{name}");
    }
    assert_eq!(std::fs::read(view.path("file")).unwrap(), b"0123456789");
}

#[test]
fn other_errors_stay_what_they_are() {
    need_fuse!();
    let view = view();
    for (expected, calls) in [
        (libc::ENOENT, ENOENT),
        (libc::EEXIST, EEXIST),
        (libc::ENOTDIR, ENOTDIR),
        (libc::EFAULT, EFAULT),
    ] {
        for (name, call) in calls {
            assert_eq!(errno(&view, *call), expected, "{name}");
        }
    }
}

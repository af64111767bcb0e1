//! Whatever would write is refused.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::common::mounts::*;
use crate::need_fuse;

fn view() -> View {
    View::of(vec![
        inline("file", &[b"0123456789"]),
        inline("folder/file", &[b"x"]),
    ])
}

#[track_caller]
fn refused<T>(result: io::Result<T>) {
    assert_eq!(
        result.err().and_then(|error| error.raw_os_error()),
        Some(libc::EROFS)
    );
}

#[test]
fn opening_for_writing() {
    need_fuse!();
    let view = view();
    let path = view.path("file");
    let open =
        |set: fn(&mut OpenOptions) -> &mut OpenOptions| set(&mut OpenOptions::new()).open(&path);
    refused(open(|options| options.write(true)));
    refused(open(|options| options.read(true).write(true)));
    refused(open(|options| options.append(true)));
    refused(open(|options| options.write(true).truncate(true)));
    refused(open(|options| options.write(true).create(true)));
    refused(File::create(view.path("new")));
    assert_eq!(fs::read(&path).unwrap(), b"0123456789");
}

#[test]
fn changing_the_tree() {
    need_fuse!();
    let view = view();
    let (file, folder, new) = (view.path("file"), view.path("folder"), view.path("new"));
    refused(fs::create_dir(&new));
    refused(fs::remove_file(&file));
    refused(fs::remove_dir(&folder));
    refused(fs::rename(&file, &new));
    refused(fs::hard_link(&file, &new));
    refused(symlink(&file, &new));
}

fn errno_of(status: i32) -> Option<i32> {
    let error = io::Error::last_os_error().raw_os_error();
    error.filter(|_| status == -1)
}

#[test]
fn changing_attributes() {
    need_fuse!();
    let view = view();
    let file = view.path("file");
    refused(fs::set_permissions(
        &file,
        fs::Permissions::from_mode(0o666),
    ));
    refused(std::os::unix::fs::chown(&file, Some(1), Some(1)));
    let path = CString::new(file.as_os_str().as_bytes()).unwrap();
    // SAFETY: every pointer is to a string that ends in a zero byte, or null where that is allowed.
    unsafe {
        assert_eq!(
            errno_of(libc::truncate(path.as_ptr(), 0)),
            Some(libc::EROFS)
        );
        assert_eq!(
            errno_of(libc::utimensat(
                libc::AT_FDCWD,
                path.as_ptr(),
                std::ptr::null(),
                0
            )),
            Some(libc::EROFS)
        );
        let (name, value) = (c"user.x".as_ptr(), c"y".as_ptr());
        assert_eq!(
            errno_of(libc::setxattr(path.as_ptr(), name, value.cast(), 1, 0)),
            Some(libc::EROFS)
        );
        assert_eq!(
            errno_of(libc::removexattr(path.as_ptr(), name)),
            Some(libc::EROFS)
        );
        assert_eq!(
            errno_of(libc::mkfifo(path.as_ptr(), 0o600)),
            Some(libc::EEXIST)
        );
        assert_eq!(
            errno_of(libc::access(path.as_ptr(), libc::W_OK)),
            Some(libc::EROFS)
        );
    }
}

#[test]
fn writing_through_a_descriptor() {
    need_fuse!();
    let view = view();
    let file = File::open(view.path("file")).unwrap();
    let descriptor = file.as_raw_fd();
    // SAFETY: the calls take numbers alone; the map is only asked for.
    unsafe {
        assert_eq!(errno_of(libc::ftruncate(descriptor, 0)), Some(libc::EINVAL));
        assert_eq!(
            errno_of(libc::fallocate(descriptor, 0, 0, 9)),
            Some(libc::EBADF)
        );
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(
            std::ptr::null_mut(),
            10,
            writable,
            libc::MAP_SHARED,
            descriptor,
            0,
        );
        assert_eq!(map, libc::MAP_FAILED);
        assert_eq!(
            errno_of(libc::ioctl(descriptor, 0x1234)),
            Some(libc::ENOTTY)
        );
    }
    file.sync_all().unwrap();
}

#[test]
fn programs_do_not_run_from_it() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    write(&script, b"#!/bin/sh\n", 0o755);
    let view = View::of(vec![shifted("script", b"", &script)]);
    let error = std::process::Command::new(view.path("script"))
        .status()
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

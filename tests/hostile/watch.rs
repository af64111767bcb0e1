//! Whether anybody opens a file.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An inotify instance that watches one file.
pub struct Watch(File);

impl Watch {
    pub fn of(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: inotify_init1 takes a number and gives a descriptor that is ours alone.
        let queue = unsafe {
            let descriptor = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(descriptor >= 0, "inotify");
            OwnedFd::from_raw_fd(descriptor)
        };
        let events = libc::IN_OPEN | libc::IN_ACCESS;
        // SAFETY: `path` ends in a zero byte and outlives the call.
        let watch = unsafe { libc::inotify_add_watch(queue.as_raw_fd(), path.as_ptr(), events) };
        assert!(watch >= 0, "inotify");
        Self(queue.into())
    }

    pub fn saw_anything(&self) -> bool {
        (&self.0).read(&mut [0; 4096]).is_ok()
    }
}

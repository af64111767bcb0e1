//! statx(2): the attributes of a file beyond those of fstat, such as its birth time, and whether the server is asked for them.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since the epoch.
pub type Time = (i64, i64);

/// Where attributes come from: on network and FUSE filesystems the kernel keeps them for as long as a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Server,
    Cache,
}

/// Attributes as the filesystem has them now. On network and FUSE filesystems `fstat` may answer from the kernel's attribute
/// cache, for as long as a minute; local filesystems ignore the flag that asks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Major and minor number of the filesystem.
    pub device: (u32, u32),
    pub inode: u64,
    pub size: u64,
    pub mode: u32,
    pub links: u32,
    pub owner: (u32, u32),
    pub modified: Time,
    pub changed: Time,
    /// When the file was made. NFS below 4.2 and most FUSE filesystems do not tell.
    pub born: Option<Time>,
}

impl Attributes {
    pub fn of(file: &File) -> io::Result<Self> {
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_FORCE_SYNC;
        Ok(Self::read(&statx(file.as_raw_fd(), c"", flags, WANTED)?))
    }

    /// Of what `path` leads to.
    pub fn at(path: &Path, source: Source) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let asked = match source {
            Source::Server => libc::AT_STATX_FORCE_SYNC,
            Source::Cache => libc::AT_STATX_SYNC_AS_STAT,
        };
        let flags = asked | libc::AT_NO_AUTOMOUNT;
        Ok(Self::read(&statx(libc::AT_FDCWD, &path, flags, WANTED)?))
    }

    pub fn is_folder(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// When the bytes were last written. Times before the epoch count as the epoch.
    pub fn written(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.modified;
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let since = Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }

    /// Whether both are of one file with nothing written in between, as far as its times tell.
    pub fn is_same_write(&self, other: &Self) -> bool {
        let bytes = |of: &Self| (of.device, of.inode, of.size, of.modified);
        bytes(self) == bytes(other)
    }

    fn read(told: &libc::statx) -> Self {
        let time = |time: &libc::statx_timestamp| (time.tv_sec, i64::from(time.tv_nsec));
        Self {
            device: (told.stx_dev_major, told.stx_dev_minor),
            inode: told.stx_ino,
            size: told.stx_size,
            mode: u32::from(told.stx_mode),
            links: told.stx_nlink,
            owner: (told.stx_uid, told.stx_gid),
            modified: time(&told.stx_mtime),
            changed: time(&told.stx_ctime),
            born: (told.stx_mask & libc::STATX_BTIME != 0).then(|| time(&told.stx_btime)),
        }
    }
}

const OVERLAYFS: u64 = 0x794c_7630;

/// Filesystems of this machine alone (linux/magic.h; OpenZFS).
const LOCAL: [u64; 8] = [
    0xef53,      // ext2 to ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    OVERLAYFS,
    0x2fc1_2fc1, // ZFS
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
];

/// Whether all times on the filesystem of `path` come from one clock. Several machines write to a network filesystem, and
/// some of them, Lustre's clients, by their own clocks.
pub fn has_one_clock(path: &Path) -> bool {
    filesystem(path).is_some_and(|filesystem| LOCAL.contains(&filesystem))
}

/// Whether a file gets a new birth time where it is written to first: overlayfs copies it up.
pub fn copies_up(path: &Path) -> bool {
    filesystem(path) == Some(OVERLAYFS)
}

fn filesystem(path: &Path) -> Option<u64> {
    let found = nix::sys::statfs::statfs(path).ok()?;
    Some(found.filesystem_type().0 as u64)
}

const WANTED: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// Attributes of `path` below the directory `at`, or of the descriptor `at` itself.
pub fn statx(at: RawFd, path: &CStr, flags: i32, wanted: u32) -> io::Result<libc::statx> {
    let mut told = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends in a zero byte and outlives the call, which fills the struct; all zeros are one, too.
    let (failed, told) = unsafe {
        let failed = libc::statx(at, path.as_ptr(), flags, wanted, told.as_mut_ptr());
        (failed, told.assume_init())
    };
    match failed {
        0 => Ok(told),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn attributes_are_those_of_fstat_and_the_birth_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        let told = Attributes::of(file.as_file()).unwrap();
        let known = file.as_file().metadata().unwrap();
        for source in [Source::Server, Source::Cache] {
            assert_eq!(told, Attributes::at(file.path(), source).unwrap());
        }
        assert_eq!(told.written(), known.modified().unwrap());
        assert_eq!(
            (told.inode, told.size, told.mode, told.links),
            (known.ino(), 5, known.mode(), 1)
        );
        assert_eq!(told.owner, (known.uid(), known.gid()));
        assert_eq!(told.modified, (known.mtime(), known.mtime_nsec()));
        assert_eq!(told.changed, (known.ctime(), known.ctime_nsec()));
        assert!(told.born.is_none_or(|born| born <= told.changed));
        let missing = Attributes::at(Path::new("/no such place"), Source::Cache).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    }
}

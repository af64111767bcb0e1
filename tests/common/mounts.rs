//! Real mounts of files made by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ckptfs::mount::{Mounted, Options, mount};
use ckptfs::output::{Attributes, Segment, VirtualFile};
use ckptfs::source::SourceFile;
use tempfile::TempDir;

/// Ends the test, saying so, where the machine has no FUSE. Else its mounts are its own.
#[macro_export]
macro_rules! need_fuse {
    () => {
        if let Err(error) = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
        {
            eprintln!("SKIPPED {}: /dev/fuse: {error}", module_path!());
            return;
        }
        $crate::common::programs::keep_mounts_apart();
    };
}

/// Ends the test, saying so, where it may not become another user. Else its mounts are its own.
#[macro_export]
macro_rules! need_root {
    () => {
        if !$crate::common::programs::is_root() {
            eprintln!("SKIPPED {}: not root", module_path!());
            return;
        }
        $crate::common::programs::keep_mounts_apart();
    };
}

/// A mount that ends with the test.
pub struct View {
    mounted: Option<Mounted>,
    point: TempDir,
    _source: TempDir,
}

impl View {
    pub fn of(files: Vec<VirtualFile>) -> Self {
        Self::with(files, |_| {})
    }

    /// A view mounted with other options than the usual.
    pub fn with(files: Vec<VirtualFile>, change: impl FnOnce(&mut Options)) -> Self {
        let (point, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut options = Options::new(source.path());
        change(&mut options);
        let mounted = mount(files, point.path(), &options).unwrap();
        Self {
            mounted: Some(mounted),
            point,
            _source: source,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    pub fn unmount(mut self) -> ckptfs::error::Result<()> {
        self.mounted.take().unwrap().unmount()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        drop(self.mounted.take());
    }
}

/// Attributes of a public file.
pub const PUBLIC: Attributes = Attributes {
    mode: 0o444,
    uid: 0,
    gid: 0,
    modified: (1_700_000_000, 5),
};

/// A file whose bytes the mount itself holds, in pieces as they come.
pub fn inline(path: &str, pieces: &[&[u8]]) -> VirtualFile {
    let segments = pieces.iter().map(|piece| Segment::Inline((*piece).into()));
    VirtualFile::new(path, PUBLIC, segments.collect())
}

/// A file that shows the file `source` after `header`.
pub fn shifted(path: &str, header: &[u8], source: &Path) -> VirtualFile {
    let source = SourceFile::open(source).unwrap();
    let attributes = Attributes::of([&*source]).unwrap();
    let segments = vec![Segment::Inline(header.into()), Segment::Source(source)];
    VirtualFile::new(path, attributes, segments)
}

/// Bytes that repeat nowhere near.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8))
        .flat_map(|_| next())
        .take(length)
        .collect()
}

/// A source file with these bytes and mode.
pub fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

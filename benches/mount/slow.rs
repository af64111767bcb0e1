//! A disk far away: a FUSE filesystem that shows a folder, and answers each read after a while.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::*;
use tempfile::TempDir;

const LATENCY: Duration = Duration::from_millis(20);
/// Reads that wait at the same time.
const THREADS: usize = 32;
const FOREVER: Duration = Duration::from_secs(1_000_000);

pub struct SlowDisk {
    _session: BackgroundSession,
    point: TempDir,
}

impl SlowDisk {
    pub fn over(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).expect("a folder");
        let files = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        let point =
            tempfile::tempdir_in(folder.parent().expect("a parent")).expect("a mount point");
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        let session = spawn_mount(Slow { files }, point.path(), &config).expect("a slow disk");
        Self {
            _session: session,
            point,
        }
    }

    pub fn path(&self) -> &Path {
        self.point.path()
    }
}

/// Files by inode, from 2 on.
struct Slow {
    files: Vec<PathBuf>,
}

impl Slow {
    fn file(&self, inode: INodeNo) -> Option<&PathBuf> {
        self.files.get((inode.0 as usize).checked_sub(2)?)
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = self.file(inode);
        let size = file.map_or(0, |path| path.metadata().expect("a size").size());
        FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: file.map_or(FileType::Directory, |_| FileType::RegularFile),
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Slow {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let is_named = |path: &PathBuf| path.file_name() == Some(name);
        match self.files.iter().position(is_named) {
            Some(at) => {
                let attributes = self.attributes(INodeNo(at as u64 + 2));
                reply.entry(&FOREVER, &attributes, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread::sleep(LATENCY);
        let file = File::open(self.file(inode).expect("a file")).expect("a file");
        let mut buffer = vec![0; size as usize];
        let count = file.read_at(&mut buffer, offset).expect("bytes");
        reply.data(&buffer[..count]);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (at, path) in self.files.iter().enumerate().skip(offset as usize) {
            let name = path.file_name().expect("a name");
            if reply.add(
                INodeNo(at as u64 + 2),
                at as u64 + 1,
                FileType::RegularFile,
                name,
            ) {
                break;
            }
        }
        reply.ok();
    }
}

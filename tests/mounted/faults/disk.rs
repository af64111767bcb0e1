//! A disk that fails on command: a FUSE filesystem with one file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ckptfs::source::SourceFile;
use fuser::*;
use tempfile::TempDir;

const FOREVER: Duration = Duration::from_secs(1_000_000);
const FILE: INodeNo = INodeNo(2);

/// The behaviour of a read that touches the bad sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    Errno(i32),
    /// Ends in the middle of what was asked for.
    Short,
    Delay(Duration),
    /// Is not answered until the switch is released.
    Held,
    /// Ends as if a signal had come.
    Interrupted,
}

/// The current behaviour of the disk, shared with the test.
pub struct Switch {
    fault: Mutex<Fault>,
    /// The first byte of the bad place, which has one page.
    place: AtomicU64,
    /// Reads that still fail.
    left: AtomicU8,
}

impl Switch {
    /// From now on the next `times` reads of the page at `place` do `fault`.
    pub fn set(&self, fault: Fault, place: u64, times: u8) {
        *self.fault.lock().unwrap() = fault;
        self.place.store(place, Ordering::SeqCst);
        self.left.store(times, Ordering::SeqCst);
    }

    /// Whether all reads that should fail have come.
    pub fn is_spent(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// Has reads answered that are held.
    pub fn release(&self) {
        *self.fault.lock().unwrap() = Fault::None;
    }

    fn wait_for_release(&self) {
        while *self.fault.lock().unwrap() == Fault::Held {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn meets(&self, start: u64, length: u64) -> Fault {
        let place = self.place.load(Ordering::SeqCst);
        let touches = place < start + length && start < place + 4096;
        let spend = |left: u8| left.checked_sub(1);
        let fails = touches
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
                .is_ok();
        if fails {
            *self.fault.lock().unwrap()
        } else {
            Fault::None
        }
    }
}

struct Files {
    content: Arc<Mutex<Content>>,
    switch: Arc<Switch>,
}

/// The bytes of the file, and how often they were written by another machine: the kernel is not told.
struct Content {
    bytes: Vec<u8>,
    writes: u64,
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let content = self.content.lock().unwrap();
        let (kind, perm, size) = match inode {
            FILE => (FileType::RegularFile, 0o644, content.bytes.len() as u64),
            _ => (FileType::Directory, 0o755, 0),
        };
        let (uid, gid, rdev, blksize, flags, nlink, blocks) =
            (0, 0, 0, 4096, 0, 1, size.div_ceil(512));
        let written = UNIX_EPOCH + Duration::from_secs(content.writes);
        let [atime, mtime, ctime, crtime] = [UNIX_EPOCH, written, written, UNIX_EPOCH];
        FileAttr {
            ino: inode,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &std::ffi::OsStr, reply: ReplyEntry) {
        match name == "weights" {
            true => reply.entry(&FOREVER, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    /// Without the page cache, so that every read of the test's subject comes here as it is; and without a word on close,
    /// which a process that ends could no longer answer to itself.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(
            FileHandle(0),
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let content = self.content.lock().unwrap();
        let start = (offset as usize).min(content.bytes.len());
        let end = (start + size as usize).min(content.bytes.len());
        let bytes = content.bytes[start..end].to_vec();
        drop(content);
        let bytes = &*bytes;
        match self.switch.meets(offset, bytes.len() as u64) {
            Fault::None => reply.data(bytes),
            Fault::Errno(errno) => reply.error(Errno::from_i32(errno)),
            Fault::Interrupted => reply.error(Errno::EINTR),
            Fault::Short => reply.data(&bytes[..bytes.len().div_ceil(2)]),
            Fault::Delay(time) => {
                std::thread::sleep(time);
                reply.data(bytes);
            }
            Fault::Held => {
                self.switch.wait_for_release();
                reply.data(bytes);
            }
        }
    }
}

/// A mounted disk with the file `weights`.
pub struct Disk {
    _session: BackgroundSession,
    point: TempDir,
    content: Arc<Mutex<Content>>,
    pub switch: Arc<Switch>,
}

impl Disk {
    pub fn of(bytes: Vec<u8>) -> Self {
        let point = tempfile::tempdir().unwrap();
        let switch = Switch {
            fault: Mutex::new(Fault::None),
            place: AtomicU64::new(0),
            left: AtomicU8::new(0),
        };
        let switch = Arc::new(switch);
        let content = Arc::new(Mutex::new(Content { bytes, writes: 0 }));
        let files = Files {
            content: content.clone(),
            switch: switch.clone(),
        };
        let mut config = Config::default();
        config.n_threads = Some(2);
        config.mount_options = vec![MountOption::FSName("ckptfs-test-disk".to_owned())];
        let session = spawn_mount(files, point.path(), &config).unwrap();
        Self {
            _session: session,
            point,
            content,
            switch,
        }
    }

    /// Has another machine write the file. The kernel keeps the attributes that it knows.
    pub fn rewrite(&self, bytes: Vec<u8>) {
        let mut content = self.content.lock().unwrap();
        content.bytes = bytes;
        content.writes += 1;
    }

    pub fn path(&self) -> PathBuf {
        self.point.path().join("weights")
    }

    pub fn open(&self) -> Arc<SourceFile> {
        SourceFile::open(&self.path()).unwrap()
    }
}

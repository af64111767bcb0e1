//! The view as a filesystem: names from the tree, bytes from `read`, every failure an errno.

use std::any::Any;
use std::ffi::OsStr;
use std::fmt::Display;
use std::sync::Arc;

use fuser::{Errno, FileAttr, INodeNo, OpenAccMode, OpenFlags, ReplyOpen};

mod attributes;
mod counters;
mod errors;
mod inodes;
mod passthrough;
mod requests;
mod run;
mod waiting;

pub use crate::tree::{Entry, Kind, Stat, Tree, Usage};
pub use counters::Counters;
pub use inodes::Inodes;
pub use run::{Open, RunTree};

use crate::output::VirtualFile;
use crate::read::{ReadFile, Reply};
use crate::source::Caching;
use errors::{Answer, ErrorLog, caught};
use passthrough::{Backing, Passthrough};
use waiting::Waiting;

/// The mounted filesystem.
#[derive(Debug)]
pub struct CheckpointFs {
    shared: Arc<Shared>,
    /// Dropped when the kernel's connection has ended.
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

/// State that all requests share.
#[derive(Debug)]
struct Shared {
    inodes: Box<dyn Inodes>,
    reader: Arc<dyn ReadFile>,
    errors: ErrorLog,
    counters: Arc<Counters>,
    passthrough: Passthrough,
    waiting: Arc<Waiting>,
}

impl CheckpointFs {
    /// With `passthrough` the kernel may read files that equal one source file by itself. It then looks at no stamp: a source
    /// that changes while a file is open shows through.
    pub fn new(inodes: Box<dyn Inodes>, reader: Arc<dyn ReadFile>, passthrough: bool) -> Self {
        let shared = Shared {
            inodes,
            counters: Arc::new(Counters::new(reader.clone())),
            reader,
            errors: ErrorLog::default(),
            passthrough: Passthrough::new(passthrough),
            waiting: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
            _kept: None,
        }
    }

    /// Has `kept` dropped when the kernel's connection has ended.
    pub fn keeping(self, kept: impl Any + Send + Sync) -> Self {
        Self {
            _kept: Some(Box::new(kept)),
            ..self
        }
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }
}

impl Shared {
    /// Runs one request. A panic must not take the thread, and with it the mount, down; neither may one while it is logged.
    fn guarded<T>(&self, answer: impl FnOnce() -> Answer<T>) -> Answer<T> {
        caught(answer).unwrap_or_else(|| {
            self.counters.failed();
            caught(|| self.errors.record("a request failed by a bug in ckptfs"));
            Err(Errno::EIO)
        })
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Answer<FileAttr> {
        self.counters.request();
        if name.len() > crate::tree::NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let stat = name
            .to_str()
            .and_then(|name| self.inodes.lookup(parent.0, name));
        stat.map(|stat| attributes::of(&stat)).ok_or(Errno::ENOENT)
    }

    fn stat(&self, inode: INodeNo) -> Answer<FileAttr> {
        self.counters.request();
        let stat = self.inodes.stat(inode.0);
        stat.map(|stat| attributes::of(&stat)).ok_or(Errno::ENOENT)
    }

    fn target(&self, inode: INodeNo) -> Answer<String> {
        self.counters.request();
        self.inodes.target(inode.0).ok_or(Errno::EINVAL)
    }

    fn list(
        &self,
        inode: INodeNo,
        offset: u64,
        mut add: impl FnMut(Entry<'_>) -> bool,
    ) -> Answer<()> {
        self.counters.request();
        self.inodes.list(inode.0, offset, &mut add)
    }

    /// Returns the file that the kernel may read in place of the virtual one.
    fn opened(
        &self,
        inode: INodeNo,
        flags: OpenFlags,
        reply: &ReplyOpen,
    ) -> Answer<Option<Backing>> {
        self.counters.request();
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0;
        if writes {
            return Err(Errno::EROFS);
        }
        let file = self.file(inode)?;
        let backing = self.passthrough.backing(inode.0, &file, reply);
        backing.map_err(|error| self.failed(&file, 0, Errno::from_i32(error.errno()), &error))
    }

    fn file(&self, inode: INodeNo) -> Answer<Arc<VirtualFile>> {
        self.inodes.file(inode.0).ok_or(Errno::EISDIR)
    }

    /// Exactly the bytes asked for, fewer only at the end of the file: the kernel takes a short answer for the end and
    /// shrinks the file.
    fn bytes(&self, file: &VirtualFile, offset: u64, size: u32, caching: Caching) -> Answer<Reply> {
        self.counters.request();
        let length = u64::from(size).min(file.size().saturating_sub(offset)) as usize;
        if length == 0 {
            return Ok(Reply::default());
        }
        match self.reader.read(file, offset, length, caching) {
            Ok(bytes) if bytes.len() == length => {
                self.counters.served(length);
                Ok(bytes)
            }
            Ok(bytes) => Err(self.failed(
                file,
                offset,
                Errno::EIO,
                format_args!("{} of {length} bytes", bytes.len()),
            )),
            Err(error) => Err(self.failed(file, offset, Errno::from_i32(error.errno()), &error)),
        }
    }

    fn failed(&self, file: &VirtualFile, offset: u64, errno: Errno, why: impl Display) -> Errno {
        let path = file.path();
        self.counters.failed();
        self.errors
            .record(format_args!("{path}: read at {offset}: {why}"));
        errno
    }
}

//! Inode lookups that the FUSE layer needs.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;

use super::errors::Answer;
use crate::output::VirtualFile;
use crate::tree::{Entry, Stat, Tree, Usage};

/// Time to live of answers that cannot change while the mount lives.
pub const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Names, attributes and files by inode. A [`Tree`] never changes; a run does.
pub trait Inodes: Debug + Send + Sync {
    /// `name` in the directory `parent`. The kernel then knows the inode until it forgets it.
    fn lookup(&self, parent: u64, name: &str) -> Option<Stat>;

    fn stat(&self, inode: u64) -> Option<Stat>;

    /// Gives `add` the names of a directory from `offset` on, `.` and `..` first, until it has enough.
    fn list(&self, inode: u64, offset: u64, add: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()>;

    fn file(&self, inode: u64) -> Option<Arc<VirtualFile>>;

    fn usage(&self) -> Usage;

    /// Where a link leads.
    fn target(&self, _inode: u64) -> Option<String> {
        None
    }

    /// Returns the time to live of answers about `inode`.
    fn lasts(&self, _inode: u64) -> Duration {
        FOREVER
    }

    /// The checkpoint that must be opened before there is an answer about `inode`, if any.
    fn unopened(&self, _inode: u64) -> Option<u32> {
        None
    }

    /// A reader opens the file, whose bytes must be there until it is released.
    fn taken(&self, _inode: u64) {}

    fn released(&self, _inode: u64) {}

    /// The kernel learned of the inode by other means than [`Inodes::lookup`].
    fn shown(&self, _inode: u64) {}

    /// The kernel has forgotten the inode as often as it learned of it.
    fn forget(&self, _inode: u64, _times: u64) {}
}

impl Inodes for Tree {
    fn lookup(&self, parent: u64, name: &str) -> Option<Stat> {
        Tree::lookup(self, parent, name)
    }

    fn stat(&self, inode: u64) -> Option<Stat> {
        Tree::stat(self, inode)
    }

    fn list(&self, inode: u64, offset: u64, add: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()> {
        let mut entries = self.entries(inode, offset).ok_or(Errno::ENOTDIR)?;
        entries.any(add);
        Ok(())
    }

    fn file(&self, inode: u64) -> Option<Arc<VirtualFile>> {
        Tree::file(self, inode).cloned()
    }

    fn usage(&self) -> Usage {
        Tree::usage(self)
    }
}

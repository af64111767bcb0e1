//! One save of a run as it is shown: opened when somebody looks into it, kept for as long as the kernel knows it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use super::{Open, inode_in, lock};
use crate::checkpoint::{Run, Save};
use crate::error::{Error, Result};
use crate::output::{Attributes, VirtualFile, inline_file};
use crate::text::one_line;
use crate::tree::{Kind, ROOT, Stat, Tree, Usage};

/// The one file of a checkpoint that cannot be shown.
const ERROR: &str = "ERROR.txt";

/// After this time a failure may have passed.
const RETRY: Duration = Duration::from_secs(10);

/// A save under a number that no other gets.
#[derive(Debug)]
pub struct Slot {
    pub number: u32,
    pub save: Save,
    lookups: AtomicU64,
    /// Locked while it is opened: whoever looks into it then waits, and nobody else.
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    tree: Arc<Tree>,
    failed: Option<Instant>,
}

impl Slot {
    pub fn new(number: u32, save: Save) -> Self {
        Self {
            number,
            save,
            lookups: AtomicU64::new(0),
            opened: Mutex::default(),
        }
    }

    /// Whether this is what `save` should be shown as. A failure is not for ever.
    pub fn shows(&self, save: &Save) -> bool {
        let has_failed_long_ago = || match self.opened.try_lock() {
            Ok(opened) => {
                let failed = opened.as_ref().and_then(|opened| opened.failed);
                failed.is_some_and(|failed| failed.elapsed() > RETRY)
            }
            Err(_) => false,
        };
        self.save.is(save) && !has_failed_long_ago()
    }

    pub fn is_open(&self) -> bool {
        match self.opened.try_lock() {
            Ok(opened) => opened.is_some(),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => false,
        }
    }

    /// The files, opened now unless they are.
    pub fn tree(&self, run: &Run, open: &Open) -> Arc<Tree> {
        let mut opened = lock(&self.opened);
        let opened = opened.get_or_insert_with(|| Opened::new(run, &self.save, open));
        opened.tree.clone()
    }

    /// The directory. It can be looked at without being opened.
    pub fn stat(&self) -> Stat {
        directory(self.inode(ROOT), &self.save.metadata)
    }

    pub fn numbered(&self, stat: Stat) -> Stat {
        let inode = self.inode(stat.inode);
        Stat { inode, ..stat }
    }

    pub fn inode(&self, inner: u64) -> u64 {
        inode_in(self.number, inner)
    }

    pub fn usage(&self) -> Usage {
        match self.opened.try_lock().as_deref() {
            Ok(Some(opened)) => opened.tree.usage(),
            _ => Usage::default(),
        }
    }

    /// The kernel knows it `lookups` times more.
    pub fn known(&self, lookups: u64) {
        self.lookups.fetch_add(lookups, Ordering::Relaxed);
    }

    pub fn is_known(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) > 0
    }

    /// The kernel knows it `lookups` times less; what it does not know at all needs no open checkpoint.
    pub fn forget(&self, lookups: u64) {
        let fewer = |known: u64| Some(known.saturating_sub(lookups));
        self.lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
            .ok();
        if !self.is_known()
            && let Ok(mut opened) = self.opened.try_lock()
        {
            *opened = None;
        }
    }
}

impl Opened {
    fn new(run: &Run, save: &Save, open: &Open) -> Self {
        let mut failed = None;
        let mut shown = |result: Result<Vec<VirtualFile>>| {
            result.unwrap_or_else(|error| {
                failed = Some(Instant::now());
                vec![error_file(save, &error)]
            })
        };
        let mut files = Vec::new();
        for part in &save.parts {
            let part_files = shown(files_of(run, save, Some(part), open));
            files.extend(part_files.into_iter().map(|file| file.below(part)));
        }
        if save.parts.is_empty() {
            files = shown(files_of(run, save, None, open));
        }
        let tree = Tree::new(files).or_else(|error| Tree::new(shown(Err(error))));
        Self {
            tree: Arc::new(tree.unwrap_or_default()),
            failed,
        }
    }
}

/// A panic is an error of this checkpoint, and of no other.
fn files_of(run: &Run, save: &Save, part: Option<&str>, open: &Open) -> Result<Vec<VirtualFile>> {
    if let Some(rewritten) = &save.rewritten {
        return Err(rewritten.error());
    }
    let place = run.place(save, part)?;
    let bug = |_| {
        Err(Error::checkpoint(
            &place,
            "cannot be opened for a bug in ckptfs",
        ))
    };
    catch_unwind(AssertUnwindSafe(|| open(&place))).unwrap_or_else(bug)
}

fn error_file(save: &Save, error: &Error) -> VirtualFile {
    let line = one_line(&error.to_string());
    tracing::warn!("{}: {line}", one_line(&save.name));
    let attributes = attributes(&save.metadata, 0o444);
    inline_file(ERROR, format!("{line}\n").into_bytes(), Some(attributes))
}

/// A directory whose number of subdirectories is not known, as one link says. Whoever may read the file that it stands for
/// may enter it.
pub fn directory(inode: u64, metadata: &Metadata) -> Stat {
    let mut attributes = attributes(metadata, 0o555);
    if metadata.is_file() {
        attributes.mode |= (attributes.mode & 0o444) >> 2;
    }
    Stat {
        inode,
        kind: Kind::Directory,
        size: 0,
        links: 1,
        attributes,
    }
}

/// The attributes of a source folder, as far as `mode` goes.
pub fn attributes(metadata: &Metadata, mode: u32) -> Attributes {
    Attributes {
        mode: (metadata.mode() & mode) as u16,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

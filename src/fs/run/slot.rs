//! One save of a run as it is shown: opened when it is looked into, closed when it has not been for long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::number::inode_in;
use crate::error::{Error, Result};
use crate::output::{Attributes, VISIBLE_MODE, VirtualFile, inline_file};
use crate::run::{Run, Save};
use crate::statx;
use crate::text::one_line;
use crate::tree::{Kind, ROOT, Stat, Tree, Usage};

/// Makes the files of one checkpoint.
pub type Open = dyn Fn(&Path) -> Result<Vec<VirtualFile>> + Send + Sync;

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
    /// Files of it that readers have open.
    handles: AtomicU64,
    /// The larger, the later it was looked into.
    used: AtomicU64,
    /// Locked while it is opened: only those that look into it wait.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    opened: Option<Opened>,
    /// The print of the tree that the kernel was told of, kept while the save is closed.
    shown: Option<u64>,
    /// Whether the save cannot be opened again as the kernel was told of it.
    is_stale: bool,
}

#[derive(Debug)]
struct Opened {
    tree: Arc<Tree>,
    failed: Option<Instant>,
    lacks_memory: bool,
}

impl Slot {
    pub fn new(number: u32, save: Save) -> Self {
        Self {
            number,
            save,
            lookups: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            used: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether this is what `save` should be shown as. A failure is not for ever.
    pub fn shows(&self, save: &Save) -> bool {
        let is_outdated = || match self.state.try_lock() {
            Ok(state) => {
                let failed = state.opened.as_ref().and_then(|opened| opened.failed);
                state.is_stale || failed.is_some_and(|failed| failed.elapsed() > RETRY)
            }
            Err(_) => false,
        };
        self.save.is(save) && !is_outdated()
    }

    pub fn is_open(&self) -> bool {
        match self.state.try_lock() {
            Ok(state) => state.opened.is_some(),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => false,
        }
    }

    /// The files, opened now unless they are, after `make_room` where memory is short. `None` where they are no longer those
    /// that the kernel was told of.
    pub fn tree(&self, run: &Run, open: &Open, make_room: &dyn Fn()) -> Option<Arc<Tree>> {
        let mut state = lock(&self.state);
        if let Some(opened) = &state.opened {
            return Some(opened.tree.clone());
        }
        let is_same = || {
            let now = run.save(&self.save.name);
            now.is_some_and(|now| now.is(&self.save))
        };
        if state.is_stale || state.shown.is_some() && !is_same() {
            state.is_stale = true;
            return None;
        }
        let mut opened = Opened::new(run, &self.save, open);
        if opened.lacks_memory {
            make_room();
            opened = Opened::new(run, &self.save, open);
        }
        let print = opened.tree.print();
        if *state.shown.get_or_insert(print) != print {
            state.is_stale = true;
            return None;
        }
        let tree = opened.tree.clone();
        state.opened = Some(opened);
        Some(tree)
    }

    /// Notes when it was looked into.
    pub fn use_at(&self, moment: u64) {
        self.used.fetch_max(moment, Ordering::Relaxed);
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A reader opens a file of it.
    pub fn take(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// A reader has closed a file of it.
    pub fn release(&self) {
        let fewer = |handles: u64| handles.checked_sub(1);
        self.handles
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .ok();
    }

    /// Lets go of the files unless a reader has one open. A later look opens them again.
    pub fn close(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && self.handles.load(Ordering::SeqCst) == 0
        {
            state.opened = None;
        }
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
        let state = self.state.try_lock();
        let opened = state.as_ref().ok().and_then(|state| state.opened.as_ref());
        opened.map_or(Usage::default(), |opened| opened.tree.usage())
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
        if !self.is_known() {
            self.close();
        }
    }
}

impl Opened {
    fn new(run: &Run, save: &Save, open: &Open) -> Self {
        let (mut failed, mut lacks_memory) = (None, false);
        let mut shown = |result: Result<Vec<VirtualFile>>| {
            result.unwrap_or_else(|error| {
                failed = Some(Instant::now());
                lacks_memory |= matches!(error, Error::Memory { .. });
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
            lacks_memory,
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
    let attributes = attributes(&save.metadata, VISIBLE_MODE);
    inline_file(ERROR, format!("{line}\n").into_bytes(), Some(attributes))
}

/// A directory whose number of subdirectories is not known, as one link says. Whoever may read the file that it stands for
/// may enter it.
pub fn directory(inode: u64, found: &statx::Attributes) -> Stat {
    let mut attributes = attributes(found, 0o755);
    if found.is_file() {
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
pub fn attributes(found: &statx::Attributes, mode: u32) -> Attributes {
    Attributes {
        mode: (found.mode & mode) as u16,
        uid: found.owner.0,
        gid: found.owner.1,
        modified: found.modified,
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

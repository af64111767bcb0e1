//! A run as a directory: a directory for each save that has ended, opened on the first look, and a link to the latest.

mod number;
mod slot;
mod slots;

use std::collections::HashSet;
use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fuser::Errno;

use super::errors::{Answer, ErrorLog};
use super::inodes::{FOREVER, Inodes};
use crate::access;
use crate::error::Result;
use crate::output::{Attributes, VirtualFile};
use crate::run::{LATEST, Run, Save};
use crate::source::place;
use crate::statx::Source;
use crate::tree::{Entry, Kind, ROOT, Stat, Tree, Usage};
use number::split;
pub use slot::Open;
use slot::{Slot, lock};
use slots::Slots;

/// How old an answer about the run itself may be.
const FRESH: Duration = Duration::from_secs(1);

/// The slot of the top directory; the others are numbered from 1.
const TOP: u32 = 0;

/// Inode of the link.
const LINK: u64 = 2;

/// Entries before the slots in a listing: `.`, `..` and the link.
const FIRST: u64 = 3;

/// Saves that stay open though no reader has a file of them open.
const KEPT: usize = 16;

/// Slots that are listed in one go.
const PORTION: usize = 1024;

/// The top directory of a run and all below it.
pub struct RunTree {
    run: Run,
    open: Box<Open>,
    slots: Mutex<Slots>,
    listed: Mutex<Option<Instant>>,
    latest: Mutex<Option<(Instant, Option<Save>)>>,
    /// Counts looks into saves.
    clock: AtomicU64,
    errors: ErrorLog,
    /// Whether callers other than the owner of the mount are let in.
    for_others: bool,
}

impl Debug for RunTree {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunTree").field(&self.run).finish()
    }
}

impl RunTree {
    /// Nothing is looked at yet. The names of saves that are gone or others now are sent to `gone`: the kernel should let go
    /// of what it knows under them.
    pub fn new(run: Run, open: Box<Open>, gone: Sender<String>) -> Self {
        Self {
            run,
            open,
            slots: Mutex::new(Slots::telling(gone)),
            listed: Mutex::default(),
            latest: Mutex::default(),
            clock: AtomicU64::new(0),
            errors: ErrorLog::default(),
            for_others: false,
        }
    }

    /// Lets callers into the directories of the run and of its saves that the directories above let in, as they are now.
    pub fn for_others(self) -> Self {
        Self {
            for_others: true,
            ..self
        }
    }

    /// The directory that shows the folder or file `path` of the source.
    fn limited(&self, stat: Stat, path: &Path) -> Stat {
        if !self.for_others || place::is_remote(path) {
            return stat;
        }
        // One that cannot be asked about lets no caller in.
        let (uid, gid, mode) = access::folder(path).unwrap_or_default();
        let attributes = Attributes {
            mode,
            uid,
            gid,
            ..stat.attributes
        };
        Stat { attributes, ..stat }
    }

    fn stat_of(&self, slot: &Slot) -> Stat {
        let place = self.run.place(&slot.save, None);
        self.limited(slot.stat(), &place.unwrap_or_default())
    }

    /// The slot of the save that `name` now leads to, known to the kernel `lookups` times more.
    fn settle(&self, name: &str, lookups: u64) -> Option<Arc<Slot>> {
        let save = self.run.save(name).filter(|save| save.has_ended);
        self.slots().assign(name, save, lookups)
    }

    /// Settles all names whose folders are not the ones already known. Done at most once in a while.
    fn refresh(&self) -> Result<()> {
        let last = *lock(&self.listed);
        if last.is_some_and(|last| last.elapsed() < FRESH) {
            return Ok(());
        }
        let names: HashSet<String> = self.run.names()?.into_iter().collect();
        let known = self.slots().current();
        for slot in &known {
            if !names.contains(&slot.save.name) {
                self.slots().assign(&slot.save.name, None, 0);
            }
        }
        let is_same = |slot: &&Arc<Slot>| self.run.has_folder_of(&slot.save);
        let same: HashSet<&str> = known
            .iter()
            .filter(is_same)
            .map(|slot| &*slot.save.name)
            .collect();
        let mut changed: Vec<&String> = names
            .iter()
            .filter(|name| !same.contains(&***name))
            .collect();
        changed.sort_unstable();
        for name in changed {
            self.settle(name, 0);
        }
        *lock(&self.listed) = Some(Instant::now());
        Ok(())
    }

    fn latest(&self) -> Option<Save> {
        if let Some((at, latest)) = &*lock(&self.latest)
            && at.elapsed() < FRESH
        {
            return latest.clone();
        }
        let latest = self.run.latest().ok().flatten();
        *lock(&self.latest) = Some((Instant::now(), latest.clone()));
        latest
    }

    fn link(&self) -> Option<Stat> {
        let save = self.latest()?;
        Some(Stat {
            inode: LINK,
            kind: Kind::Link,
            size: save.model().len() as u64,
            links: 1,
            attributes: slot::attributes(&save.metadata, 0o777),
        })
    }

    fn top(&self) -> Option<Stat> {
        let found = place::attributes(self.run.path(), Source::Cache).ok()?;
        Some(self.limited(slot::directory(ROOT, &found), self.run.path()))
    }

    /// A directory called as the link is stands in its place.
    fn list_top(&self, offset: u64, add: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()> {
        if let Err(error) = self.refresh() {
            self.errors.record(error);
            return Err(Errno::EIO);
        }
        let portion = self.slots().after(offset.saturating_sub(FIRST), PORTION);
        let entry = |name, inode, kind, next| Entry {
            name,
            inode,
            kind,
            next,
        };
        let has_link = self.slots().named(LATEST).is_none() && self.latest().is_some();
        let own = [
            entry(".", ROOT, Kind::Directory, 1),
            entry("..", ROOT, Kind::Directory, 2),
            entry(LATEST, LINK, Kind::Link, FIRST),
        ];
        let own = own.into_iter().take(if has_link { 3 } else { 2 });
        let slots = portion.iter().map(|slot| {
            let next = FIRST + u64::from(slot.number);
            entry(&slot.save.name, slot.inode(ROOT), Kind::Directory, next)
        });
        let own = own.filter(|entry| entry.next > offset);
        own.chain(slots).any(add);
        Ok(())
    }

    /// The files of a save, opened if need be.
    fn tree(&self, slot: &Slot) -> Option<Arc<Tree>> {
        slot.use_at(self.clock.fetch_add(1, Ordering::Relaxed));
        let was_open = slot.is_open();
        let tree = slot.tree(&self.run, &*self.open, &|| self.slots().close_idle(0));
        if !was_open {
            self.slots().close_idle(KEPT);
        }
        tree
    }

    fn slot(&self, number: u32) -> Option<Arc<Slot>> {
        self.slots().numbered(number)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.slots)
    }
}

impl Inodes for RunTree {
    fn lookup(&self, parent: u64, name: &str) -> Option<Stat> {
        match split(parent) {
            (TOP, ROOT) => match self.settle(name, 1) {
                Some(slot) => Some(self.stat_of(&slot)),
                None if name == LATEST => self.link(),
                None => None,
            },
            (number, parent) => {
                let slot = self.slot(number)?;
                let stat = self.tree(&slot)?.lookup(parent, name)?;
                slot.known(1);
                Some(slot.numbered(stat))
            }
        }
    }

    fn stat(&self, inode: u64) -> Option<Stat> {
        match split(inode) {
            (TOP, ROOT) => self.top(),
            (TOP, LINK) => self.link(),
            (number, ROOT) => Some(self.stat_of(&*self.slot(number)?)),
            (number, inode) => {
                let slot = self.slot(number)?;
                let stat = self.tree(&slot)?.stat(inode)?;
                Some(slot.numbered(stat))
            }
        }
    }

    fn list(&self, inode: u64, offset: u64, add: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()> {
        let (number, inner) = split(inode);
        if number == TOP {
            return match inner {
                ROOT => self.list_top(offset, add),
                _ => Err(Errno::ENOTDIR),
            };
        }
        let slot = self.slot(number).ok_or(Errno::ENOENT)?;
        let tree = self.tree(&slot).ok_or(Errno::ESTALE)?;
        tree.list(inner, offset, &mut |entry| {
            let is_top = inner == ROOT && entry.name == "..";
            let inode = if is_top {
                ROOT
            } else {
                slot.inode(entry.inode)
            };
            add(Entry { inode, ..entry })
        })
    }

    fn file(&self, inode: u64) -> Option<Arc<VirtualFile>> {
        let (number, inode) = split(inode);
        let slot = self.slot(number)?;
        self.tree(&slot)?.file(inode).cloned()
    }

    /// Of the checkpoints that are open.
    fn usage(&self) -> Usage {
        self.slots().usage()
    }

    fn target(&self, inode: u64) -> Option<String> {
        let is_link = split(inode) == (TOP, LINK);
        is_link
            .then(|| self.latest())
            .flatten()
            .map(|save| save.model())
    }

    fn lasts(&self, inode: u64) -> Duration {
        match split(inode) {
            (TOP, _) | (_, ROOT) => FRESH,
            _ => FOREVER,
        }
    }

    fn unopened(&self, inode: u64) -> Option<u32> {
        let slot = self.slot(split(inode).0)?;
        (!slot.is_open()).then_some(slot.number)
    }

    fn taken(&self, inode: u64) {
        if let Some(slot) = self.slot(split(inode).0) {
            slot.take();
        }
    }

    fn released(&self, inode: u64) {
        if let Some(slot) = self.slot(split(inode).0) {
            slot.release();
        }
    }

    fn shown(&self, inode: u64) {
        if let Some(slot) = self.slot(split(inode).0) {
            slot.known(1);
        }
    }

    fn forget(&self, inode: u64, times: u64) {
        self.slots().forget(split(inode).0, times);
    }
}

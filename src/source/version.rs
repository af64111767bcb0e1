//! By what a source file is known to be the one that was opened first.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::statx::{Attributes, Time};

/// Identity of the bytes of a file. A source whose stamp differs is answered with an error, never with its new bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: (u32, u32),
    pub inode: u64,
    pub size: u64,
    pub modified: Time,
    pub changed: Time,
    /// Links, mode and owner: a change of these moves `changed` without touching a byte.
    pub inode_state: (u32, u32, u32, u32),
}

impl Stamp {
    /// Of an open file, asked of its server where it has one: another machine's write shows at once.
    pub fn of(file: &File) -> io::Result<Self> {
        Attributes::of(file).map(Self::from)
    }

    pub fn is_of_file_of(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns why the bytes of `now` are doubtful, if they are. Unlinking, renaming over and chmod keep the bytes.
    fn difference(&self, now: &Self) -> Option<String> {
        if self.size != now.size {
            Some(format!("size {} was {}", now.size, self.size))
        } else if self.modified != now.modified {
            Some("modification time".to_owned())
        } else if self.changed != now.changed && self.inode_state == now.inode_state {
            Some("change time".to_owned())
        } else {
            None
        }
    }
}

impl From<Attributes> for Stamp {
    fn from(now: Attributes) -> Self {
        Self {
            device: now.device,
            inode: now.inode,
            size: now.size,
            modified: now.modified,
            changed: now.changed,
            inode_state: (now.links, now.mode, now.owner.0, now.owner.1),
        }
    }
}

/// The stamp against which a file is held: the first, until a change that keeps the bytes makes a later one of it. Or why
/// the bytes are doubtful, for good.
#[derive(Debug)]
pub(super) struct Baseline(Mutex<Result<Stamp, String>>);

impl Baseline {
    pub fn new(first: Stamp) -> Self {
        Self(Mutex::new(Ok(first)))
    }

    /// Whether a file is just as it was when it was last held.
    pub fn is(&self, now: &Stamp) -> bool {
        let baseline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        baseline.as_ref().is_ok_and(|last| last == now)
    }

    /// Holds what `look` finds against the baseline. Looks follow each other: an older one that came later would take an
    /// excuse for a second change.
    pub fn hold<E>(&self, look: impl FnOnce() -> Result<Stamp, E>) -> Result<Option<String>, E> {
        let mut baseline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = look()?;
        let held = baseline.clone();
        if held.as_ref().is_ok_and(|last| !last.is_of_file_of(&now)) {
            return Ok(Some("it is another file".to_owned()));
        }
        *baseline = held.and_then(|last| last.difference(&now).map_or(Ok(now), Err));
        Ok(baseline.clone().err())
    }
}

//! The budget of the source files of a mount, all of its checkpoints together: memory for metadata (indexes, headers,
//! pickles and the tensors that they name), and open descriptors.
//!
//! A reader of metadata charges the memory that it needs before it allocates. Where that is more than is left, the
//! checkpoint is refused, and all others are served on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::descriptors::Descriptors;
use crate::error::{Error, Result};
use crate::limits;

/// The part of the memory of this process that metadata may take: threads, replies and caches need the rest.
const SHARE: u64 = 4;

/// The metadata of a hundred billion parameters on a thousand ranks takes half of it.
const MOST: u64 = 1 << 30;

/// Limits, and how far they are used. Clones share both.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    taken: AtomicU64,
    descriptors: Descriptors,
}

/// Memory that is charged until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub fn of(limit: u64) -> Self {
        Self(Arc::new(Account {
            limit,
            taken: AtomicU64::new(0),
            descriptors: Descriptors::new(),
        }))
    }

    /// Bounded by what the process can have alone.
    pub fn unlimited() -> Self {
        Self::of(u64::MAX)
    }

    /// Charges `bytes` for the metadata of `file`.
    ///
    /// # Errors
    /// When the budget or the process has no such memory left.
    pub fn charge(&self, file: &Path, bytes: u64) -> Result<Charge> {
        let mut charge = Charge {
            budget: self.clone(),
            bytes: 0,
        };
        charge.cover_for(file, bytes)?;
        Ok(charge)
    }

    pub(super) fn descriptors(&self) -> &Descriptors {
        &self.0.descriptors
    }

    /// Bytes that are charged now.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl Default for Budget {
    /// A quarter of the memory that this process may have, and no more than a large training's metadata takes.
    fn default() -> Self {
        Self::of((limits::obtainable_memory() / SHARE).min(MOST))
    }
}

impl Charge {
    /// Charges nothing yet, and no budget.
    pub fn none() -> Self {
        Self {
            budget: Budget::unlimited(),
            bytes: 0,
        }
    }

    /// A charge of nothing yet, on the same budget.
    pub fn another(&self) -> Self {
        Self {
            budget: self.budget.clone(),
            bytes: 0,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Charges more, until it covers `bytes`. The error is a reason.
    pub fn cover(&mut self, bytes: u64) -> std::result::Result<(), String> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let Account { limit, taken, .. } = &*self.budget.0;
        let add = |taken: u64| taken.checked_add(more).filter(|sum| sum <= limit);
        let added = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if let Err(taken) = added {
            let left = limit.saturating_sub(taken.saturating_sub(self.bytes));
            return Err(format!(
                "its metadata takes at least {bytes} bytes of memory, where {left} of {limit} are left; {REMEDY}"
            ));
        }
        self.bytes = bytes;
        if more < PROBED {
            return Ok(());
        }
        // Memory that is granted here is there a moment later: what cannot be had ends the process otherwise.
        let probe = usize::try_from(more).map(|more| Vec::<u8>::new().try_reserve_exact(more));
        match probe {
            Ok(Ok(())) => Ok(()),
            _ => Err(format!(
                "its metadata takes {bytes} bytes of memory, which this process cannot have; {REMEDY}"
            )),
        }
    }

    /// The same, for the metadata of `file`.
    pub fn cover_for(&mut self, file: &Path, bytes: u64) -> Result<()> {
        self.cover(bytes).map_err(|reason| Error::Memory {
            file: file.to_owned(),
            reason,
        })
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.0.taken.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Smaller charges are not probed: their memory is mostly in the heap already.
const PROBED: u64 = 256 << 10;

const REMEDY: &str = "pass a larger --metadata-memory, or take a save with less metadata";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_count_together_until_they_are_dropped() {
        let file = Path::new("index.json");
        let budget = Budget::of(1000);
        let mut one = budget.charge(file, 600).unwrap();
        let line = budget.clone().charge(file, 500).unwrap_err().to_string();
        assert!(
            line.contains("500 bytes of memory, where 400 of 1000"),
            "{line}"
        );
        one.shrink(300);
        let other = budget.charge(file, 500).unwrap();
        assert!(one.cover(501).is_err());
        assert_eq!((one.bytes(), budget.taken()), (300, 800));
        drop(other);
        one.cover(501).unwrap();
        assert_eq!(budget.taken(), 501);
        drop(one);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let budget = Budget::of(u64::MAX);
        let line = budget.charge(Path::new("x"), 1 << 62).unwrap_err();
        assert_eq!(line.errno(), libc::ENOMEM);
        assert_eq!(budget.taken(), 0);
    }
}

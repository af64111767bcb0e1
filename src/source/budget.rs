//! Memory for metadata: what indexes, headers, pickles and the tensors that they name take, all checkpoints of a mount together.
//!
//! A reader of metadata charges the memory that it needs before it allocates. Where that is more than is left, the
//! checkpoint is refused, and all others are served on.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::error::{Error, Result};

/// The part of the memory of this process that metadata may take: threads, replies and caches need the rest.
const SHARE: u64 = 4;

/// The metadata of a hundred billion parameters on a thousand ranks takes half of it.
const MOST: u64 = 1 << 30;

/// What may be charged, and what is. Clones share both.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: u64,
    taken: AtomicU64,
}

/// Memory that is charged until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub fn of(limit: u64) -> Self {
        let taken = AtomicU64::new(0);
        Self(Arc::new(Account { limit, taken }))
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

    /// Bytes that are charged now.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl Default for Budget {
    /// A quarter of the memory that this process may have, and no more than a large training's metadata takes.
    fn default() -> Self {
        Self::of((memory_limit() / SHARE).min(MOST))
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
        let Account { limit, taken } = &*self.budget.0;
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

/// What so small a part is charged for is mostly in the heap already.
const PROBED: u64 = 256 << 10;

const REMEDY: &str = "pass a larger --metadata-memory, or take a save with less metadata";

/// Memory that this process may have: the least of the machine's, its limits and those of its control groups.
pub fn memory_limit() -> u64 {
    let limits = [Resource::RLIMIT_AS, Resource::RLIMIT_DATA]
        .map(|resource| getrlimit(resource).map_or(RLIM_INFINITY, |(soft, _)| soft));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let all = limits.into_iter().chain(total(&meminfo));
    let all = all.chain(group_limits(&groups, Path::new("/sys/fs/cgroup")));
    all.min().unwrap_or(u64::MAX)
}

/// `MemTotal` of /proc/meminfo, which counts in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The limits of the groups that /proc/self/cgroup names and of all above them, in both versions of control groups.
fn group_limits(groups: &str, root: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a namespace of its own a group may lie above the root that is seen: then only that one can be asked.
        let place = root.join(group.trim_start_matches('/'));
        let above = place
            .ancestors()
            .take_while(|place| place.starts_with(&root));
        let texts = above.filter_map(|place| fs::read_to_string(place.join(file)).ok());
        limits.extend(texts.filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits
}

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

    #[test]
    fn the_least_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/memory.max", "5000\n");
        put("a/b/memory.max", "max\n");
        put("memory/c/memory.limit_in_bytes", "7000\n");
        let limits = |groups| group_limits(groups, root.path());
        assert_eq!(limits("0::/a/b\n"), [5000]);
        assert_eq!(limits("12:cpu,cpuacct:/x\n4:memory:/c/d\n0::/\n"), [7000]);
        assert_eq!(limits("0::/\n"), [0; 0]);
        assert_eq!(total("MemFree: 1 kB\nMemTotal:  16 kB\n"), Some(16 << 10));
        assert!(memory_limit() > 1 << 20);
    }
}

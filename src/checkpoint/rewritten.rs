//! A save that is being written over an older one of the same name, told by the times of its files.
//!
//! A writer opens the data files of the older save again, one after the other, and leaves the old marker, the file with which
//! a save ends, until all of them are written. Meanwhile the folder holds parts of two saves, and every size is right. The
//! birth time of a data file tells that apart from a copy, which makes new files:
//!
//! ```text
//! saved             data born     data written     marker written
//! copied            marker written    data born    data written
//! being rewritten   data born     marker written   data written
//! ```
//!
//! A process that saw the save whole needs no birth time: no data file changes under the marker of a save that has ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::doubt::{Doubt, REST};
use super::folder::Folder;
use super::formats::deepspeed::files::is_of_first_rank;
use super::locate::layout::CheckpointFormat;
use super::tracker::{self, Said};
use crate::error::{Error, Result};
use crate::source::place;
use crate::statx::{Attributes, Source, copies_up, has_one_clock};
use crate::text::utc;

/// How far the clocks of machines that write to one network filesystem may be apart.
const SKEW: i64 = 1;

/// Seconds that ranks wait for each other at most: DeepSpeed's `default_pg_timeout`.
const PATIENCE: i64 = 1800;

/// The weights of one folder and the file that a save of them ends with.
#[derive(Debug)]
pub struct Marked {
    marker: (PathBuf, Attributes),
    data: Vec<(PathBuf, Attributes)>,
    times: Times,
    /// Whether other ranks than the first may end after the marker: DeepSpeed's `latest`.
    is_early: bool,
}

/// A save that was whole, as it is remembered: its marker, and inode, size and time of each data file.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    marker: Attributes,
    data: Box<[(u64, u64, SystemTime)]>,
}

/// A data file that was written after the marker of its save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    data: PathBuf,
    written: SystemTime,
    marker: PathBuf,
    marked: SystemTime,
    evidence: &'static str,
}

/// The filesystem's times, as far as they can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// Seconds by which a data file may seem younger than the marker.
    skew: i64,
    /// Whether a file that is written to may be born then, so that it is taken for a copy.
    copies_up: bool,
}

impl Times {
    fn of(marker: &Path) -> Self {
        Self {
            skew: if has_one_clock(marker) { 0 } else { SKEW },
            copies_up: copies_up(marker),
        }
    }
}

/// How the times of a data file and of its marker lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Saved,
    Copied,
    Rewritten,
    /// Copied or rewritten: the filesystem keeps no birth times, or makes them anew.
    Unknown,
}

impl Marked {
    /// `None` for a layout without a marker, and where there is none.
    pub fn at(folder: &Folder, format: &CheckpointFormat, source: Source) -> Result<Option<Self>> {
        let Some((marker, is_early)) = marker(folder, format) else {
            return Ok(None);
        };
        let Ok(attributes) = place::attributes(&marker, source) else {
            return Ok(None);
        };
        let times = Times::of(&marker);
        let data = format.data_files(folder)?.into_iter().filter_map(|name| {
            let path = folder.path().join(&name);
            let found = place::attributes(&path, source).ok()?;
            let is_good =
                order(&found, &attributes, times) == Order::Saved || !folder.is_download(&name);
            is_good.then_some((path, found))
        });
        Ok(Some(Self {
            marker: (marker, attributes),
            data: data.collect(),
            times,
            is_early,
        }))
    }

    /// Whether the save has rested long enough, if its data has for `rest`. Where the times of all ranks tell that it has
    /// ended, it need not rest.
    pub fn has_rested(&self, rest: Duration) -> bool {
        let needs_rest = self.is_early || self.doubtful().is_some();
        let of_marker = self.marker.1.written().elapsed().unwrap_or(REST);
        !needs_rest || rest.min(of_marker) >= REST
    }

    /// The first data file that was made before the marker and written after it.
    pub fn rewritten(&self) -> Option<Rewritten> {
        const EVIDENCE: &str = "with which a save ends, and was made before: a save is being written over an older one";
        self.first(Order::Rewritten, EVIDENCE)
    }

    /// The first data file of which that cannot be told.
    pub fn doubtful(&self) -> Option<Rewritten> {
        const UNTOLD: &str = "with which a save ends, by a copy or by a save over an older one: the filesystem does not tell when files are made";
        const EARLY: &str =
            "which the first rank writes, by a slower rank or by a save over an older one";
        let evidence = if self.is_early { EARLY } else { UNTOLD };
        self.first(Order::Unknown, evidence)
    }

    fn first(&self, wanted: Order, evidence: &'static str) -> Option<Rewritten> {
        let mut data = self.data.iter();
        let found = data.find(|data| self.order(data) == wanted);
        found.map(|data| self.named(data, evidence))
    }

    fn order(&self, (path, data): &(PathBuf, Attributes)) -> Order {
        let name = path.file_name().and_then(|name| name.to_str());
        let may_be_slow = || {
            self.is_early
                && !name.is_some_and(is_of_first_rank)
                && data.modified.0.saturating_sub(self.marker.1.modified.0) <= PATIENCE
        };
        match order(data, &self.marker.1, self.times) {
            Order::Rewritten if may_be_slow() => Order::Unknown,
            order => order,
        }
    }

    /// The first data file that changed since the save was `seen` whole under the same marker. A time that was set back is
    /// no write: a copy ends with that.
    pub fn changed_since(&self, seen: &Seen) -> Option<Rewritten> {
        const EVIDENCE: &str = "with which a save ends, which was seen with all its data before: a save is being written over an older one";
        if !self.marker.1.is_same_write(&seen.marker) || self.data.len() < seen.data.len() {
            return None;
        }
        let is_seen = |(inode, size, written): &(u64, u64, SystemTime)| {
            self.data.iter().any(|(_, now)| {
                (now.inode, now.size) == (*inode, *size) && now.written() <= *written
            })
        };
        if seen.data.iter().all(is_seen) {
            return None;
        }
        let is_new = |(_, now): &&(PathBuf, Attributes)| {
            !seen.data.iter().any(|(inode, size, written)| {
                (now.inode, now.size) == (*inode, *size) && now.written() <= *written
            })
        };
        let data = self.data.iter().find(is_new)?;
        Some(self.named(data, EVIDENCE))
    }

    pub fn seen(&self) -> Seen {
        let data = self.data.iter();
        let data = data.map(|(_, file)| (file.inode, file.size, file.written()));
        Seen {
            marker: self.marker.1,
            data: data.collect(),
        }
    }

    fn named(&self, data: &(PathBuf, Attributes), evidence: &'static str) -> Rewritten {
        Rewritten {
            data: data.0.clone(),
            written: data.1.written(),
            marker: self.marker.0.clone(),
            marked: self.marker.1.written(),
            evidence,
        }
    }
}

impl Rewritten {
    pub fn error(&self) -> Error {
        Doubt::from(self).error()
    }
}

impl From<&Rewritten> for Doubt {
    fn from(rewritten: &Rewritten) -> Self {
        Self {
            path: rewritten.data.clone(),
            written: Some(rewritten.written),
            reason: format!(
                "was written {}, after {} ({}), {}",
                utc(rewritten.written),
                rewritten.marker.display(),
                utc(rewritten.marked),
                rewritten.evidence
            ),
        }
    }
}

/// The file with which a save ends, and whether other ranks than the first may end after it.
fn marker(folder: &Folder, format: &CheckpointFormat) -> Option<(PathBuf, bool)> {
    if let Some(name) = format.marker() {
        return Some((folder.path().join(name), false));
    }
    let tracker = tracker::above(&format.save_in(folder))?;
    let is_early = format.may_outlast(&tracker);
    (tracker.said != Said::Ahead).then_some((tracker.path, is_early))
}

fn order(data: &Attributes, marker: &Attributes, times: Times) -> Order {
    let (seconds, nanoseconds) = data.modified;
    match data.born {
        _ if (seconds.saturating_sub(times.skew), nanoseconds) <= marker.modified => Order::Saved,
        Some(born) if born < marker.modified => Order::Rewritten,
        Some(_) if times.copies_up => Order::Unknown,
        Some(_) => Order::Copied,
        None => Order::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Times = Times {
        skew: 0,
        copies_up: false,
    };

    /// A file made and written at such seconds.
    fn file(born: Option<i64>, modified: i64) -> Attributes {
        let own = Attributes::at(Path::new("/"), Source::Cache).unwrap();
        Attributes {
            modified: (modified, 0),
            born: born.map(|born| (born, 0)),
            ..own
        }
    }

    #[test]
    fn birth_marker_and_write_tell_a_save_a_copy_and_a_rewrite_apart() {
        let marker = file(Some(10), 10);
        for (born, modified, expected) in [
            (Some(5), 9, Order::Saved),
            (Some(5), 10, Order::Saved),
            (Some(50), 9, Order::Saved),
            (Some(10), 11, Order::Copied),
            (Some(11), 12, Order::Copied),
            (Some(9), 11, Order::Rewritten),
            (None, 9, Order::Saved),
            (None, 11, Order::Unknown),
        ] {
            let found = order(&file(born, modified), &marker, LOCAL);
            assert_eq!(found, expected, "born {born:?}, written {modified}");
        }
        for (modified, expected) in [(11, Order::Saved), (12, Order::Rewritten)] {
            let apart = Times {
                skew: SKEW,
                ..LOCAL
            };
            assert_eq!(order(&file(Some(9), modified), &marker, apart), expected);
        }
        for (born, modified, expected) in [
            (5, 10, Order::Saved),
            (9, 11, Order::Rewritten),
            (11, 12, Order::Unknown),
        ] {
            let overlay = Times {
                copies_up: true,
                ..LOCAL
            };
            assert_eq!(
                order(&file(Some(born), modified), &marker, overlay),
                expected
            );
        }
    }

    fn marked(marker: i64, data: &[(u64, u64, i64)]) -> Marked {
        let data = data.iter().map(|(inode, size, modified)| {
            let times = file(None, *modified);
            let times = Attributes {
                inode: *inode,
                size: *size,
                ..times
            };
            (PathBuf::from(format!("{inode}")), times)
        });
        Marked {
            marker: (PathBuf::from("marker"), file(None, marker)),
            data: data.collect(),
            times: LOCAL,
            is_early: false,
        }
    }

    #[test]
    fn only_ranks_after_the_first_may_end_after_an_early_marker() {
        let found = |name: &str, modified: i64| {
            let marked = Marked {
                is_early: true,
                ..marked(10, &[])
            };
            marked.order(&(PathBuf::from(name), file(Some(5), modified)))
        };
        let (first, second) = (
            "zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "zero_pp_rank_1_mp_rank_00_optim_states.pt",
        );
        for (name, modified, expected) in [
            (first, 9, Order::Saved),
            (first, 11, Order::Rewritten),
            (second, 9, Order::Saved),
            (second, 11, Order::Unknown),
            (second, 11 + PATIENCE, Order::Rewritten),
        ] {
            assert_eq!(found(name, modified), expected, "{name} {modified}");
        }
    }

    #[test]
    fn data_that_changes_under_a_marker_seen_whole_is_being_rewritten() {
        let seen = marked(10, &[(1, 7, 5), (2, 7, 6)]).seen();
        let changed = |marker: i64, data: &[(u64, u64, i64)]| {
            let rewritten = marked(marker, data).changed_since(&seen);
            rewritten.map(|rewritten| rewritten.data.display().to_string())
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(changed(10, &[(1, 7, 5), (2, 7, 6)]), None);
        assert_eq!(changed(10, &[(1, 7, 5), (2, 7, 20)]), named("2"));
        assert_eq!(changed(10, &[(1, 3, 5), (2, 7, 6)]), named("1"));
        assert_eq!(changed(10, &[(3, 7, 5), (2, 7, 6)]), named("3"));
        // Ended anew, set back to older times, joined by another file, not all there.
        assert_eq!(changed(30, &[(1, 7, 25), (2, 7, 26)]), None);
        assert_eq!(changed(10, &[(1, 7, 2), (2, 7, 6)]), None);
        assert_eq!(changed(10, &[(1, 7, 5), (2, 7, 6), (3, 1, 9)]), None);
        assert_eq!(changed(10, &[(2, 7, 6)]), None);
    }
}

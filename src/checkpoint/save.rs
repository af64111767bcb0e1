//! One save of a run: where it lies, whether it has ended, and what tells it from another of the same name.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::folder::Folder;
use super::layout::{Layout, layouts};
use super::place::search;
use super::run::numbered;
use crate::error::{Error, Result};

/// The part of verl's saves that is served.
const ACTOR: &str = "actor";

/// What torch.distributed.checkpoint writes last, under another name first.
const METADATA: &str = ".metadata";

/// What Lingua writes last, and looks for when it resumes.
const TRAIN_STATE: &str = "train_state_00000.json";

/// How long files that nothing says are complete must have rested to count as complete.
const REST: Duration = Duration::from_secs(10);

/// After so long a rest nobody will make them complete.
const ABANDONED: Duration = Duration::from_secs(600);

/// A checkpoint of a run.
#[derive(Debug, Clone)]
pub struct Save {
    /// Of its folder in the run.
    pub name: String,
    /// The number in the name.
    pub number: Option<u64>,
    /// Folders with checkpoints of their own, `actor` and `critic`. None where the save is one checkpoint.
    pub parts: Vec<String>,
    /// The words for how its weights lie there.
    pub layouts: Vec<&'static str>,
    pub has_ended: bool,
    /// When the newest of its files was written.
    pub modified: SystemTime,
    /// Of the folder.
    pub metadata: Metadata,
    /// The folder itself, then all that a rewritten checkpoint would change.
    traces: Vec<Trace>,
}

/// A file or folder as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trace {
    device: u64,
    inode: u64,
    modified: SystemTime,
}

/// A folder with weights in a save.
struct Weights {
    folder: Folder,
    layouts: Vec<Layout>,
}

/// Looks at the folder `name` of a run. `last` is the number of the last save that has ended, where the run says it.
///
/// A numbered folder that cannot be looked into counts as a save: opening it will say why.
pub fn look(run: &Folder, name: &str, last: Option<u64>) -> Option<Save> {
    let metadata = fs::metadata(run.path().join(name)).ok()?;
    let number = numbered(name).map(|(_, number)| number);
    let hits = search(run, name);
    let weights = hits.and_then(|hits| Ok((Weights::all(run, &hits)?, hits)));
    let (weights, hits) = match weights {
        Ok((weights, _)) if weights.is_empty() => return None,
        Ok(found) => found,
        Err(error) if number.is_none() || is_gone(&error) => return None,
        Err(_) => (Vec::new(), Vec::new()),
    };
    let traces: Vec<Trace> = [Trace::of(&metadata)]
        .into_iter()
        .chain(weights.iter().flat_map(Weights::traces))
        .collect();
    let modified = traces.iter().map(|trace| trace.modified).max()?;
    let has_ended = match last.zip(number) {
        Some((last, number)) => number <= last && weights.iter().all(Weights::has_marker),
        None => weights
            .iter()
            .all(|weights| weights.has_ended(name, modified)),
    };
    Some(Save {
        name: name.to_owned(),
        number,
        parts: parts(name, &hits),
        layouts: weights.iter().flat_map(Weights::words).collect(),
        has_ended,
        modified,
        metadata,
        traces,
    })
}

impl Save {
    /// Whether both are the same save, and nobody wrote into it in between.
    pub fn is(&self, other: &Self) -> bool {
        self.traces == other.traces
    }

    /// The path of the model in the run: of verl's parts, the actor.
    pub fn model(&self) -> String {
        match self.parts.iter().any(|part| part == ACTOR) {
            true => format!("{}/{ACTOR}", self.name),
            false => self.name.clone(),
        }
    }

    pub(super) fn has_folder_at(&self, path: &Path) -> bool {
        let now = fs::metadata(path).ok();
        now.is_some_and(|now| self.traces.first() == Some(&Trace::of(&now)))
    }
}

/// The folders right below `name` that hold the `hits`, if there are several.
fn parts(name: &str, hits: &[String]) -> Vec<String> {
    let below = hits
        .iter()
        .filter_map(|hit| hit.strip_prefix(name)?.strip_prefix('/'));
    let mut parts: Vec<String> = below
        .filter_map(|hit| hit.split('/').next().map(str::to_owned))
        .collect();
    parts.dedup();
    if parts.len() > 1 { parts } else { Vec::new() }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

impl Trace {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl Weights {
    fn all(run: &Folder, hits: &[String]) -> Result<Vec<Self>> {
        let at = |hit: &String| {
            let folder = run.subfolder(hit)?;
            let layouts = layouts(&folder)?;
            Ok(Self { folder, layouts })
        };
        hits.iter().map(at).collect()
    }

    fn is_dcp(&self) -> bool {
        self.layouts.contains(&Layout::Dcp)
    }

    fn words(&self) -> impl Iterator<Item = &'static str> {
        self.layouts.iter().map(Layout::word)
    }

    /// The last file that torch.distributed.checkpoint writes is a new one with each save; other layouts have no such file.
    fn traces(&self) -> Vec<Trace> {
        let files = match self.is_dcp() {
            true => vec![METADATA.to_owned()],
            false => self.folder.names().unwrap_or_default(),
        };
        let paths = files.iter().map(|name| self.folder.path().join(name));
        let all = [self.folder.path().to_owned()].into_iter().chain(paths);
        all.filter_map(|path| Trace::at(&path)).collect()
    }

    fn has_marker(&self) -> bool {
        !self.is_dcp() || self.folder.exists(METADATA)
    }

    /// Whether the files say by themselves that they are complete. `name` is the save's, `modified` its newest file's time.
    fn has_ended(&self, name: &str, modified: SystemTime) -> bool {
        match self.is_dcp() {
            true if is_linguas(name) => {
                self.has_marker() && (self.folder.exists(TRAIN_STATE) || rested(modified) >= REST)
            }
            true => self.has_marker(),
            false => self.is_at_rest(modified),
        }
    }

    fn is_at_rest(&self, modified: SystemTime) -> bool {
        let rest = rested(modified);
        let is_whole = || self.layouts.len() > 1 || super::open(self.folder.path(), None).is_ok();
        rest >= ABANDONED || rest >= REST && is_whole()
    }
}

/// Lingua names its saves by ten digits.
fn is_linguas(name: &str) -> bool {
    name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// A file from the future, by another machine's clock, is as old as it must be.
fn rested(modified: SystemTime) -> Duration {
    modified.elapsed().unwrap_or(REST)
}

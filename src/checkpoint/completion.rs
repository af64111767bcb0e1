//! Whether a save has ended: what says so in each layout, and what was found out so far.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::folder::Folder;
use super::links::resolve;
use super::locate::layout::{CheckpointFormat, Files, layouts};
use crate::error::{Error, Result};

/// What torch.distributed.checkpoint writes last, under another name first.
const METADATA: &str = ".metadata";

/// What Lingua writes last, and looks for when it resumes.
const TRAIN_STATE: &str = "train_state_00000.json";

/// How long files that nothing says are complete must have rested to count as complete.
const REST: Duration = Duration::from_secs(10);

/// After so long a rest nobody will make them complete.
const ABANDONED: Duration = Duration::from_secs(600);

/// A file or folder as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    device: u64,
    inode: u64,
    size: u64,
    pub modified: SystemTime,
}

/// A folder with weights in a save, or the one file that is the save.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    layouts: Vec<CheckpointFormat>,
}

/// What the saves of a run were found to be, each as long as no file of it changes.
#[derive(Debug, Default)]
pub struct Completions(Mutex<HashMap<String, Completion>>);

#[derive(Debug, PartialEq, Eq)]
enum Completion {
    /// Told apart as a save is from a later one of its name.
    Ended(Vec<Trace>),
    /// With all that a copy that goes on would change.
    Partial(Vec<Trace>),
}

impl Completions {
    /// Whether the save called `name` is complete. `said` is what the run itself says of it.
    pub fn has_ended(
        &self,
        name: &str,
        traces: &[Trace],
        weights: &[Weights],
        said: Option<bool>,
    ) -> bool {
        if said == Some(false) || !weights.iter().all(Weights::has_marker) {
            return false;
        }
        let ended = Completion::Ended(traces.to_vec());
        if self.knows(name, &ended) {
            return true;
        }
        let all: Vec<Trace> = weights.iter().flat_map(Weights::all_traces).collect();
        let rest = rested(traces.iter().chain(&all));
        let may_end = |weights: &Weights| said.is_some() || weights.may_end(name, rest);
        let has_ended =
            rest >= ABANDONED || weights.iter().all(may_end) && self.is_whole(name, weights, all);
        if has_ended {
            self.learn(name, ended);
        }
        has_ended
    }

    /// Opens the weights, unless they are still as they were when they were not whole.
    fn is_whole(&self, name: &str, weights: &[Weights], all: Vec<Trace>) -> bool {
        let partial = Completion::Partial(all);
        if self.knows(name, &partial) {
            return false;
        }
        let is_whole = weights.iter().all(|weights| weights.fault().is_none());
        if !is_whole {
            self.learn(name, partial);
        }
        is_whole
    }

    fn knows(&self, name: &str, ending: &Completion) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name) == Some(ending)
    }

    fn learn(&self, name: &str, ending: Completion) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), ending);
    }
}

impl Trace {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Of what `path` leads to, which begins with `folder`.
    fn at(folder: &Path, path: &Path) -> Option<Self> {
        let path = resolve(folder, path).ok()?;
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl Weights {
    /// What lies at `hit` in the run.
    pub fn at(run: &Folder, hit: &str) -> Result<Self> {
        if run.metadata(hit).is_ok_and(|found| found.is_file()) {
            return Ok(Self {
                path: run.locate(hit)?,
                layouts: vec![single_file(hit)],
            });
        }
        let folder = run.subfolder(hit)?;
        Ok(Self {
            path: folder.path().to_owned(),
            layouts: layouts(&folder)?,
        })
    }

    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.layouts.iter().map(CheckpointFormat::word)
    }

    /// What a rewritten checkpoint would change. The last file that torch.distributed.checkpoint writes is a new one with
    /// each save; other layouts have no such file.
    pub fn traces(&self) -> Vec<Trace> {
        match self.is_dcp() {
            true => self.traces_of([self.path.clone(), self.path.join(METADATA)]),
            false => self.all_traces(),
        }
    }

    /// The folder, its files and those of Megatron's ranks; or the file.
    fn all_traces(&self) -> Vec<Trace> {
        let ranks = self.layouts.iter().flat_map(|layout| match layout {
            CheckpointFormat::MegatronRanks(names) => &**names,
            _ => &[],
        });
        let folders = ranks.map(|name| self.path.join(name));
        let paths = [self.path.clone()].into_iter().chain(folders);
        self.traces_of(paths.flat_map(|path| [entries(&path), vec![path]].concat()))
    }

    fn traces_of(&self, paths: impl IntoIterator<Item = PathBuf>) -> Vec<Trace> {
        let trace = |path: PathBuf| Trace::at(&self.path, &path);
        paths.into_iter().filter_map(trace).collect()
    }

    fn has(&self, name: &str) -> bool {
        resolve(&self.path, Path::new(name)).is_ok()
    }

    fn is_dcp(&self) -> bool {
        self.layouts.contains(&CheckpointFormat::Dcp)
    }

    fn has_marker(&self) -> bool {
        !self.is_dcp() || self.has(METADATA)
    }

    /// Whether the files may be complete, by what is written last or by their rest. `name` is the save's.
    fn may_end(&self, name: &str, rest: Duration) -> bool {
        let is_marked = match self.is_dcp() {
            true => !is_linguas(name) || self.has(TRAIN_STATE),
            false => false,
        };
        is_marked || rest >= REST
    }

    /// What is missing of all that the files themselves promise: a copy may have begun with what a save ends with.
    pub fn fault(&self) -> Option<Error> {
        let is_telling =
            |layout: &&CheckpointFormat| !self.is_dcp() || **layout == CheckpointFormat::Dcp;
        let mut telling = self.layouts.iter().filter(is_telling);
        telling.find_map(|layout| super::open(&self.path, Some(layout.word())).err())
    }
}

fn single_file(name: &str) -> CheckpointFormat {
    let files = Files {
        names: vec![name.to_owned()],
        index: None,
    };
    match name.ends_with(".safetensors") {
        true => CheckpointFormat::Safetensors(files),
        false => CheckpointFormat::Torch(files),
    }
}

/// What lies right in a folder, in no order that lasts.
fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}

/// Lingua names its saves by ten digits.
fn is_linguas(name: &str) -> bool {
    name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// How long nothing has changed. A file from the future, by another machine's clock, is as old as it must be.
fn rested<'a>(traces: impl Iterator<Item = &'a Trace>) -> Duration {
    let newest = traces.map(|trace| trace.modified).max();
    newest
        .and_then(|newest| newest.elapsed().ok())
        .unwrap_or(REST)
}

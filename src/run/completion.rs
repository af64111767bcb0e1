//! Whether a save has ended: what says so in each layout, and what was found out so far.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::checkpoint::doubt::REST;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::links::resolve;
use crate::checkpoint::locate::layout::{CheckpointFormat, Files, layouts};
use crate::checkpoint::locate::manifest::MANIFEST;
use crate::checkpoint::locate::tag::LATEST;
use crate::checkpoint::rewritten::{Marked, Rewritten, Seen};
use crate::checkpoint::{Opening, open_with};
use crate::error::{Error, Result};
use crate::source::{Budget, place};
use crate::statx::{Attributes, Source};

/// The file that torch.distributed.checkpoint writes last, first under a temporary name.
const METADATA: &str = ".metadata";

/// The file that Lingua writes last, and looks for when it resumes.
const TRAIN_STATE: &str = "train_state_00000.json";

/// Age after which an incomplete save counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(600);

/// A file or folder as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    device: (u32, u32),
    inode: u64,
    size: u64,
    pub modified: SystemTime,
    /// Seconds and nanoseconds. A change of attributes alone moves it: readers of the file as it was get errors then, and the
    /// save is opened anew.
    changed: (i64, i64),
}

/// A folder with weights in a save, or the one file that is the save.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    /// None where the save is a file.
    folder: Option<Folder>,
    layouts: Vec<CheckpointFormat>,
    budget: Budget,
}

/// The weights of a save, opened.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Whole,
    /// Not all that they promise is there.
    Partial,
    /// There is no memory to tell.
    TooLarge,
}

/// The judgement on a save.
#[derive(Debug)]
pub struct Judged {
    pub has_ended: bool,
    pub rewritten: Option<Rewritten>,
}

/// The known state of each save of a run, valid as long as no file of it changes.
#[derive(Debug, Default)]
pub struct Completions(Mutex<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    completion: Completion,
    /// The save when it was last seen whole.
    whole: Vec<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
enum Completion {
    /// Told apart as a save is from a later one of its name.
    Ended(Vec<Trace>),
    /// With all that a copy that goes on would change.
    Partial(Vec<Trace>),
}

impl Completions {
    /// Judges the save called `name`. `said` is what the run itself says of it.
    pub fn judge(
        &self,
        name: &str,
        traces: &[Trace],
        weights: &[Weights],
        said: Option<bool>,
    ) -> Judged {
        let marked = weights.iter().flat_map(Weights::marked);
        let marked: Vec<Marked> = marked.collect();
        if let Some(rewritten) = self.rewritten(name, &marked) {
            return Judged {
                has_ended: true,
                rewritten: Some(rewritten),
            };
        }
        Judged {
            has_ended: self.has_ended(name, traces, weights, &marked, said),
            rewritten: None,
        }
    }

    /// The first file that shows that the save is being written over.
    fn rewritten(&self, name: &str, marked: &[Marked]) -> Option<Rewritten> {
        if let Some(found) = marked.iter().find_map(Marked::rewritten) {
            return Some(found);
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = &known.get(name)?.whole;
        let mut both = marked.iter().zip(whole);
        both.find_map(|(now, seen)| now.changed_since(seen))
    }

    fn has_ended(
        &self,
        name: &str,
        traces: &[Trace],
        weights: &[Weights],
        marked: &[Marked],
        said: Option<bool>,
    ) -> bool {
        if said == Some(false) || !weights.iter().all(Weights::has_marker) {
            return false;
        }
        let ended = Completion::Ended(of_bytes(traces));
        if self.knows(name, &ended) {
            return true;
        }
        let all: Vec<Trace> = weights.iter().flat_map(Weights::all_traces).collect();
        let rest = rested(traces.iter().chain(&all));
        let may_end = |weights: &Weights| said.is_some() || weights.may_end(name, rest);
        let has_rested = |marked: &Marked| marked.has_rested(rest);
        let is_marked = weights.iter().all(may_end) && marked.iter().all(has_rested);
        let found = match is_marked {
            true => self.look(name, weights, &all),
            false => Found::Partial,
        };
        let has_ended = found != Found::Partial || rest >= ABANDONED;
        if has_ended {
            let whole = if found == Found::Whole { marked } else { &[] };
            self.learn(name, ended, whole);
        }
        has_ended
    }

    /// Opens the weights, unless they are still as they were when they were not whole.
    fn look(&self, name: &str, weights: &[Weights], all: &[Trace]) -> Found {
        let partial = Completion::Partial(of_bytes(all));
        if self.knows(name, &partial) {
            return Found::Partial;
        }
        match weights.iter().find_map(Weights::fault) {
            None => Found::Whole,
            Some(Error::Memory { .. }) => Found::TooLarge,
            Some(_) => {
                self.learn(name, partial, &[]);
                Found::Partial
            }
        }
    }

    /// Forgets the saves that are not among `names`, which are sorted.
    pub fn keep(&self, names: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| names.binary_search(name).is_ok());
        known.shrink_to(2 * names.len());
    }

    fn knows(&self, name: &str, ending: &Completion) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(name)
            .is_some_and(|known| known.completion == *ending)
    }

    fn learn(&self, name: &str, completion: Completion, whole: &[Marked]) {
        let whole = whole.iter().map(Marked::seen).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), Known { completion, whole });
    }
}

impl Trace {
    pub fn of(found: &Attributes) -> Self {
        Self {
            device: found.device,
            inode: found.inode,
            size: found.size,
            modified: found.written(),
            changed: found.changed,
        }
    }

    /// Of what `path` leads to, which begins with `folder`.
    fn at(folder: &Path, path: &Path) -> Option<Self> {
        let path = match place::is_remote(path) {
            true => path.to_owned(),
            false => resolve(folder, path).ok()?,
        };
        let found = place::attributes(&path, Source::Cache).ok()?;
        Some(Self::of(&found))
    }

    /// The part of the trace that only a write changes.
    fn of_bytes(self) -> Self {
        let changed = (0, 0);
        Self { changed, ..self }
    }
}

impl Weights {
    /// Returns the trace of the entry `hit` of the run.
    pub fn at(run: &Folder, hit: &str) -> Result<Self> {
        if run.metadata(hit).is_ok_and(|found| found.is_file()) {
            return Ok(Self {
                path: run.locate(hit)?,
                folder: None,
                budget: run.budget().clone(),
                layouts: vec![single_file(hit)],
            });
        }
        let folder = run.subfolder(hit)?;
        Ok(Self {
            path: folder.path().to_owned(),
            layouts: layouts(&folder)?,
            budget: run.budget().clone(),
            folder: Some(folder),
        })
    }

    /// The marker and the data files of each layout that has a marker. Those that cannot be looked at are not among them:
    /// opening the save will say why.
    fn marked(&self) -> Vec<Marked> {
        let folder = self.folder.iter();
        let both =
            folder.flat_map(|folder| self.layouts.iter().map(move |layout| (folder, layout)));
        both.filter_map(|(folder, layout)| Marked::at(folder, layout, Source::Cache).ok()?)
            .collect()
    }

    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.layouts.iter().map(CheckpointFormat::word)
    }

    /// Identifies the save among later ones of its name.
    pub fn traces(&self) -> Vec<Trace> {
        let Some(folder) = self.folder.as_ref().filter(|_| self.is_dcp()) else {
            return self.all_traces();
        };
        let data = CheckpointFormat::Dcp.data_files(folder).unwrap_or_default();
        let files = data.iter().map(String::as_str).chain([METADATA]);
        let files = files.map(|name| self.path.join(name));
        self.traces_of(files.chain([self.path.clone()]))
    }

    /// The folder, its files and those of the layout's inner folders; or the file.
    fn all_traces(&self) -> Vec<Trace> {
        let inner = self
            .layouts
            .iter()
            .flat_map(CheckpointFormat::inner_folders);
        let folders = inner.map(|name| self.path.join(name));
        let paths = [self.path.clone()].into_iter().chain(folders);
        self.traces_of(paths.flat_map(|path| [entries(&path), vec![path]].concat()))
    }

    fn traces_of(&self, paths: impl IntoIterator<Item = PathBuf>) -> Vec<Trace> {
        let trace = |path: PathBuf| Trace::at(&self.path, &path);
        paths.into_iter().filter_map(trace).collect()
    }

    fn has(&self, name: &str) -> bool {
        match place::is_remote(&self.path) {
            true => place::exists(&self.path.join(name)).unwrap_or(false),
            false => resolve(&self.path, Path::new(name)).is_ok(),
        }
    }

    fn is_dcp(&self) -> bool {
        self.layouts.contains(&CheckpointFormat::Dcp)
    }

    /// Whether verl's manifest of the save is there, two or three folders above the weights.
    fn has_manifest(&self) -> bool {
        let above = self.path.ancestors().skip(1).take(3);
        above
            .map(|folder| folder.join(MANIFEST))
            .any(|file| file.is_file())
    }

    /// Whether the file is there with which a save ends. DeepSpeed writes it beside the folder of the save.
    fn has_marker(&self) -> bool {
        let is_marked = |layout: &CheckpointFormat| match layout {
            CheckpointFormat::Dcp => self.has(METADATA),
            CheckpointFormat::DeepSpeed(None) => {
                let run = self.path.parent();
                run.is_some_and(|run| place::is_file(&run.join(LATEST)))
            }
            _ => true,
        };
        self.layouts.iter().all(is_marked)
    }

    /// Whether the files may be complete, by what is written last or by their rest. `name` is the save's.
    fn may_end(&self, name: &str, rest: Duration) -> bool {
        let is_marked = match self.is_dcp() {
            true => !is_linguas(name) || self.has(TRAIN_STATE),
            false => self.has_manifest(),
        };
        is_marked || rest >= REST
    }

    /// Returns what the files promise and lack: a copy may begin with the file that a save ends with.
    pub fn fault(&self) -> Option<Error> {
        let is_telling =
            |layout: &&CheckpointFormat| !self.is_dcp() || **layout == CheckpointFormat::Dcp;
        let mut telling = self.layouts.iter().filter(is_telling);
        let opening = |layout: &CheckpointFormat| Opening {
            system: Some(layout.word()),
            // Judged before.
            accepts_rewritten: true,
            budget: self.budget.clone(),
        };
        telling.find_map(|layout| open_with(&self.path, &opening(layout)).err())
    }
}

fn of_bytes(traces: &[Trace]) -> Vec<Trace> {
    traces.iter().map(|trace| trace.of_bytes()).collect()
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

/// Lists a folder, in no stable order.
fn entries(path: &Path) -> Vec<PathBuf> {
    if place::is_remote(path) {
        let entries = place::list(path).unwrap_or_default();
        return entries.iter().map(|entry| path.join(&entry.name)).collect();
    }
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

//! A run: a folder of checkpoints, to which a training may still be adding. Callers decide first whether a path is a run or
//! a checkpoint: [`Run::find`], [`Run::single`] and [`open`] do it for them.

mod completion;
mod save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::checkpoint::folder::Folder;
use crate::checkpoint::locate::saves::{first, holds_checkpoints};
use crate::checkpoint::locate::single_file::is_single_file;
use crate::checkpoint::locate::{is_optimizers, search};
use crate::checkpoint::save_names::{is_link_beside, is_temporary, numbered};
use crate::checkpoint::{self, Checkpoint, Opening, Rewritten, tracker};
use crate::error::{Error, Result};
use crate::source::{Budget, place};
use completion::Completions;

pub use crate::checkpoint::save_names::LATEST;
pub use save::Save;

/// A folder whose folders or files are checkpoints.
#[derive(Debug)]
pub struct Run {
    /// The folder that was named, or its folder of checkpoints.
    named: Folder,
    /// Where the checkpoints are, once there are any.
    settled: OnceLock<Folder>,
    endings: Completions,
    /// Whether saves are shown while they are being written over.
    accepts_rewritten: bool,
    budget: Budget,
}

impl Run {
    fn at(folder: Folder) -> Self {
        let run = Self::awaited_at(folder);
        run.settled.get_or_init(|| run.named.clone());
        run
    }

    fn awaited_at(folder: Folder) -> Self {
        Self {
            named: folder,
            settled: OnceLock::new(),
            endings: Completions::default(),
            accepts_rewritten: false,
            budget: Budget::default(),
        }
    }

    /// Shows saves that are being written over as they are, if it `accepts_rewritten` ones, and charges what is read of saves
    /// to `budget`.
    pub fn opened_as(self, accepts_rewritten: bool, budget: Budget) -> Self {
        Self {
            accepts_rewritten,
            budget,
            ..self
        }
    }

    /// The run at `source`, or in its folder of checkpoints. `None` where there is one checkpoint, or none.
    ///
    /// A numbered folder makes a run, even while it is the only one.
    pub fn find(source: &Path) -> Result<Option<Self>> {
        Ok(first(source, &holds_checkpoints)?.map(Self::at))
    }

    /// The run that is to be at `source`, where nothing is saved yet. An empty folder may as well be a wrong one.
    pub fn awaited(source: &Path) -> Result<Option<Self>> {
        if is_empty(source) {
            return Ok(None);
        }
        Ok(first(source, &holds_nothing)?.map(Self::awaited_at))
    }

    /// The folder of the checkpoints: of an awaited run it is known when there are some.
    fn folder(&self) -> &Folder {
        let find = || first(self.named.path(), &holds_checkpoints).ok().flatten();
        let settle = || find().map(|folder| self.settled.get_or_init(|| folder));
        self.settled.get().or_else(settle).unwrap_or(&self.named)
    }

    /// `source` itself; where it is `latest` of a run and no file, the model of the latest save, which it leads to now.
    ///
    /// # Errors
    /// When the run has no save that has ended.
    pub fn pinned(source: &Path) -> Result<PathBuf> {
        let parent = source.parent().filter(|_| source.ends_with(LATEST));
        let parent = parent
            .filter(|_| !place::exists(source).unwrap_or(true))
            .map(|parent| parent.join("."));
        let run = parent.map(|parent| Self::find(&parent)).transpose()?;
        let Some(run) = run.flatten() else {
            return Ok(source.to_owned());
        };
        run.locate_latest()
    }

    /// The one checkpoint that `source` names: of a run whose saves are numbered, the one that `latest` would lead to.
    ///
    /// # Errors
    /// When no numbered save of the run has ended.
    pub fn single(source: &Path) -> Result<PathBuf> {
        let source = Self::pinned(source)?;
        match Self::find(&source)? {
            Some(run) if run.is_numbered()? => run.locate_latest(),
            Some(run) => run.check().map(|()| source),
            None => Ok(source),
        }
    }

    fn locate_latest(&self) -> Result<PathBuf> {
        match self.latest()? {
            Some(save) => self.folder().locate(&save.model()),
            None => Err(Error::checkpoint(
                self.path(),
                "holds no complete checkpoint with a number yet; name one of its saves, or mount it as a run",
            )),
        }
    }

    /// Whether any save has a number.
    fn is_numbered(&self) -> Result<bool> {
        let names = self.names()?;
        let mut numbered = names.iter().filter(|name| numbered(name).is_some());
        Ok(numbered.any(|name| self.save(name).is_some()))
    }

    /// Refuses a folder of which no save is numbered and none can be read: it is no run, whatever its files look like.
    pub fn check(&self) -> Result<()> {
        if self.is_numbered()? {
            return Ok(());
        }
        let names = self.names()?;
        let mut first = None;
        for save in names.iter().filter_map(|name| self.save(name)) {
            // One that has not ended counts where it can be read: a folder that was just installed may look like one.
            let unread = || save::fault(&self.charged(), &save.name);
            match self.fault(&save).or_else(unread) {
                None => return Ok(()),
                Some(fault) => drop(first.get_or_insert(fault)),
            }
        }
        first.map_or(Ok(()), |fault| {
            let reason = format!("is no run: none of its checkpoints can be shown ({fault})");
            Err(Error::checkpoint(self.path(), reason))
        })
    }

    pub fn path(&self) -> &Path {
        self.folder().path()
    }

    /// The names of its folders, most of them checkpoints, and of files that are checkpoints, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = self.folder().folders()?;
        let files = self.folder().names()?;
        names.extend(files.into_iter().filter(|name| is_single_file(name)));
        names.retain(|name| self.may_show(name));
        names.sort_unstable();
        self.endings.keep(&names);
        Ok(names)
    }

    /// Returns the save under `name`, complete or not. `None` where no checkpoint is.
    pub fn save(&self, name: &str) -> Option<Save> {
        let look = || {
            let mut looked = save::look(&self.charged(), name, self.last_ended(), &self.endings)?;
            if self.accepts_rewritten {
                looked.rewritten = None;
            }
            Some(looked)
        };
        self.may_show(name).then(look).flatten()
    }

    /// Why a save is broken that counts as ended.
    pub fn fault(&self, save: &Save) -> Option<Error> {
        let look = || save::fault(&self.charged(), &save.name);
        let rewritten = save.rewritten.as_ref().map(Rewritten::error);
        rewritten.or_else(|| save.has_ended.then(look).flatten())
    }

    /// A link called `latest` gives way to the run's own; a temporary name is that of a save to come; a name with control
    /// characters is no checkpoint's.
    fn may_show(&self, name: &str) -> bool {
        let is_replaced = || name == LATEST && self.path().join(name).read_link().is_ok();
        !name.contains('/')
            && !name.chars().any(char::is_control)
            && !is_temporary(name)
            && !is_replaced()
            && !is_link_beside(self.folder(), name)
    }

    /// Whether the folder of `save` is the one that was looked at. What lies deeper may differ.
    pub fn has_folder_of(&self, save: &Save) -> bool {
        save.has_folder_in(self.folder())
    }

    /// The place of a save, or of one of its parts.
    ///
    /// # Errors
    /// When it is a link that leads out of the run.
    pub fn place(&self, save: &Save, part: Option<&str>) -> Result<PathBuf> {
        let name = &save.name;
        let relative = part.map_or(name.clone(), |part| format!("{name}/{part}"));
        self.folder().locate(&relative)
    }

    /// The save with the highest number of all that have ended. Names that differ in more than the number, `epoch_0` and
    /// `step_500`, are not compared by it: of the highest of each kind the one that was saved last counts.
    pub fn latest(&self) -> Result<Option<Save>> {
        let names = self.names()?;
        let mut kinds: BTreeMap<String, Vec<(Vec<u64>, &str)>> = BTreeMap::new();
        for name in &names {
            if let Some((kind, numbers)) = numbered(name) {
                kinds.entry(kind).or_default().push((numbers, name));
            }
        }
        let highest = kinds.into_values().filter_map(|mut kind| {
            kind.sort_unstable();
            let mut saves = kind.iter().rev().filter_map(|(_, name)| self.save(name));
            saves.find(|save| save.has_ended)
        });
        Ok(highest.max_by_key(|save| save.modified))
    }

    /// Whether any save has ended.
    pub fn has_a_save(&self) -> bool {
        let has_ended = |name: &String| self.save(name).is_some_and(|save| save.has_ended);
        self.names().is_ok_and(|names| names.iter().any(has_ended))
    }

    fn charged(&self) -> Folder {
        self.folder().clone().within(&self.budget)
    }

    fn last_ended(&self) -> Option<u64> {
        tracker::last_ended(self.folder())
    }
}

/// Opens the one checkpoint at `source`.
///
/// # Errors
/// As those of [`checkpoint::open_with`]; where there are several, the error names those that are complete.
pub fn open(source: &Path, opening: &Opening<'_>) -> Result<Checkpoint> {
    checkpoint::open_with(source, opening).map_err(|error| match error {
        Error::Several { path, names } => which(&path, &names).unwrap_or_else(|error| error),
        error => error,
    })
}

fn is_empty(folder: &Path) -> bool {
    match place::is_remote(folder) {
        true => place::list(folder).is_ok_and(|entries| entries.is_empty()),
        false => std::fs::read_dir(folder).is_ok_and(|mut names| names.next().is_none()),
    }
}

/// Asks for one of `several`: those that are complete, unless none is.
fn which(path: &Path, several: &[String]) -> Result<Error> {
    const SHOWN: usize = 5;
    let run = Run::at(Folder::open(path)?);
    let complete = |hit: &&String| {
        let name = hit.split('/').next().unwrap_or(hit);
        run.save(name).is_some_and(|save| save.has_ended)
    };
    let complete: Vec<&String> = several.iter().filter(complete).collect();
    let (all, named) = match complete.len() {
        0 => (
            "checkpoints, none of which is complete",
            several.iter().collect(),
        ),
        count if count < several.len() => ("checkpoints that are complete", complete),
        _ => ("checkpoints", complete),
    };
    let names: Vec<&str> = named.iter().take(SHOWN).map(|name| name.as_str()).collect();
    let more = if named.len() > SHOWN { ", ..." } else { "" };
    let latest = match run.latest() {
        Ok(Some(_)) => ", or latest",
        _ => "",
    };
    let (count, names) = (named.len(), names.join(", "));
    let reason = format!("holds {count} {all}; name one of them: {names}{more}{latest}");
    Ok(Error::checkpoint(path, reason))
}

/// Whether there is nothing but numbered folders, in which no checkpoint has begun. Those of versions, `python3.11`, are none.
fn holds_nothing(folder: &Folder) -> Result<bool> {
    let mut folders = folder.folders()?;
    folders.retain(|name| is_optimizers(name) || !is_save_to_come(name));
    Ok(folder.names()?.is_empty() && folders.is_empty() && search(folder, "")?.is_empty())
}

fn is_save_to_come(name: &str) -> bool {
    numbered(name).is_some() && !name.contains('.') || is_temporary(name)
}

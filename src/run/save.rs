//! One save of a run: where it lies, and what tells it from another of the same name.

use std::time::SystemTime;

use super::completion::{Completions, Trace, Weights};
use crate::checkpoint::Rewritten;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::locate::single_file::is_single_file;
use crate::checkpoint::locate::{ACTING, UNFINISHED, search};
use crate::checkpoint::save_names::numbered;
use crate::error::{Error, Result};
use crate::statx::Attributes;

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
    /// Whether it counts as complete: it may be broken all the same.
    pub has_ended: bool,
    /// Why it is taken for one that is being written over.
    pub rewritten: Option<Rewritten>,
    /// When the newest of its files was written.
    pub modified: SystemTime,
    /// Of the folder.
    pub metadata: Attributes,
    /// The folder itself, then all that a rewritten checkpoint would change.
    traces: Vec<Trace>,
}

/// Looks at what is called `name` in a run. `last` is the number of the last save that has ended, where the run says it.
///
/// A numbered folder that cannot be looked into counts as a save: opening it will say why.
pub fn look(run: &Folder, name: &str, last: Option<u64>, endings: &Completions) -> Option<Save> {
    let metadata = run.metadata(name).ok()?;
    if !metadata.is_folder() && !is_single_file(name) {
        return None;
    }
    let number = numbered(name).and_then(|(_, numbers)| numbers.last().copied());
    let (weights, hits) = match weights(run, name) {
        Ok((weights, _)) if weights.is_empty() => return None,
        Ok(found) => found,
        Err(error) if number.is_none() || is_gone(&error) => return None,
        Err(_) => (Vec::new(), Vec::new()),
    };
    let traces: Vec<Trace> = [Trace::of(&metadata)]
        .into_iter()
        .chain(weights.iter().flat_map(Weights::traces))
        .collect();
    let said = last.zip(number).map(|(last, number)| number <= last);
    let found = endings.judge(name, &traces, &weights, said);
    Some(Save {
        name: name.to_owned(),
        number,
        parts: parts(name, &hits),
        layouts: weights.iter().flat_map(Weights::words).collect(),
        has_ended: found.has_ended && !run.exists(&format!("{name}/{UNFINISHED}")),
        rewritten: found.rewritten,
        modified: traces.iter().map(|trace| trace.modified).max()?,
        metadata,
        traces,
    })
}

/// The weights of a save, and the names under which they lie in the run.
fn weights(run: &Folder, name: &str) -> Result<(Vec<Weights>, Vec<String>)> {
    let hits = match run.has_folder(name) {
        true => search(run, name)?,
        false => vec![name.to_owned()],
    };
    let weights = hits.iter().map(|hit| Weights::at(run, hit));
    Ok((weights.collect::<Result<_>>()?, hits))
}

/// Returns why the save called `name` cannot be opened.
pub fn fault(run: &Folder, name: &str) -> Option<Error> {
    match weights(run, name) {
        Ok((weights, _)) => weights.iter().find_map(Weights::fault),
        Err(error) => Some(error),
    }
}

impl Save {
    /// Whether both are the same save, with nothing written in between.
    pub fn is(&self, other: &Self) -> bool {
        self.traces == other.traces && self.rewritten == other.rewritten
    }

    /// The path of the model in the run: of several parts, the one that is trained to act.
    pub fn model(&self) -> String {
        let mut acting = ACTING.iter();
        let acting = acting.find(|acting| self.parts.iter().any(|part| part == *acting));
        acting.map_or_else(|| self.name.clone(), |part| format!("{}/{part}", self.name))
    }

    pub(super) fn has_folder_in(&self, run: &Folder) -> bool {
        let now = run.metadata(&self.name);
        now.is_ok_and(|now| self.traces.first() == Some(&Trace::of(&now)))
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

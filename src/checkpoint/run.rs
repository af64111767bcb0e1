//! A run: a folder of checkpoints, to which a training may still be adding.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::place::search;
use super::save::{self, Save};
use crate::error::Result;

/// Folders in which torchtitan (0.3.0) and Lingua keep a run's checkpoints.
const INNER: [&str; 2] = ["checkpoint", "checkpoints"];

/// The name of the link to the latest save.
pub const LATEST: &str = "latest";

/// Where verl and Megatron write the number of the last save that has ended.
const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// More than any number of a tracker has.
const TRACKER_LIMIT: u64 = 64;

/// A folder whose folders are checkpoints.
#[derive(Debug)]
pub struct Run {
    folder: Folder,
}

impl Run {
    /// The run at `source`, or in its folder of checkpoints. `None` where there is one checkpoint, or none.
    ///
    /// A numbered folder makes a run, even while it is the only one.
    pub fn find(source: &Path) -> Result<Option<Self>> {
        if !source.is_dir() {
            return Ok(None);
        }
        let outer = Folder::open(source)?;
        if holds_checkpoints(&outer)? {
            return Ok(Some(Self { folder: outer }));
        }
        let is_folder = |name: &&str| source.join(name).is_dir();
        for name in INNER.into_iter().filter(is_folder) {
            let folder = outer.subfolder(name)?;
            if holds_checkpoints(&folder)? {
                return Ok(Some(Self { folder }));
            }
        }
        Ok(None)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The names of its folders, most of them checkpoints, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = self.folder.folders()?;
        names.retain(|name| self.may_show(name));
        Ok(names)
    }

    /// What is saved under `name`, or being saved. `None` where no checkpoint is.
    pub fn save(&self, name: &str) -> Option<Save> {
        let shown = self.may_show(name);
        shown
            .then(|| save::look(&self.folder, name, self.last_ended()))
            .flatten()
    }

    /// A link called `latest` gives way to the run's own; a name with control characters is nobody's checkpoint.
    fn may_show(&self, name: &str) -> bool {
        let is_replaced = || name == LATEST && self.path().join(name).is_symlink();
        !name.contains('/') && !name.chars().any(char::is_control) && !is_replaced()
    }

    /// Whether the folder of `save` is the one that was looked at. What lies deeper may differ.
    pub fn has_folder_of(&self, save: &Save) -> bool {
        save.has_folder_at(&self.path().join(&save.name))
    }

    /// The place of a save, or of one of its parts.
    ///
    /// # Errors
    /// When it is a link that leads out of the run.
    pub fn place(&self, save: &Save, part: Option<&str>) -> Result<PathBuf> {
        let name = &save.name;
        let relative = part.map_or(name.clone(), |part| format!("{name}/{part}"));
        Ok(self.folder.subfolder(&relative)?.path().to_owned())
    }

    /// The save with the highest number of all that have ended. Names that differ in more than the number, `epoch_0` and
    /// `step_500`, are not compared by it: of the highest of each kind the one that was saved last counts.
    pub fn latest(&self) -> Result<Option<Save>> {
        let names = self.names()?;
        let mut kinds: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
        for name in &names {
            if let Some((kind, number)) = numbered(name) {
                kinds.entry(kind).or_default().push((number, name));
            }
        }
        let highest = kinds.into_values().filter_map(|mut kind| {
            kind.sort_unstable();
            let mut saves = kind.iter().rev().filter_map(|(_, name)| self.save(name));
            saves.find(|save| save.has_ended)
        });
        Ok(highest.max_by_key(|save| save.modified))
    }

    /// The number in the tracker. While it is being rewritten there is none.
    fn last_ended(&self) -> Option<u64> {
        let text = self.folder.read_small(TRACKER, TRACKER_LIMIT).ok()?;
        String::from_utf8(text).ok()?.trim().parse().ok()
    }
}

/// Whether the folder is no checkpoint itself and has several, or a numbered one.
fn holds_checkpoints(folder: &Folder) -> Result<bool> {
    let own = search(folder, "")?.len();
    if own > 0 {
        return Ok(own > 1);
    }
    let mut names = folder.folders()?;
    // The numbered ones first: of them one is enough.
    names.sort_by_key(|name| numbered(name).is_none());
    let mut found = 0;
    for name in names {
        // One that cannot be looked at proves nothing.
        let inside = search(folder, &name).map_or(0, |inside| inside.len());
        found += inside;
        if found > 1 || inside > 0 && numbered(&name).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Kind and number of `step-4000`, `global_step_100`, `epoch_1`, `0000004000`, `epoch=0-step=10.ckpt`.
pub fn numbered(name: &str) -> Option<(&str, u64)> {
    let stem = name.strip_suffix(".ckpt").unwrap_or(name);
    let kind = stem.trim_end_matches(|char: char| char.is_ascii_digit());
    let number = stem.get(kind.len()..)?.parse().ok()?;
    Some((kind, number))
}

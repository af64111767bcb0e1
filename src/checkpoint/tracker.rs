//! The file beside the saves of a run that names the last one which has ended: what marks a save of a layout without a last
//! file of its own.

use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::locate::tag::LATEST;
use super::save_names::numbered;
use crate::source::{SourceFile, place};

/// Of verl and Megatron, and of DeepSpeed.
const NAMES: [&str; 2] = ["latest_checkpointed_iteration.txt", LATEST];

/// More than the text of a tracker has.
const LIMIT: u64 = 256;

/// Most folders between the weights and the folder of the save: `global_step_5/actor/dist_ckpt`.
const DEPTH: usize = 3;

/// The number that the tracker of a run names. `None` also while it is being written.
pub fn last_ended(run: &Folder) -> Option<u64> {
    NAMES.iter().find_map(|name| {
        let text = run.read_small(name, LIMIT).ok()?;
        number(&String::from_utf8(text).ok()?)
    })
}

/// The word of a tracker about a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A later save has ended.
    Passed,
    /// It is the last one that has ended.
    Named,
    /// None so late has ended.
    Ahead,
}

/// The tracker of the run in which a save lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Tracker {
    pub path: PathBuf,
    /// The save that it names.
    pub named: String,
    pub said: Said,
}

impl Tracker {
    /// Whether DeepSpeed wrote it, whose first rank does so before other ranks have ended.
    pub fn is_deepspeeds(&self) -> bool {
        self.path.ends_with(LATEST)
    }
}

/// The tracker that tells of the save in which `weights` lies: of several the one that says that it has ended.
pub fn above(weights: &Path) -> Option<Tracker> {
    let saves = weights.ancestors().take(DEPTH);
    let found = saves.flat_map(|save| NAMES.iter().filter_map(|name| at(save, name)));
    let found: Vec<Tracker> = found.collect();
    let (ahead, ended): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|tracker| tracker.said == Said::Ahead);
    ended.into_iter().chain(ahead).next()
}

/// The tracker called `name` beside `save`.
fn at(save: &Path, name: &str) -> Option<Tracker> {
    let own = save.file_name()?.to_str()?;
    let path = save.parent()?.join(name);
    // A store is not asked for what it will hardly have.
    if place::is_remote(&path) {
        numbered(own)?;
    }
    let named = read(&path)?;
    let said = said(own, &named)?;
    Some(Tracker { path, named, said })
}

/// The word of `named`, the text of a tracker, about the save `own`.
fn said(own: &str, named: &str) -> Option<Said> {
    if own == named {
        return Some(Said::Named);
    }
    let (own_kind, own) = numbered(own)?;
    let (kind, last) = numbered(named)?;
    let kind = kind.trim_end_matches(['_', '-']);
    // Other folders beside the saves have numbers of their own.
    let is_of_kind = kind.is_empty() || kind == own_kind.trim_end_matches(['_', '-']);
    match own.last()?.cmp(last.last()?) {
        Ordering::Less => Some(Said::Passed),
        Ordering::Equal => Some(Said::Named),
        Ordering::Greater => is_of_kind.then_some(Said::Ahead),
    }
}

/// The text of a tracker.
fn read(path: &Path) -> Option<String> {
    if place::is_remote(path) {
        let file = SourceFile::open(path)
            .ok()
            .filter(|file| file.size() <= LIMIT)?;
        let mut text = vec![0; usize::try_from(file.size()).ok()?];
        file.read_exact_at(&mut text, 0).ok()?;
        return Some(String::from_utf8(text).ok()?.trim().to_owned());
    }
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// The last number of `100`, `global_step100`, `iter_0000100`.
fn number(text: &str) -> Option<u64> {
    numbered(text.trim())?.1.last().copied()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tracker_marks_the_saves_up_to_its_number() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for save in ["global_step_5/actor", "global_step_9"] {
            fs::create_dir_all(at(save)).unwrap();
        }
        let said = |save: &str| above(&at(save)).map(|found| (found.path, found.said));
        assert_eq!(said("global_step_5"), None);
        for (tracker, text) in [
            (NAMES[0], "6"),
            (NAMES[1], "global_step6\n"),
            (NAMES[1], "global_step_6"),
        ] {
            fs::write(at(tracker), text).unwrap();
            for (save, expected) in [
                ("global_step_5/actor", Some(Said::Passed)),
                ("global_step_6", Some(Said::Named)),
                ("global_step_9", Some(Said::Ahead)),
                ("best", None),
            ] {
                let expected = expected.map(|said| (at(tracker), said));
                assert_eq!(said(save), expected, "{save} {text}");
            }
            assert_eq!(last_ended(&Folder::open(&root).unwrap()), Some(6));
            fs::remove_file(at(tracker)).unwrap();
        }
        // Numbers of another kind, names without a number, and no name.
        for (text, save, expected) in [
            ("hf-8", "global_step_9", None),
            ("best", "best", Some(Said::Named)),
            ("best", "global_step_5", None),
            ("release", "global_step_5", None),
        ] {
            fs::write(at(NAMES[1]), text).unwrap();
            let found = above(&at(save)).map(|found| found.said);
            assert_eq!(found, expected, "{save} {text}");
        }
        // One that says that the save has ended counts before one that does not.
        fs::write(at(NAMES[0]), "5").unwrap();
        fs::write(at(NAMES[1]), "global_step_9").unwrap();
        assert_eq!(said("global_step_9"), Some((at(NAMES[1]), Said::Named)));
    }
}

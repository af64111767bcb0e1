//! The file beside the saves of a run that names the last one which has ended: what marks a save of a layout without a last
//! file of its own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::save_names::numbered;
use crate::source::{SourceFile, place};

/// Of verl and Megatron, and of DeepSpeed.
const NAMES: [&str; 2] = ["latest_checkpointed_iteration.txt", "latest"];

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

/// The tracker that says of the save in which `weights` lies that it has ended.
pub fn above(weights: &Path) -> Option<PathBuf> {
    let saves = weights.ancestors().take(DEPTH);
    let mut found = saves.filter_map(|save| {
        let own = number(save.file_name()?.to_str()?)?;
        let mut trackers = NAMES
            .iter()
            .map(|name| save.parent().map(|run| run.join(name)));
        trackers.find_map(|path| path.filter(|path| read(path).is_some_and(|last| own <= last)))
    });
    found.next()
}

fn read(path: &Path) -> Option<u64> {
    if place::is_remote(path) {
        let file = SourceFile::open(path)
            .ok()
            .filter(|file| file.size() <= LIMIT)?;
        let mut text = vec![0; usize::try_from(file.size()).ok()?];
        file.read_exact_at(&mut text, 0).ok()?;
        return number(&String::from_utf8(text).ok()?);
    }
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(LIMIT).read_to_string(&mut text).ok()?;
    number(&text)
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
        assert_eq!(above(&at("global_step_5")), None);
        for (tracker, text) in [(NAMES[0], "5"), (NAMES[1], "global_step5\n")] {
            fs::write(at(tracker), text).unwrap();
            assert_eq!(above(&at("global_step_5/actor")), Some(at(tracker)));
            assert_eq!(above(&at("global_step_9")), None);
            assert_eq!(last_ended(&Folder::open(&root).unwrap()), Some(5));
            fs::remove_file(at(tracker)).unwrap();
        }
        fs::write(at(NAMES[0]), "release").unwrap();
        assert_eq!(above(&at("global_step_5")), None);
    }
}

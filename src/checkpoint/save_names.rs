//! The names under which runs keep their saves.

use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::links::resolve;
use super::locate::single_file::stem;

/// The name of the link to the latest save.
pub const LATEST: &str = "latest";

/// Starts and ends of the names under which saves are written until they end.
const TEMPORARY_STARTS: [&str; 2] = ["tmp-", "tmp_"];
const TEMPORARY_ENDS: [&str; 2] = [".tmp", ".partial"];

/// Whether `name` is a link to another entry of the same folder and has no number of its own, as `LATEST` and `LOWEST_VAL`:
/// it names a save twice.
pub fn is_link_beside(folder: &Folder, name: &str) -> bool {
    let is_link = folder.path().join(name).read_link().is_ok() && numbered(name).is_none();
    let leads_beside = |target: PathBuf| target.parent() == Some(folder.path());
    is_link && resolve(folder.path(), Path::new(name)).is_ok_and(leads_beside)
}

/// Whether a save of that name is to be renamed when it ends.
pub fn is_temporary(name: &str) -> bool {
    TEMPORARY_STARTS.iter().any(|start| name.starts_with(start))
        || TEMPORARY_ENDS.iter().any(|end| name.ends_with(end))
}

/// Kind and numbers of `step-4000`, `global_step_100`, `epoch_1`, `0000004000`, `epoch=0-step=10.ckpt`.
pub fn numbered(name: &str) -> Option<(String, Vec<u64>)> {
    let stem = stem(name);
    let is_digit = |char: char| char.is_ascii_digit();
    let numbers = stem
        .split(|char| !is_digit(char))
        .filter(|digits| !digits.is_empty());
    let numbers = numbers
        .map(|digits| digits.parse().ok())
        .collect::<Option<_>>()?;
    let kind = stem.replace(is_digit, "");
    stem.ends_with(is_digit).then_some((kind, numbers))
}

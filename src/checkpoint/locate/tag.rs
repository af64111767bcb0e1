//! DeepSpeed's file `latest`, written last of a save, and the folder beside it that it names.

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::deepspeed::files::is_deepspeeds;
use crate::error::{Error, Result};

/// The file, and the one beside what ds_to_universal.py makes.
pub const LATEST: &str = "latest";
const LATEST_UNIVERSAL: &str = "latest_universal";

/// The end of the name that ds_to_universal.py's folder usually has.
const UNIVERSAL: &str = "_universal";

/// Scripts that DeepSpeed puts beside `latest`.
const SCRIPT: &str = "zero_to_fp32.py";

/// More than any tag has bytes.
const TAG_LIMIT: u64 = 4096;

/// The folder of the one save that `folder`, which has `names`, stands for. None where there are several: a run.
///
/// # Errors
/// When the file names none.
pub fn tag(folder: &Folder, names: &[String]) -> Result<Option<String>> {
    let has = |name: &str| names.iter().any(|own| own == name);
    let Some(latest) = [LATEST, LATEST_UNIVERSAL]
        .into_iter()
        .find(|name| has(name))
    else {
        return Ok(None);
    };
    let saves = saves(folder)?;
    if saves.is_empty() && !has(SCRIPT) {
        return Ok(None);
    }
    let tag = read_tag(folder, latest)?;
    if !saves.contains(&tag) {
        let reason = format!(
            "{latest} names {}, which holds no save of DeepSpeed here; name the folder of one{}",
            tag.escape_debug(),
            saves
                .first()
                .map_or(String::new(), |save| format!(": {save}"))
        );
        return Err(Error::checkpoint(folder.path(), reason));
    }
    let is_other = |save: &&String| stem(save) != stem(&tag);
    let is_one = has("config.json") || !saves.iter().any(|save| is_other(&save));
    Ok(is_one.then_some(tag))
}

/// The tag in a file of that name.
pub fn read_tag(folder: &Folder, name: &str) -> Result<String> {
    let text = folder.read_small(name, TAG_LIMIT)?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// The folder in which DeepSpeed put `save`, where config and tokenizer files may lie.
pub fn folder_of_saves(save: &Folder) -> Option<Folder> {
    let folder = Folder::open(save.path().parent()?).ok()?;
    let folder = folder.within(save.budget());
    let mut marks = [LATEST, LATEST_UNIVERSAL, SCRIPT].into_iter();
    marks.any(|mark| folder.exists(mark)).then_some(folder)
}

fn saves(folder: &Folder) -> Result<Vec<String>> {
    let is_save = |name: &String| {
        let names = folder.subfolder(name).and_then(|save| save.names());
        names.is_ok_and(|names| names.iter().any(|name| is_deepspeeds(name)))
    };
    Ok(folder.folders()?.into_iter().filter(is_save).collect())
}

fn stem(save: &str) -> &str {
    save.strip_suffix(UNIVERSAL).unwrap_or(save)
}

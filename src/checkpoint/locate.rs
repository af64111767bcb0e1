//! From the path that a user names to the folder that holds the weights, and the folders that hold what goes with them.

mod assets;
mod contents;
pub mod layout;
pub mod manifest;
mod masters;
pub mod saves;
pub mod single_file;
pub mod tag;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::names;
use super::save_names::{is_link_beside, is_temporary};
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::{Budget, place};
use contents::FileKind;
use layout::{CheckpointFormat, Files, layouts};
use single_file::single_files;

/// Where a checkpoint's parts lie.
#[derive(Debug)]
pub struct LocatedCheckpoint {
    pub layout: CheckpointFormat,
    pub weights: Folder,
    /// Folders with side files, the first wins.
    pub beside: Vec<Folder>,
    /// A remark on other weights, and how they are asked for.
    pub note: Option<String>,
}

/// Folders that hold a checkpoint's weights inside the folder that stands for it: verl's layouts (0.9.1), Megatron
/// Bridge's, Accelerate's, Meta's in Hugging Face repositories, Lingua's consolidated form, SkyRL's and NeMo-RL's policy,
/// RLinf's, prime-rl's and OLMo-core's.
const INNER: [&str; 12] = [
    "dist_ckpt",
    "model",
    "weights",
    "pytorch_model_fsdp_0",
    "original",
    "consolidated",
    "actor",
    "policy",
    "critic",
    "dcp_checkpoint",
    "trainer",
    "model_and_optim",
];

/// The part of a save of reinforcement learning that is trained to act, and so is its model: verl's and SkyRL's.
pub const ACTING: [&str; 2] = ["actor", "policy"];

/// The part that may stand beside it.
const CRITIC: &str = "critic";

/// Where verl 0.9 keeps weights in Hugging Face's form, if it saves no others.
const WHOLE: [&str; 1] = ["huggingface"];

/// Folders that hold an adapter, which is all there is where none of the others is: verl's, and torchtune's main branch's.
const ADAPTERS: [&str; 2] = ["lora_adapter", "adapter_model"];

/// Folders beside or above the weights in which verl, NeMo Automodel, Megatron Bridge and NeMo 2 keep config and tokenizer
/// files.
const SIDES: [&str; 5] = [
    "huggingface",
    "hf_config_and_tokenizer",
    ".hf_metadata",
    "tokenizer",
    "context/nemo_tokenizer",
];

/// The whole tensors that NeMo Automodel makes of the shards beside which they lie.
const CONSOLIDATED: &str = "consolidated";

/// A file that NeMo Automodel takes away when a save has ended.
pub const UNFINISHED: &str = ".incomplete";

/// The folder of the weights in NeMo's saves.
const WEIGHTS: &str = "weights";

/// Most folders between the one named and the weights.
const DEPTH: usize = 4;

/// Refuses a source that leads nowhere.
pub fn check_is_there(source: &Path) -> Result<()> {
    match place::exists(source)? {
        true => Ok(()),
        false => {
            let wanted = "name the folder or the file of a checkpoint as SOURCE";
            Err(Error::absent(source, wanted))
        }
    }
}

/// Finds the checkpoint at `source`: a folder, or a single file.
///
/// The metadata of its files is charged to `budget`.
///
/// # Errors
/// When there is none, or more than one and `system` does not tell which.
pub fn find(source: &Path, system: Option<&str>, budget: &Budget) -> Result<LocatedCheckpoint> {
    check_is_there(source)?;
    if place::is_file(source) {
        return single_file(source, budget);
    }
    let folder = snapshot(Folder::open(source)?)?.within(budget);
    let mut search = Search::new(&folder);
    search.look("", DEPTH)?;
    if search.found.is_empty() {
        let names = folder.folders()?;
        let is_save = |name: &String| !is_temporary(name) && !is_link_beside(&folder, name);
        let mut names = names.iter().filter(|name| is_save(name));
        // Those below are looked at again, from nearer.
        search.seen.retain(|path| path == folder.path());
        names.try_for_each(|name| search.look(name, DEPTH))?;
    }
    let found = search.found;
    if let [relative] = &*found {
        return at(&folder, relative, system);
    }
    if let Some((relative, critic)) = acting(&found) {
        let mut located = at(&folder, relative, system)?;
        let beside = || format!("{critic} beside {relative} is left out: name its folder for it");
        located.note.get_or_insert_with(beside);
        return Ok(located);
    }
    match saves::first(folder.path(), &saves::holds_checkpoints)? {
        Some(inner) if inner.path() != folder.path() => find(inner.path(), system, budget),
        _ if found.is_empty() => Err(none_in(&folder)?),
        _ => Err(Error::Several {
            path: folder.path().to_owned(),
            names: found,
        }),
    }
}

/// The part of one save that is trained to act, and the critic beside it, if these two are all that was found.
fn acting(found: &[String]) -> Option<(&str, &str)> {
    let [one, other] = found else {
        return None;
    };
    let is_pair = |acting: &str, critic: &str| {
        let mut differing = { acting.split('/').zip(critic.split('/')) }.filter(|(a, b)| a != b);
        let first = differing.next();
        first.is_some_and(|(part, other)| ACTING.contains(&part) && other == CRITIC)
    };
    match (is_pair(one, other), is_pair(other, one)) {
        (true, _) => Some((one, other)),
        (_, true) => Some((other, one)),
        _ => None,
    }
}

/// In the repository's folder of a hub cache, the snapshot that `refs/main` names; any other folder itself.
pub fn snapshot(folder: Folder) -> Result<Folder> {
    const MAIN: &str = "refs/main";
    /// More than any revision has bytes.
    const LIMIT: u64 = 256;
    if !folder.exists(MAIN) {
        return Ok(folder);
    }
    let revision = folder.read_small(MAIN, LIMIT)?;
    let revision = String::from_utf8_lossy(&revision);
    let snapshot = folder.subfolder(&format!("snapshots/{}", revision.trim()))?;
    Folder::open(snapshot.path())
}

/// Whether it is a folder in which Accelerate or Megatron Bridge keeps an optimizer beside the weights.
pub fn is_optimizers(name: &str) -> bool {
    matches!(names::unnumbered(name), "optimizer" | "optim")
}

/// Why a folder without weights is no checkpoint.
fn none_in(folder: &Folder) -> Result<Error> {
    let names = folder.names()?;
    let index = names.iter().find(|name| name.ends_with(".index.json"));
    let folders = folder.folders()?;
    let optimizer = folders.iter().find(|name| is_optimizers(name));
    let reason = match index.or(optimizer) {
        Some(optimizer) if index.is_none() => format!("holds {optimizer} and no weights beside it, as in pytorch_model_fsdp_0: {INCOMPLETE}"),
        Some(index) => format!("holds {index} and no shard that it names: {INCOMPLETE}"),
        None => "holds no checkpoint that is known; name the folder that has .metadata, *.safetensors, *.bin, *.pt, *.pth or mp_rank_*".to_owned(),
    };
    Ok(Error::checkpoint(folder.path(), reason))
}

/// The checkpoints at or below `relative`: the files in it that are several, the folder itself, or else its known inner
/// folders.
pub fn search(root: &Folder, relative: &str) -> Result<Vec<String>> {
    let mut search = Search::new(root);
    search.look(relative, DEPTH)?;
    Ok(search.found)
}

struct Search<'a> {
    root: &'a Folder,
    /// Links may lead to one folder by many names, or in a circle.
    seen: HashSet<PathBuf>,
    found: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(root: &'a Folder) -> Self {
        Self {
            root,
            seen: HashSet::new(),
            found: Vec::new(),
        }
    }

    fn look(&mut self, relative: &str, depth: usize) -> Result<()> {
        let folder = inner(self.root, relative)?;
        let name = relative.rsplit('/').next().unwrap_or(relative);
        if is_optimizers(name) || !self.seen.insert(folder.path().to_owned()) {
            return Ok(());
        }
        let layouts = layouts(&folder)?;
        if layouts == [CheckpointFormat::HfSharded] && depth > 0 && is_consolidated(&folder)? {
            return self.look(&join(relative, CONSOLIDATED), depth - 1);
        }
        let lone = single_files(&layouts);
        if !lone.is_empty() {
            let files = lone.iter().map(|name| join(relative, name));
            self.found.extend(files);
            return Ok(());
        }
        if !layouts.is_empty() {
            self.found.push(relative.to_owned());
            return Ok(());
        }
        if depth > 0
            && let Some(weights) = manifest::weights(&folder)?
        {
            return self.look(&join(relative, &weights), depth - 1);
        }
        let is_inner = |name: &&str| depth > 0 && folder.has_folder(name);
        let found = self.found.len();
        for names in [&INNER[..], &WHOLE, &ADAPTERS] {
            let mut names = names.iter().copied().filter(is_inner);
            names.try_for_each(|name| self.look(&join(relative, name), depth - 1))?;
            if self.found.len() > found {
                return Ok(());
            }
        }
        match only_iteration(&folder)?.filter(|_| name == WEIGHTS && depth > 0) {
            Some(iteration) => self.look(&join(relative, &iteration), depth - 1),
            None => Ok(()),
        }
    }
}

/// Whether a folder of shards holds their tensors whole, too.
fn is_consolidated(folder: &Folder) -> Result<bool> {
    if !folder.has_folder(CONSOLIDATED) {
        return Ok(false);
    }
    let names = folder.subfolder(CONSOLIDATED)?.names()?;
    Ok(names.iter().any(|name| name.ends_with(".safetensors")))
}

/// The folder of the one iteration that NeMo-RL saves with Megatron's writer below [`WEIGHTS`].
fn only_iteration(folder: &Folder) -> Result<Option<String>> {
    let mut names = folder.folders()?;
    names.retain(|name| {
        let number = name.strip_prefix("iter_");
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Ok(names.pop().filter(|_| names.is_empty()))
}

fn at(root: &Folder, relative: &str, system: Option<&str>) -> Result<LocatedCheckpoint> {
    let weights = inner(root, relative)?;
    let mut beside = beside(root, relative)?;
    if let Some(folder) = beside.iter().find(|folder| folder.exists(UNFINISHED)) {
        let reason = format!("holds {UNFINISHED}, so that the save has not ended: {INCOMPLETE}");
        return Err(Error::checkpoint(folder.path(), reason));
    }
    let mut found = layouts(&weights)?;
    let note = match system {
        None => masters::pass_over(&weights, &mut found)?,
        Some(_) => None,
    };
    let layout = choose(&weights, found, system)?;
    if layout == CheckpointFormat::DeepSpeed(None) && relative.is_empty() {
        beside.extend(tag::folder_of_saves(&weights));
    }
    beside.extend(assets::of(root));
    Ok(LocatedCheckpoint {
        layout,
        beside,
        weights,
        note,
    })
}

/// The folder of the weights and those above it up to the root, each after its own [`SIDES`].
fn beside(root: &Folder, relative: &str) -> Result<Vec<Folder>> {
    let mut folders = Vec::new();
    let mut relative = relative;
    loop {
        for name in SIDES {
            let side = join(relative, name);
            if root.has_folder(&side) {
                folders.push(root.subfolder(&side)?);
            }
        }
        folders.push(inner(root, relative)?);
        match relative.rsplit_once('/') {
            Some((above, _)) => relative = above,
            None if relative.is_empty() => return Ok(folders),
            None => relative = "",
        }
    }
}

fn inner(root: &Folder, relative: &str) -> Result<Folder> {
    match relative {
        "" => Ok(root.clone()),
        relative => root.subfolder(relative),
    }
}

fn join(above: &str, name: &str) -> String {
    match above {
        "" => name.to_owned(),
        above => format!("{above}/{name}"),
    }
}

fn single_file(source: &Path, budget: &Budget) -> Result<LocatedCheckpoint> {
    let (Some(parent), Some(name)) = (
        source.parent(),
        source.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(Error::checkpoint(
            source,
            "is no name of a file; name a folder or a file",
        ));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let folder = Folder::open(parent)?.within(budget);
    let files = Files {
        names: vec![name.to_owned()],
        index: None,
    };
    let layout = match (contents::kind_of(&folder, name)?, name.rsplit_once('.')) {
        (Some(FileKind::Safetensors), _) => CheckpointFormat::Safetensors(files),
        (Some(FileKind::Torch), _) => CheckpointFormat::Torch(files),
        (None, Some((_, "safetensors"))) => CheckpointFormat::Safetensors(files),
        (None, Some((_, "pt" | "pth" | "bin" | "ckpt"))) => CheckpointFormat::Torch(files),
        _ => {
            let reason = "is no checkpoint by its first bytes: name a folder, or a file of safetensors or torch.save";
            return Err(Error::checkpoint(source, reason));
        }
    };
    Ok(LocatedCheckpoint {
        layout,
        beside: vec![folder.clone()],
        weights: folder,
        note: None,
    })
}

fn choose(
    folder: &Folder,
    mut found: Vec<CheckpointFormat>,
    system: Option<&str>,
) -> Result<CheckpointFormat> {
    if let Some(system) = system
        && let Some(at) = found.iter().position(|layout| layout.word() == system)
    {
        return Ok(found.swap_remove(at));
    }
    if let [_] = &*found {
        return Ok(found.swap_remove(0));
    }
    let choice =
        |layout: &CheckpointFormat| format!("{} (--system {})", layout.evidence(), layout.word());
    let choices: Vec<String> = found.iter().map(choice).collect();
    let reason = format!(
        "holds several checkpoints; name one file or pass a flag: {}",
        choices.join(", ")
    );
    Err(Error::checkpoint(folder.path(), reason))
}

//! From the path that a user names to the folder that holds the weights, and the folders that hold what goes with them.

use std::path::Path;

use super::folder::Folder;
use super::layout::{Files, Layout, layouts};
use crate::error::{Error, Result};

/// Where a checkpoint's parts lie.
#[derive(Debug)]
pub struct Place {
    pub layout: Layout,
    pub weights: Folder,
    /// Folders with side files, the first wins.
    pub beside: Vec<Folder>,
}

/// Folders that hold a checkpoint's weights inside the folder that stands for it, and from there the folder with its
/// config and tokenizer files: verl's Megatron layouts (0.9.1), Accelerate's, Megatron's, Meta's in Hugging Face
/// repositories, Lingua's consolidated form.
const INNER: [(&str, &str); 9] = [
    ("model/dist_ckpt", "model/huggingface"),
    ("dist_ckpt", "huggingface"),
    ("model", "model/huggingface"),
    ("weights", "."),
    ("pytorch_model_fsdp_0", "."),
    ("original", "."),
    ("consolidated", "consolidated"),
    ("actor", "actor/huggingface"),
    ("critic", "critic/huggingface"),
];

/// Finds the checkpoint at `source`: a folder, or a single file.
///
/// # Errors
/// When there is none, or more than one and `system` does not tell which.
pub fn find(source: &Path, system: Option<&str>) -> Result<Place> {
    if source.is_file() {
        return single_file(source);
    }
    let folder = Folder::open(source)?;
    let found = layouts(&folder)?;
    if !found.is_empty() {
        let layout = choose(&folder, found, system)?;
        let beside = beside(&folder, "huggingface")?;
        return Ok(Place {
            layout,
            weights: folder,
            beside,
        });
    }
    inner(&folder, system)
}

fn inner(folder: &Folder, system: Option<&str>) -> Result<Place> {
    let mut found = Vec::new();
    for (weights, side) in INNER {
        if folder.exists(weights) && folder.path().join(weights).is_dir() {
            let weights_folder = folder.subfolder(weights)?;
            let layouts = layouts(&weights_folder)?;
            if !layouts.is_empty() {
                found.push((weights, side, weights_folder, layouts));
            }
        }
    }
    match found.len() {
        0 => Err(nothing_here(folder)?),
        1 => {
            let (_, side, weights, layouts) = found.swap_remove(0);
            let mut beside = beside(folder, side)?;
            beside.insert(0, weights.clone());
            Ok(Place {
                layout: choose(&weights, layouts, system)?,
                weights,
                beside,
            })
        }
        _ => {
            let names: Vec<&str> = found.iter().map(|(name, ..)| *name).collect();
            let reason = format!(
                "holds several checkpoints; name one of them: {}",
                names.join(", ")
            );
            Err(Error::checkpoint(folder.path(), reason))
        }
    }
}

/// The folder itself, and where systems put the Hugging Face files of a checkpoint in it.
fn beside(folder: &Folder, side: &str) -> Result<Vec<Folder>> {
    let mut folders = vec![folder.clone()];
    if side != "." && folder.exists(side) {
        folders.insert(0, folder.subfolder(side)?);
    }
    Ok(folders)
}

fn single_file(source: &Path) -> Result<Place> {
    let (Some(parent), Some(name)) = (
        source.parent(),
        source.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(Error::checkpoint(source, "is no name of a file"));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let folder = Folder::open(parent)?;
    let files = Files {
        names: vec![name.to_owned()],
        index: None,
    };
    let layout = match name.rsplit_once('.') {
        Some((_, "safetensors")) => Layout::Safetensors(files),
        Some((_, "pt" | "pth" | "bin" | "ckpt")) => Layout::Torch(files),
        _ => {
            let reason =
                "is no checkpoint: name a folder, or a .safetensors, .pt, .pth, .bin or .ckpt file";
            return Err(Error::checkpoint(source, reason));
        }
    };
    Ok(Place {
        layout,
        beside: vec![folder.clone()],
        weights: folder,
    })
}

fn choose(folder: &Folder, mut found: Vec<Layout>, system: Option<&str>) -> Result<Layout> {
    if let Some(system) = system
        && let Some(at) = found.iter().position(|layout| layout.word() == system)
    {
        return Ok(found.swap_remove(at));
    }
    if let [_] = &*found {
        return Ok(found.swap_remove(0));
    }
    let choice = |layout: &Layout| format!("{} (--system {})", layout.evidence(), layout.word());
    let choices: Vec<String> = found.iter().map(choice).collect();
    let reason = format!(
        "holds several checkpoints: {}; say which",
        choices.join(", ")
    );
    Err(Error::checkpoint(folder.path(), reason))
}

/// What to tell of a folder without a checkpoint: the folders in it that have one.
fn nothing_here(folder: &Folder) -> Result<Error> {
    const SHOWN: usize = 5;
    let mut inside = Vec::new();
    for name in folder.folders()? {
        let inner = folder.subfolder(&name).and_then(|inner| layouts(&inner));
        if inner.is_ok_and(|found| !found.is_empty()) {
            inside.push(name);
        }
    }
    let reason = match inside.len() {
        0 => "holds no checkpoint that is known: no .metadata, *.safetensors, *.bin, *.pt, *.pth, mp_rank_*".to_owned(),
        count => {
            let shown = inside[..count.min(SHOWN)].join(", ");
            let more = if count > SHOWN { ", ..." } else { "" };
            format!("holds no checkpoint itself; name one of the {count} inside: {shown}{more}")
        }
    };
    Ok(Error::checkpoint(folder.path(), reason))
}

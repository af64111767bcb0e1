//! Files that hold whole tensors: one, or several with or without an index.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use foldhash::HashMap;
use serde::Deserialize;

use super::dcp::LeftAlone;
use super::numbered_files::NumberedFiles;
use super::safetensors;
use super::safetensors::{HEADER_LIMIT, Strings};
use super::torch_file::dtensor::assemble;
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::folder::Folder;
use crate::checkpoint::locate::layout::{Files, one_epoch};
use crate::checkpoint::names::optimizers_entry;
use crate::checkpoint::{SourceTensor, tensor_error};
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::SourceFile;
use crate::tensor::Tensor;

/// `model.safetensors.index.json` and its like (transformers 5.23.0). Whatever it says of sizes is not believed.
#[derive(Deserialize)]
struct Index {
    weight_map: Strings,
}

/// The tensors of safetensors files.
pub fn safetensors_files(folder: &Folder, files: &Files) -> Result<Vec<SourceTensor>> {
    let opened = opened(folder, files)?;
    let mut seen = Seen::default();
    for (file_name, file) in &opened.files {
        let tensors = safetensors::tensors(file)?;
        seen.reserve(tensors.len());
        for (name, tensor) in tensors {
            seen.add(file_name, file, name, tensor)?;
        }
    }
    opened.check(folder, &seen)?;
    Ok(seen.tensors)
}

/// The contents of files of torch.save.
#[derive(Default)]
pub struct Saved {
    pub tensors: Vec<SourceTensor>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: BTreeSet<String>,
    /// Tensors of optimizers, by the entries that hold them.
    pub optimizers: BTreeMap<String, LeftAlone>,
}

/// The tensors of files of torch.save. Parts of DTensors and ShardedTensors are put together across the files.
pub fn torch_files(folder: &Folder, files: &Files) -> Result<Saved> {
    let opened = opened(folder, files)?;
    let mut found = Vec::new();
    let optimizers = RefCell::new(BTreeMap::<String, LeftAlone>::new());
    let is_wanted = |path: &[String]| {
        let name = path.join(".");
        let entry = optimizers_entry(&name);
        if let Some(entry) = entry {
            optimizers
                .borrow_mut()
                .entry(entry.to_owned())
                .or_default()
                .tensors += 1;
        }
        entry.is_none()
    };
    for (file_name, file) in &opened.files {
        let tensors = TorchFile::open(file.clone())?.tensors(&is_wanted)?;
        let tensors = tensors.into_iter();
        found.extend(tensors.map(|(path, value)| (file_name, file, path, value)));
    }
    let dictionaries = dictionaries(found.iter().map(|(_, _, path, _)| &**path));
    let mut seen = Seen::default();
    let mut parts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (file_name, file, path, value) in found {
        let name = path.join(".");
        if path.is_empty() {
            let reason = "holds one tensor without a name; save a state_dict";
            return Err(Error::checkpoint(file.path(), reason));
        }
        tensor_error::refuse_flat(file.path(), &name)?;
        match value? {
            Value::Plain(tensor) => seen.add(file_name, file, name.into(), tensor)?,
            part => parts.entry(name).or_default().push(part),
        }
    }
    let world = parts.values().flatten().map(Value::world).max();
    let ranks = NumberedFiles::of_ranks(folder.path(), &files.names)?;
    let is_ranks = |world: &u64| *world > 0 && !ranks.is_empty();
    let mut missing = world
        .filter(is_ranks)
        .and_then(|world| ranks.require_ranks(world).err());
    for (name, values) in parts {
        let tensor = assemble(values).map_err(|error| match missing.take() {
            Some(missing) => missing,
            None => tensor_error::named(error, folder.path(), &name),
        })?;
        seen.add_assembled(folder, name, tensor)?;
    }
    opened.check(folder, &seen)?;
    Ok(Saved {
        tensors: seen.tensors,
        dictionaries,
        optimizers: optimizers.into_inner(),
    })
}

/// The prefixes of names that are keys of dictionaries.
fn dictionaries<'p>(paths: impl Iterator<Item = &'p [String]>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for path in paths {
        let mut prefix = String::new();
        let keys = path.split_last().map(|(_, keys)| keys);
        for key in keys.into_iter().flatten() {
            prefix.push_str(key);
            prefix.push('.');
            if !all.contains(&prefix) {
                all.insert(prefix.clone());
            }
        }
    }
    all
}

/// The files of one checkpoint: those that its index names, or all.
struct Opened {
    /// Each with its name in the folder, which in a hub cache is a link.
    files: Vec<(Arc<str>, Arc<SourceFile>)>,
    index: Option<(String, Index)>,
}

fn opened(folder: &Folder, Files { names, index }: &Files) -> Result<Opened> {
    one_epoch(folder, names)?;
    let index = match index {
        Some(name) => Some((
            name.clone(),
            folder.json_of_strings::<Index>(name, HEADER_LIMIT)?,
        )),
        None => None,
    };
    let wanted: BTreeSet<&String> = match &index {
        Some((_, index)) => index.weight_map.0.iter().map(|(_, file)| file).collect(),
        None => names.iter().collect(),
    };
    match &index {
        Some((index, _)) => refuse_strays(folder, names, &wanted, index)?,
        None => {
            if names.iter().any(|name| !name.ends_with(".safetensors")) {
                refuse_unrelated(folder, names)?;
            }
            refuse_gaps(folder, names)?;
        }
    }
    let files = wanted
        .into_iter()
        .map(|name| Ok((name.as_str().into(), open(folder, name)?)))
        .collect::<Result<_>>()?;
    Ok(Opened { files, index })
}

fn open(folder: &Folder, name: &str) -> Result<Arc<SourceFile>> {
    folder.open_file(name).map_err(|error| match error {
        Error::Io { file, source } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::checkpoint(&file, format!("is missing: {INCOMPLETE}"))
        }
        error => error,
    })
}

fn refuse_strays(
    folder: &Folder,
    names: &[String],
    wanted: &BTreeSet<&String>,
    index: &str,
) -> Result<()> {
    match names.iter().find(|name| !wanted.contains(name)) {
        None => Ok(()),
        Some(stray) => Err(Error::checkpoint(
            folder.path(),
            format!(
                "{stray} lies beside the shards that {index} names; move one of the two checkpoints away"
            ),
        )),
    }
}

/// Files of torch.save that nothing says belong together are checkpoints of their own, unless each is a part by its name.
fn refuse_unrelated(folder: &Folder, names: &[String]) -> Result<()> {
    let is_part = |name: &String| {
        number_of(name).is_some() || name.contains("rank") || name.starts_with("hf_model_")
    };
    if names.len() < 2 || names.iter().all(is_part) {
        return Ok(());
    }
    let reason = format!(
        "holds several files, each of which may be a checkpoint; name one: {}",
        names.join(", ")
    );
    Err(Error::checkpoint(folder.path(), reason))
}

/// Files that count themselves, `-00002-of-00005`, must all be there, and those with numbers up to the last one.
fn refuse_gaps(folder: &Folder, names: &[String]) -> Result<()> {
    if let Some(missing) = gap(names) {
        let reason = format!("{missing} is missing: {INCOMPLETE}");
        return Err(Error::checkpoint(folder.path(), reason));
    }
    let numbers: Vec<(u64, u64)> = names.iter().filter_map(|name| number_of(name)).collect();
    let Some((_, count)) = numbers.first() else {
        return Ok(());
    };
    match (1..=*count).find(|number| !numbers.contains(&(*number, *count))) {
        None => Ok(()),
        Some(missing) => Err(Error::checkpoint(
            folder.path(),
            format!("file {missing} of {count} is missing: {INCOMPLETE}"),
        )),
    }
}

/// The first of torchtune's `hf_model_0003_0.pt` that is not there, where a later one is.
fn gap(names: &[String]) -> Option<String> {
    const START: &str = "hf_model_";
    let numbered = |name: &String| {
        let (number, _) = name.strip_prefix(START)?.split_once('_')?;
        number.parse::<usize>().ok()
    };
    let last = names.iter().filter_map(numbered).max()?;
    let end = names
        .iter()
        .find_map(|name| name.strip_prefix(START)?.split_once('_'))?
        .1;
    let mut wanted = (1..=last.min(names.len())).map(|number| format!("{START}{number:04}_{end}"));
    wanted.find(|name| !names.contains(name))
}

/// 2 and 5 of `model-00002-of-00005.safetensors`.
fn number_of(name: &str) -> Option<(u64, u64)> {
    let digits = |text: &str| {
        text.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    let (front, back) = name.split_once("-of-")?;
    Some((digits(front.rsplit('-').next()?)?, digits(back)?))
}

/// Tensors by name, each name once.
#[derive(Default)]
struct Seen {
    tensors: Vec<SourceTensor>,
    /// The name of the file that holds each, in the folder.
    files: HashMap<Arc<str>, Arc<str>>,
}

impl Seen {
    fn reserve(&mut self, count: usize) {
        self.tensors.reserve(count);
        self.files.reserve(count);
    }

    fn add(
        &mut self,
        file_name: &Arc<str>,
        file: &SourceFile,
        name: Arc<str>,
        tensor: Tensor,
    ) -> Result<()> {
        if let Some(other) = self.files.insert(name.clone(), file_name.clone()) {
            let reason =
                format!("{other} holds it too; name one of the two files, or move one away");
            return Err(Error::tensor(file.path(), &name, reason));
        }
        self.tensors.push(SourceTensor::whole(name, tensor));
        Ok(())
    }

    fn add_assembled(&mut self, folder: &Folder, name: String, tensor: Tensor) -> Result<()> {
        if self.files.contains_key(&*name) {
            let reason = "is whole in one file and sharded in another: two saves are mixed; copy one of them whole";
            return Err(Error::tensor(folder.path(), &name, reason));
        }
        self.tensors.push(SourceTensor::whole(name, tensor));
        Ok(())
    }
}

impl Opened {
    /// Every name of the index in the file that it names, and no other.
    fn check(&self, folder: &Folder, seen: &Seen) -> Result<()> {
        let Some((index, Index { weight_map })) = &self.index else {
            return Ok(());
        };
        let refuse = |name: &str, reason: String| {
            Err(Error::tensor(
                &folder.path().join(index),
                &name.escape_debug().to_string(),
                format!("{reason}; mend the index, or remove it to read all files"),
            ))
        };
        let Strings(entries) = weight_map;
        for (name, file) in entries {
            match seen.files.get(&**name) {
                Some(held) if **held == **file => {}
                Some(held) => return refuse(name, format!("is in {held} and not in {file}")),
                None => return refuse(name, format!("is not in {file}")),
            }
        }
        if entries.len() == seen.tensors.len() {
            return Ok(());
        }
        let names: HashSet<&str> = entries.iter().map(|(name, _)| &**name).collect();
        let mut tensors = seen.tensors.iter();
        match tensors.find(|tensor| !names.contains(&*tensor.name)) {
            Some(tensor) => refuse(
                &tensor.name,
                "is in a shard, but not in the index".to_owned(),
            ),
            None => Ok(()),
        }
    }
}

//! Directories of torch's Distributed Checkpoint (DCP): `.metadata` tells which chunk of which tensor lies where, and
//! the chunks themselves are looked at when they are first read.
//!
//! Format: torch 2.2.2 to 2.15.0, `torch/distributed/checkpoint/{metadata,filesystem}.py`.

mod chunk;
mod metadata;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use self::chunk::Chunk;
use self::metadata::{Entry, Item, Metadata};
pub use self::shards::hf_sharded;
use super::torch_file::dtensor::distinct;
use super::torch_file::section::Section;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::SourceFile;
use crate::tensor::{Dims, Dtype, Shape, SourceTensor, Tensor, Tile};

/// Memory that an item takes until its chunk is placed: in the map and in the list of ranges, which double, and the chunk.
const ITEM_COST: u64 = 1000;

/// The contents of a directory.
#[derive(Debug)]
pub struct Dcp {
    pub tensors: Vec<SourceTensor>,
    /// By the entries that hold them.
    pub left_alone: BTreeMap<String, LeftAlone>,
    /// Prefixes of names, each with its dot, that were keys of dictionaries.
    pub dictionaries: BTreeSet<String>,
}

/// Tensors that were not wanted, such as an optimizer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftAlone {
    pub tensors: u64,
    pub bytes: u64,
}

/// The entry that holds a tensor of this name which is not wanted.
pub type Other = dyn Fn(&str) -> Option<&str>;

/// Reads the directory's `.metadata` and locates the tensors but those that are left alone. No chunk is read.
pub fn read(folder: &Folder, left_alone: &Other) -> Result<Dcp> {
    let metadata = Metadata::open(folder)?;
    let mut charge = folder.charge(".metadata", metadata.count()? as u64 * ITEM_COST)?;
    let keep = |name: &str| left_alone(name).is_none();
    let items = items(&metadata, folder, &keep)?;
    let mut dcp = Dcp {
        tensors: Vec::new(),
        left_alone: BTreeMap::new(),
        dictionaries: BTreeSet::new(),
    };
    for entry in metadata.entries()? {
        if let Some(other) = left_alone(entry.name) {
            let left: &mut LeftAlone = dcp.left_alone.entry(other.to_owned()).or_default();
            left.add(&entry);
        } else {
            let name: Arc<str> = entry.name.into();
            let tensor = tensor(&name, &entry, &items)
                .map_err(|error| named(error, metadata.path(), &name))?;
            dcp.tensors.push(SourceTensor::whole(name, tensor));
        }
    }
    if let Some(part) = items.values().next() {
        charge.shrink(items.len() as u64 * SourceTensor::COST);
        part.file().keep(charge);
    }
    let names = dcp.tensors.iter().map(|tensor| &*tensor.name).collect();
    dcp.dictionaries = metadata.dictionaries(&names);
    Ok(dcp)
}

/// The chunks of wanted tensors. Every item, wanted or not, must lie inside a file that is there.
fn items<'a>(
    metadata: &'a Metadata,
    folder: &Folder,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Items<'a>> {
    let mut files = Files::new(folder);
    let mut items = HashMap::with_capacity(metadata.count()?);
    let mut ranges = Vec::new();
    for item in metadata.items() {
        let item = item?;
        let part = files.part(&item)?;
        if let Part::Zip(_) = part {
            ranges.push((item.file, item.start, item.start + item.length, item.name));
        }
        let Some(offsets) = item.offsets.filter(|_| keep(item.name)) else {
            continue;
        };
        if items.insert((item.name, offsets), part).is_some() {
            return Err(metadata.refuse(item.name, "has two items for one chunk"));
        }
    }
    check_disjoint(metadata, ranges)?;
    Ok(items)
}

/// No two items may have a byte in common: one of them would show what is another's.
fn check_disjoint(metadata: &Metadata, mut ranges: Vec<(&str, u64, u64, &str)>) -> Result<()> {
    ranges.sort_unstable();
    for (one, other) in ranges.iter().zip(ranges.iter().skip(1)) {
        if one.0 == other.0 && other.1 < one.2 {
            let reason = format!("shares bytes of {} with {}", other.0, one.3.escape_debug());
            return Err(metadata.refuse(other.3, reason));
        }
    }
    Ok(())
}

impl LeftAlone {
    fn add(&mut self, entry: &Entry<'_>) {
        let elements = entry.shape().map_or(0, |shape| shape.elements());
        let bits = entry.dtype().map_or(0, Dtype::bits);
        self.tensors += 1;
        self.bytes = self.bytes.saturating_add(elements.saturating_mul(bits) / 8);
    }
}

/// Chunks by tensor and offsets.
type Items<'a> = HashMap<(&'a str, Dims), Part>;

/// Where the bytes of an item are.
#[derive(Clone)]
enum Part {
    /// A zip of `torch.save`, which holds one tensor.
    Zip(Section),
    /// A file that is safetensors as a whole. There the item's own place means nothing.
    Safetensors(Arc<SourceFile>, Arc<HashMap<Arc<str>, Tile>>),
}

impl Part {
    fn file(&self) -> &SourceFile {
        match self {
            Self::Zip(section) => section.file(),
            Self::Safetensors(file, _) => file,
        }
    }
}

/// The data files, each opened once.
struct Files<'f> {
    folder: &'f Folder,
    open: HashMap<String, Opened>,
    /// Items of one file mostly follow each other.
    last: Option<(String, Opened)>,
}

/// A file and, when it is safetensors, its tensors.
type Opened = (Arc<SourceFile>, Option<Arc<HashMap<Arc<str>, Tile>>>);

impl<'f> Files<'f> {
    fn new(folder: &'f Folder) -> Self {
        Self {
            folder,
            open: HashMap::new(),
            last: None,
        }
    }

    fn part(&mut self, item: &Item<'_>) -> Result<Part> {
        let (file, tiles) = self.file(item.file)?;
        let section = Section::new(file.clone(), item.start, item.length)
            .map_err(|error| named(error, file.path(), item.name))?;
        Ok(match tiles {
            Some(tiles) => Part::Safetensors(file.clone(), tiles.clone()),
            None => Part::Zip(section),
        })
    }

    fn file(&mut self, name: &str) -> Result<&Opened> {
        if self.last.as_ref().is_none_or(|(last, _)| last != name) {
            let opened = match self.open.get(name) {
                Some(opened) => opened.clone(),
                None => open(self.folder, name)?,
            };
            self.open.insert(name.to_owned(), opened.clone());
            self.last = Some((name.to_owned(), opened));
        }
        let opened = self.last.as_ref().map(|(_, opened)| opened);
        opened.ok_or_else(|| {
            let reason = format!("has no data file: {INCOMPLETE}");
            Error::checkpoint(self.folder.path(), reason)
        })
    }
}

fn open(folder: &Folder, name: &str) -> Result<Opened> {
    let file = folder.open_file(name).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::checkpoint(
            folder.path(),
            format!("{} is missing: {INCOMPLETE}", name.escape_debug()),
        ),
        other => other,
    })?;
    let tiles = match shards::is_safetensors(&file)? {
        true => Some(Arc::new(shards::tiles(&file)?.into_iter().collect())),
        false => None,
    };
    Ok((file, tiles))
}

fn tensor<'a>(name: &Arc<str>, entry: &Entry<'a>, items: &Items<'a>) -> Result<Tensor> {
    let (dtype, shape) = (entry.dtype()?, entry.shape()?);
    let mut tiles = Vec::new();
    for chunk in entry.chunks() {
        let (offsets, size) = chunk?;
        if size.elements() == 0 && shape.elements() > 0 {
            continue;
        }
        let key = (entry.name, offsets);
        let part = items.get(&key).cloned();
        let offsets = key.1;
        let part =
            part.ok_or_else(|| Error::Mapping(format!("no item holds its chunk at {offsets:?}")))?;
        let tensor = chunk_tensor(name, dtype, size, &offsets, part)?;
        tiles.push(Tile { offsets, tensor });
    }
    Tensor::tiled(shape, distinct(tiles))
}

/// The bytes of the elements alone.
fn least_bytes(dtype: Dtype, shape: &Shape) -> u64 {
    shape.elements().saturating_mul(dtype.bits()) / 8
}

fn chunk_tensor(
    name: &Arc<str>,
    dtype: Dtype,
    shape: Shape,
    offsets: &[u64],
    part: Part,
) -> Result<Tensor> {
    match part {
        Part::Zip(section) if section.length() < least_bytes(dtype, &shape) => {
            Err(Error::Mapping(format!(
                "an item of {} bytes for a chunk of type {dtype} and shape {shape}, which is incomplete",
                section.length()
            )))
        }
        Part::Zip(section) => {
            let file = section.file().clone();
            let name = name.clone();
            let chunk = Chunk { name, section };
            Tensor::deferred(file, dtype, shape, Box::new(chunk))
        }
        Part::Safetensors(file, tiles) => match tiles.get(&**name) {
            Some(tile)
                if *tile.offsets == *offsets
                    && tile.tensor.dtype() == dtype
                    && *tile.tensor.shape() == shape =>
            {
                Ok(tile.tensor.clone())
            }
            _ => Err(Error::malformed(
                file.path(),
                format!("does not hold the chunk of shape {shape} at {offsets:?}"),
            )),
        },
    }
}

#[cfg(test)]
mod tests;

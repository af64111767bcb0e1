//! Directories of torch's Distributed Checkpoint (DCP): `.metadata` tells which chunk of which tensor lies where, and
//! the chunks themselves are looked at when they are first read.
//!
//! Format: torch 2.2.2 to 2.15.0, `torch/distributed/checkpoint/{metadata,filesystem}.py`.

mod chunk;
mod metadata;
mod shards;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use self::chunk::Chunk;
use self::metadata::{Entry, Item, Metadata};
pub use self::shards::hf_sharded;
use super::folder::Folder;
use super::named::named;
use super::torch_file::dtensor::distinct;
use super::torch_file::section::Section;
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Shape, SourceFile, SourceTensor, Tensor, Tile};

/// What a directory holds.
#[derive(Debug)]
pub struct Dcp {
    pub tensors: Vec<SourceTensor>,
    pub left_alone: LeftAlone,
}

/// Tensors that were not wanted, such as an optimizer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftAlone {
    pub tensors: u64,
    pub bytes: u64,
}

/// Reads the directory's `.metadata` and locates the tensors that `keep` wants. No chunk is read.
pub fn read(folder: &Folder, keep: &dyn Fn(&str) -> bool) -> Result<Dcp> {
    let metadata = Metadata::open(folder)?;
    let mut files = Files::new(folder);
    let mut items = HashMap::new();
    for item in metadata.items() {
        let item = item?;
        let part = files.part(&item)?;
        if keep(item.name)
            && items
                .insert((item.name, item.offsets.clone()), part)
                .is_some()
        {
            let reason = format!("two items hold the chunk at {:?}", item.offsets);
            return Err(metadata.refuse(item.name, reason));
        }
    }
    let mut dcp = Dcp {
        tensors: Vec::new(),
        left_alone: LeftAlone::default(),
    };
    let mut names = HashSet::new();
    for entry in metadata.entries()? {
        if !names.insert(entry.name) {
            return Err(metadata.refuse(entry.name, "is listed twice"));
        }
        if keep(entry.name) {
            let tensor = tensor(&entry, &items)
                .map_err(|error| named(error, metadata.path(), entry.name))?;
            dcp.tensors.push(SourceTensor::whole(entry.name, tensor));
        } else {
            dcp.left_alone.add(&entry);
        }
    }
    Ok(dcp)
}

impl LeftAlone {
    fn add(&mut self, entry: &Entry<'_>) {
        let elements = entry.shape().map_or(0, |shape| shape.elements());
        let bits = entry.dtype().map_or(0, Dtype::bits);
        self.tensors += 1;
        self.bytes = self.bytes.saturating_add(elements.saturating_mul(bits) / 8);
    }
}

type Items<'a> = HashMap<(&'a str, Option<Vec<u64>>), Part>;

/// Where the bytes of an item are.
#[derive(Clone)]
enum Part {
    /// A zip of `torch.save`, which holds one tensor.
    Zip(Section),
    /// A file that is safetensors as a whole. There the item's own place means nothing.
    Safetensors(Arc<SourceFile>, Arc<HashMap<String, Tile>>),
}

/// The data files, each opened once.
struct Files<'f> {
    folder: &'f Folder,
    open: HashMap<String, Opened>,
}

/// A file and, when it is safetensors, its tensors.
type Opened = (Arc<SourceFile>, Option<Arc<HashMap<String, Tile>>>);

impl<'f> Files<'f> {
    fn new(folder: &'f Folder) -> Self {
        let open = HashMap::new();
        Self { folder, open }
    }

    fn part(&mut self, item: &Item<'_>) -> Result<Part> {
        let (file, tiles) = match self.open.get(item.file) {
            Some(opened) => opened.clone(),
            None => {
                let opened = open(self.folder, item.file)?;
                self.open.insert(item.file.to_owned(), opened.clone());
                opened
            }
        };
        let section = Section::new(file.clone(), item.start, item.length)
            .map_err(|error| named(error, file.path(), item.name))?;
        Ok(match tiles {
            Some(tiles) => Part::Safetensors(file, tiles),
            None => Part::Zip(section),
        })
    }
}

fn open(folder: &Folder, name: &str) -> Result<Opened> {
    let file = folder.open_file(name).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::checkpoint(
            folder.path(),
            format!(
                "{} is missing: an incomplete checkpoint",
                name.escape_debug()
            ),
        ),
        other => other,
    })?;
    let tiles = match shards::is_safetensors(&file)? {
        true => Some(Arc::new(shards::tiles(&file)?.into_iter().collect())),
        false => None,
    };
    Ok((file, tiles))
}

fn tensor(entry: &Entry<'_>, items: &Items<'_>) -> Result<Tensor> {
    let (dtype, shape) = (entry.dtype()?, entry.shape()?);
    let mut tiles = Vec::new();
    for chunk in entry.chunks() {
        let (offsets, size) = chunk?;
        if size.elements() > 0 || shape.elements() == 0 {
            let part = part(entry.name, &offsets, items)?;
            let tensor = chunk_tensor(entry.name, dtype, size, &offsets, part)?;
            let offsets = offsets.into();
            tiles.push(Tile { offsets, tensor });
        }
    }
    Tensor::tiled(shape, distinct(tiles))
}

fn part(name: &str, offsets: &[u64], items: &Items<'_>) -> Result<Part> {
    match items.get(&(name, Some(offsets.to_vec()))) {
        Some(part) => Ok(part.clone()),
        None => Err(Error::Mapping(format!(
            "no item holds its chunk at {offsets:?}: an incomplete checkpoint"
        ))),
    }
}

fn chunk_tensor(
    name: &str,
    dtype: Dtype,
    shape: Shape,
    offsets: &[u64],
    part: Part,
) -> Result<Tensor> {
    match part {
        Part::Zip(section) => {
            let file = section.file().clone();
            let chunk = Chunk::new(name, dtype, shape.clone(), section);
            Tensor::deferred(file, dtype, shape, Box::new(chunk))
        }
        Part::Safetensors(file, tiles) => match tiles.get(name) {
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

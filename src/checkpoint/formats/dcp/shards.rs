//! safetensors files with parts of tensors: what HuggingFaceStorageWriter writes for each rank, and what FileSystemWriter
//! writes in its safetensors format.
//!
//! Format: torch 2.15.0 `torch/distributed/checkpoint/{hf_storage,_hf_utils,filesystem}.py`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::safetensors::{self, Header};
use crate::checkpoint::formats::torch_file::dtensor::distinct;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::SourceFile;
use crate::tensor::{Dims, Shape, SourceTensor, Tensor, Tile};

/// The key of a header's metadata that tells where each tensor of the file belongs in the whole.
const SHARDING_INFO: &str = "DCP_SHARDING_INFO";

#[derive(Deserialize)]
struct Sharding {
    saved_offsets: Dims,
}

/// `shard-XXXXX-model-YYYYY-of-ZZZZZ.safetensors`: rank, from one on, and part of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ShardName {
    rank: u64,
    part: u64,
    parts: u64,
}

impl ShardName {
    fn parse(name: &str) -> Option<Self> {
        let (rank, rest) = name.strip_prefix("shard-")?.split_once("-model-")?;
        let (part, parts) = rest.strip_suffix(".safetensors")?.split_once("-of-")?;
        let number = |digits: &str| {
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())?
        };
        Some(Self {
            rank: number(rank)?,
            part: number(part)?,
            parts: number(parts)?,
        })
    }
}

/// The tensors of the folder that HuggingFaceStorageWriter filled, one file for each rank and part.
///
/// The files do not say how large a tensor is: it is as large as its parts reach.
pub fn hf_sharded(folder: &Folder) -> Result<Vec<SourceTensor>> {
    let names = folder.names()?;
    let shards: Vec<_> = names
        .iter()
        .filter_map(|name| Some((ShardName::parse(name)?, name)))
        .collect();
    check_complete(folder, &shards)?;
    let mut tensors: BTreeMap<Arc<str>, Vec<Tile>> = BTreeMap::new();
    for (_, name) in shards {
        for (name, tile) in tiles(&folder.open_file(name)?)? {
            tensors.entry(name).or_default().push(tile);
        }
    }
    let whole = |(name, tiles): (Arc<str>, Vec<Tile>)| {
        let tensor = assemble(tiles).map_err(|error| named(error, folder.path(), &name))?;
        Ok(SourceTensor::whole(name, tensor))
    };
    tensors.into_iter().map(whole).collect()
}

/// Every tensor of a file, at its place in the whole.
pub fn tiles(file: &Arc<SourceFile>) -> Result<Vec<(Arc<str>, Tile)>> {
    let header = Header::read(file)?;
    let sharding: HashMap<String, Sharding> = match header.metadata(SHARDING_INFO) {
        Some(json) => serde_json::from_str(json)
            .map_err(|error| Error::malformed(file.path(), format!("{SHARDING_INFO}: {error}")))?,
        None => HashMap::new(),
    };
    let place = |(name, tensor): (Arc<str>, Tensor)| {
        let offsets = match sharding.get(&*name) {
            Some(sharding) => sharding.saved_offsets.clone(),
            None => Dims::from_elem(0, tensor.shape().rank()),
        };
        (name, Tile { offsets, tensor })
    };
    Ok(safetensors::tensors(file)?.into_iter().map(place).collect())
}

/// Whether a data file is safetensors: the length of its header comes first, then a brace. A zip starts otherwise.
pub fn is_safetensors(file: &SourceFile) -> Result<bool> {
    let mut front = [0; 9];
    if file.size() < front.len() as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut front, 0)?;
    Ok(!front.starts_with(b"PK") && front.ends_with(b"{"))
}

fn assemble(tiles: Vec<Tile>) -> Result<Tensor> {
    let rank = tiles
        .iter()
        .map(|tile| tile.offsets.len())
        .max()
        .unwrap_or(0);
    let reach = |dim: usize| {
        let ends = tiles.iter().map(|tile| {
            let size = tile.tensor.shape().dims().get(dim).copied();
            tile.offsets
                .get(dim)
                .copied()
                .unwrap_or(0)
                .saturating_add(size.unwrap_or(0))
        });
        ends.max().unwrap_or(0)
    };
    let dims: Vec<u64> = (0..rank).map(reach).collect();
    let shape = Shape::new(&dims).ok_or_else(|| {
        Error::Mapping(format!(
            "shape {dims:?} has too many dimensions or elements"
        ))
    })?;
    Tensor::tiled(shape, distinct(tiles))
}

/// Ranks and parts must be without gaps. That the last rank is there only the shapes of the model can tell.
fn check_complete(folder: &Folder, shards: &[(ShardName, &String)]) -> Result<()> {
    let refuse = |reason: String| Err(Error::checkpoint(folder.path(), reason));
    let Some((first, first_name)) = shards.first() else {
        return refuse(format!(
            "has no shard-XXXXX-model-YYYYY-of-ZZZZZ.safetensors: {INCOMPLETE}"
        ));
    };
    if let Some((_, name)) = shards.iter().find(|(shard, _)| shard.parts != first.parts) {
        return refuse(format!(
            "{name} belongs to another save than {first_name}; copy one of the two saves whole"
        ));
    }
    let ranks: BTreeSet<u64> = shards.iter().map(|(shard, _)| shard.rank).collect();
    let parts: BTreeSet<u64> = shards.iter().map(|(shard, _)| shard.part).collect();
    let last = ranks.last().copied().unwrap_or(0);
    if let Some(rank) = (1..=last).find(|rank| !ranks.contains(rank)) {
        return refuse(format!(
            "the shards of rank {} of at least {last} are missing: {INCOMPLETE}",
            rank - 1
        ));
    }
    match (1..=first.parts).find(|part| !parts.contains(part)) {
        Some(part) => refuse(format!(
            "part {part} of {} is missing: {INCOMPLETE}",
            first.parts
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

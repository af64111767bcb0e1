//! safetensors files with parts of tensors: what HuggingFaceStorageWriter writes for each rank, and what FileSystemWriter
//! writes in its safetensors format.
//!
//! Format: torch 2.15.0 `torch/distributed/checkpoint/{hf_storage,_hf_utils,filesystem}.py`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use crate::checkpoint::folder::{Folder, cost_of_strings};
use crate::checkpoint::formats::numbered_files::NumberedFiles;
use crate::checkpoint::formats::safetensors::header::List;
use crate::checkpoint::formats::safetensors::{self, Header};
use crate::checkpoint::formats::torch_file::dtensor::distinct;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::{Charge, SourceFile};
use crate::tensor::{Dims, Shape, SourceTensor, Tensor, Tile};
use crate::text::beginning;

/// The key of a header's metadata that tells where each tensor of the file belongs in the whole.
const SHARDING_INFO: &str = "DCP_SHARDING_INFO";

#[derive(Deserialize)]
struct Sharding {
    saved_offsets: List,
}

/// Rank, from one on, part of the model, from one on, and how many parts there are.
const SHARD: &str = "shard-{}-model-{}-of-{}.safetensors";

/// The tensors of the folder that HuggingFaceStorageWriter filled, one file for each rank and part.
///
/// The files do not say how large a tensor is: it is as large as its parts reach.
pub fn hf_sharded(folder: &Folder, notes: &mut Vec<String>) -> Result<Vec<SourceTensor>> {
    let shards = NumberedFiles::parse(folder.path(), SHARD, &folder.names()?)?;
    check_complete(folder, &shards)?;
    notes.extend(silent_rank(&shards));
    let mut tensors: BTreeMap<Arc<str>, Vec<Tile>> = BTreeMap::new();
    for name in shards.names() {
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
    let (sharding, _charge) = sharding(&header, file)?;
    let place = |(name, tensor): (Arc<str>, Tensor)| {
        let offsets = match sharding.get(&*name) {
            Some(sharding) => sharding.saved_offsets.0.clone(),
            None => Dims::from_elem(0, tensor.shape().rank()),
        };
        (name, Tile { offsets, tensor })
    };
    Ok(safetensors::tensors(file)?.into_iter().map(place).collect())
}

/// The place of each tensor in the whole, as the header's metadata tells it.
fn sharding(header: &Header, file: &SourceFile) -> Result<(HashMap<String, Sharding>, Charge)> {
    let json = header.metadata(SHARDING_INFO).unwrap_or("{}");
    let charge = file.charge(cost_of_strings(json.as_bytes()))?;
    let sharding = serde_json::from_str(json).map_err(|error| {
        let reason = format!("{SHARDING_INFO}: {}", beginning(&error));
        Error::malformed(file.path(), reason)
    })?;
    Ok((sharding, charge))
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

/// All parts must be there. A rank that had nothing to write left no file, so that a gap among the ranks proves nothing:
/// what is lost with a file leaves a hole in its tensors, or a tensor out that the model has.
fn check_complete(folder: &Folder, shards: &NumberedFiles) -> Result<()> {
    let refuse = |reason: String| Err(Error::checkpoint(folder.path(), reason));
    let counts: Vec<u64> = shards.numbers(2).into_iter().collect();
    let [count] = *counts else {
        let mut of_count = shards.names().filter(|_| !counts.is_empty());
        return refuse(match of_count.next().zip(of_count.last()) {
            Some((first, last)) => format!(
                "{first} and {last} are of two saves, in another number of parts; copy one of the two saves whole"
            ),
            None => format!("has no shard-XXXXX-model-YYYYY-of-ZZZZZ.safetensors: {INCOMPLETE}"),
        });
    };
    let parts = shards.numbers(1);
    match (1..=count).find(|part| !parts.contains(part)) {
        Some(part) => refuse(format!("part {part} of {count} is missing: {INCOMPLETE}")),
        None => Ok(()),
    }
}

/// The note about the first rank that left no file between others that did.
fn silent_rank(shards: &NumberedFiles) -> Option<String> {
    let ranks = shards.numbers(0);
    let rank = (1..shards.extent(0)).find(|rank| !ranks.contains(rank))?;
    Some(format!(
        "there is no shard of rank {}: it had nothing to write, unless a file is missing",
        rank - 1
    ))
}

#[cfg(test)]
mod tests;

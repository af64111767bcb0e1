//! DTensor and ShardedTensor, read from what each torch release pickles of them.

use std::collections::HashSet;

use super::dtensor::{DTensor, Placement, ShardedTensor, Value};
use super::pickle::Object;
use super::{Storages, rebuild};
use crate::error::{Error, Result};
use crate::tensor::{Dims, Shape, Tensor, Tile};

/// A DTensor from the arguments `(function, class, (class, dtype, size, ...), state)` of the call that rebuilds it.
pub fn dtensor(args: Object<'_>, storages: &Storages) -> Result<DTensor> {
    let size = args.item(2).and_then(|wrapper| wrapper.item(2));
    let state = args
        .item(3)
        .ok_or_else(|| broken("a DTensor without a state"))?;
    let part = |name: &str| {
        state
            .attribute(name)
            .ok_or_else(|| broken(format!("a DTensor without {name}")))
    };
    let (local, spec) = (part("_local_tensor")?, part("_spec")?);
    let mesh = spec
        .field("mesh")
        .ok_or_else(|| broken("a DTensor without a mesh"))?;
    let placements = spec
        .field("placements")
        .ok_or_else(|| broken("a DTensor without placements"))?;
    check_order(placements)?;
    Ok(DTensor {
        local: local_tensor(local, storages)?,
        shape: shape(size)?,
        placements: placements.items().map(placement).collect::<Result<_>>()?,
        mesh: mesh_shape(mesh)?,
        mesh_dim_names: mesh_dim_names(mesh),
        coordinate: mesh
            .field("_coordinate_on_dim")
            .and_then(Object::as_sizes)
            .ok_or_else(|| broken("a DTensor of a rank outside its mesh"))?,
    })
}

/// Before torch 2.5 nothing tells FSDP over tensor parallelism, which splits from right to left, from the other order: both
/// are two plain shards (pytorch #129229, #130760).
fn check_order(placements: Object<'_>) -> Result<()> {
    const BEFORE: &str = "torch.distributed._tensor";
    let is_early = |own: Object<'_>| {
        let class = own.callable().and_then(Object::global);
        class.is_some_and(|(module, _)| module.starts_with(BEFORE))
    };
    let mut dims = HashSet::new();
    for own in placements.items().filter(|own| is_early(*own)) {
        if let Placement::Shard { dim } = placement(own)?
            && !dims.insert(dim)
        {
            return Err(broken(format!(
                "two shards of dimension {dim}, whose order nothing told before torch 2.5; save it with a later one"
            )));
        }
    }
    Ok(())
}

/// FSDP1's ShardedTensor from the same arguments. Its state is `(local shards, metadata, ...)` (torch 2.15.0
/// `_shard/sharded_tensor/api.py`).
pub fn sharded(args: Object<'_>, storages: &Storages) -> Result<ShardedTensor> {
    let state = args
        .item(3)
        .ok_or_else(|| broken("a ShardedTensor without a state"))?;
    let field = |name: &str| state.item(1).and_then(|metadata| metadata.field(name));
    let count = field("shards_metadata").map_or(0, |all| all.items().count());
    let shards = state
        .item(0)
        .ok_or_else(|| broken("a ShardedTensor without shards"))?;
    Ok(ShardedTensor {
        shape: shape(field("size"))?,
        count: count as u64,
        shards: shards
            .items()
            .map(|own| shard(own, storages))
            .collect::<Result<_>>()?,
    })
}

fn shard(object: Object<'_>, storages: &Storages) -> Result<Tile> {
    let tensor = object
        .field("tensor")
        .ok_or_else(|| broken("a shard without a tensor"))?;
    let metadata = object.field("metadata");
    let sizes = |name: &str| {
        metadata
            .and_then(|metadata| metadata.field(name))
            .and_then(Object::as_sizes)
    };
    let (Some(offsets), Some(sizes)) = (sizes("shard_offsets"), sizes("shard_sizes")) else {
        return Err(broken("a shard without offsets and sizes"));
    };
    let tensor = local_tensor(tensor, storages)?;
    if *tensor.shape().dims() != *sizes {
        return Err(broken(format!(
            "a shard of shape {} that should have {sizes:?}",
            tensor.shape()
        )));
    }
    Ok(Tile { offsets, tensor })
}

fn local_tensor(object: Object<'_>, storages: &Storages) -> Result<Tensor> {
    match rebuild::value(object, storages)? {
        Some(Value::Plain(tensor)) => Ok(tensor),
        _ => Err(broken("a part that is no plain tensor")),
    }
}

/// A dataclass until torch 2.9, a C++ class from 2.10 on, whose state may also be a tuple.
fn placement(object: Object<'_>) -> Result<Placement> {
    let number = |name: &str, index: usize| {
        let in_tuple = || object.state().and_then(|state| state.item(index));
        object
            .field(name)
            .or_else(in_tuple)
            .or_else(|| object.arg(index))?
            .as_u64()
    };
    let dim = || {
        let dim = number("dim", 0).and_then(|dim| usize::try_from(dim).ok());
        dim.ok_or_else(|| broken("a placement without a dimension"))
    };
    match object.class_name() {
        Some("Replicate") => Ok(Placement::Replicate),
        Some("Shard") => Ok(Placement::Shard { dim: dim()? }),
        Some("_StridedShard") => Ok(Placement::StridedShard {
            dim: dim()?,
            split_factor: number("split_factor", 1)
                .ok_or_else(|| broken("a placement without a split factor"))?,
        }),
        Some("Partial" | "_Partial") => Ok(Placement::Partial),
        other => Err(broken(format!(
            "unknown placement {}",
            other.unwrap_or("object").escape_debug()
        ))),
    }
}

/// Until torch 2.10 the mesh is a tensor of ranks, whose shape is enough. Later it is a layout, with `shape` in 2.11
/// and `axes` of layouts in 2.15.
fn mesh_shape(mesh: Object<'_>) -> Result<Dims> {
    let ranks = mesh.field("mesh").and_then(|tensor| tensor.arg(2));
    let layout = mesh.field("_layout");
    let shape = layout.and_then(|layout| layout.field("shape"));
    let axes = layout.and_then(|layout| layout.field("axes"));
    let sizes = if let Some(sizes) = ranks {
        sizes.as_sizes()
    } else if let Some(shape) = shape.filter(|shape| shape.is_sequence()) {
        shape.items().map(extent).collect()
    } else if let Some(shape) = shape {
        shape.as_u64().map(|extent| Dims::from_elem(extent, 1))
    } else {
        axes.and_then(|axes| {
            axes.items()
                .map(|axis| axis.field("shape").and_then(extent))
                .collect()
        })
    };
    sizes.ok_or_else(|| broken("a mesh of unknown shape"))
}

/// The size of a mesh dimension, which may be a tuple of the sizes that it was flattened from.
fn extent(object: Object<'_>) -> Option<u64> {
    match object.as_sizes() {
        Some(sizes) => sizes
            .iter()
            .try_fold(1u64, |extent, size| extent.checked_mul(*size)),
        None => object.as_u64(),
    }
}

fn mesh_dim_names(mesh: Object<'_>) -> Vec<String> {
    let names = mesh
        .field("mesh_dim_names")
        .or_else(|| mesh.field("_mesh_dim_names"));
    let names = names.into_iter().flat_map(Object::items);
    names
        .filter_map(Object::as_str)
        .map(str::to_owned)
        .collect()
}

fn shape(object: Option<Object<'_>>) -> Result<Shape> {
    let sizes = object.and_then(Object::as_sizes);
    sizes
        .and_then(|sizes| Shape::new(&sizes))
        .ok_or_else(|| broken("a distributed tensor of unknown shape"))
}

fn broken(reason: impl Into<String>) -> Error {
    Error::Mapping(reason.into())
}

#[cfg(test)]
mod tests;

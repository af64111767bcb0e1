//! From flat groups, of which each rank holds a stretch, to the parameters in them.

use std::collections::HashMap;

use super::TensorRank;
use super::model_states::Shapes;
use super::optim_states::{OptimStates, Stage};
use crate::error::{Error, Result};
use crate::source::place;
use crate::tensor::{Shape, Tensor};

/// The F32 masters of one tensor-parallel rank's parameters, by name.
pub fn masters(rank: &TensorRank) -> Result<HashMap<String, Tensor>> {
    let Some((model, optim)) = rank.models.first().zip(rank.optims.first()) else {
        return Ok(HashMap::new());
    };
    let groups = model.groups.as_deref().unwrap_or_default();
    if let Some(odd) = rank
        .optims
        .iter()
        .find(|own| own.groups.len() != groups.len())
    {
        let reason = format!(
            "has {} flat groups, where {} has parameters of {}: they are not of one save",
            odd.groups.len(),
            model.file(),
            groups.len()
        );
        return Err(Error::checkpoint(&odd.path, reason));
    }
    let mut masters = HashMap::new();
    for (index, shapes) in groups.iter().enumerate() {
        let stretches: Vec<&Tensor> = rank
            .optims
            .iter()
            .filter_map(|own| own.groups.get(index))
            .collect();
        let found = match optim.stage {
            Stage::Groups => divided_whole(index, shapes, &stretches, optim)?,
            Stage::Parameters => divided_each(index, shapes, &stretches, &rank.optims)?,
        };
        for ((name, _), tensor) in shapes.iter().zip(found) {
            if masters.insert(name.clone(), tensor).is_some() {
                return Err(
                    model.refuse(name, "is in two groups of param_shapes; take another save")
                );
            }
        }
    }
    Ok(masters)
}

/// The parameters of a group that ZeRO-1 or 2 laid one after the other and then divided.
fn divided_whole(
    index: usize,
    shapes: &Shapes,
    stretches: &[&Tensor],
    optim: &OptimStates,
) -> Result<Vec<Tensor>> {
    let group = Stretches::of(stretches).ok_or_else(|| too_long(optim))?;
    let paddings = match &optim.paddings {
        None => None,
        Some(all) => Some(all.get(index).filter(|own| own.len() == shapes.len()).ok_or_else(|| {
            Error::malformed(&optim.path, format!("param_alignment_paddings of group {index} are not one for each parameter"))
        })?),
    };
    let padding = |parameter: usize| {
        paddings
            .and_then(|own| own.get(parameter))
            .copied()
            .unwrap_or(0)
    };
    let mut end = 0u64;
    let mut found = Vec::with_capacity(shapes.len());
    for (parameter, (name, shape)) in shapes.iter().enumerate() {
        let next = end
            .checked_add(shape.elements())
            .filter(|next| *next <= group.end());
        let Some(next) = next else {
            return Err(lacking(optim, index, group.end(), shapes, name));
        };
        found.push(group.cut(end, shape)?);
        end = next.saturating_add(padding(parameter));
    }
    // A group is padded to a multiple of twice the ranks.
    match group.end().checked_sub(end) {
        Some(rest) if rest <= optim.world.saturating_mul(2) => Ok(found),
        _ => {
            let (held, key) = (group.end(), optim.stage.key());
            let reason = format!(
                "{key}[{index}] of all ranks has {held} elements, where its parameters take {end}: files of two saves are mixed; copy one of them whole"
            );
            Err(Error::checkpoint(&optim.path, reason))
        }
    }
}

/// A flat array in the stretches that ranks hold of it.
struct Stretches<'t> {
    /// Those that hold elements, each with its end in the whole.
    held: Vec<(&'t Tensor, u64)>,
    /// One of them, for what has no elements.
    any: &'t Tensor,
}

impl<'t> Stretches<'t> {
    /// `None` for none, and for more elements than can be counted.
    fn of(stretches: &[&'t Tensor]) -> Option<Self> {
        let mut end = 0u64;
        let mut held = Vec::with_capacity(stretches.len());
        for stretch in stretches.iter().filter(|own| own.shape().elements() > 0) {
            end = end.checked_add(stretch.shape().elements())?;
            held.push((*stretch, end));
        }
        let any = *stretches.first()?;
        Some(Self { held, any })
    }

    fn end(&self) -> u64 {
        self.held.last().map_or(0, |(_, end)| *end)
    }

    /// The tensor whose elements begin at `start`.
    fn cut(&self, start: u64, shape: &Shape) -> Result<Tensor> {
        let end = start.saturating_add(shape.elements());
        if start == end {
            return self.any.narrow(0, 0, 0)?.reshape(shape.dims());
        }
        let first = self.held.partition_point(|(_, own)| *own <= start);
        let mut parts = Vec::new();
        for (stretch, own_end) in self.held.get(first..).unwrap_or_default() {
            let own_start = own_end - stretch.shape().elements();
            if own_start >= end {
                break;
            }
            let (from, to) = (start.max(own_start), end.min(*own_end));
            parts.push(stretch.narrow(0, from - own_start, to - from)?);
        }
        Tensor::concat(&parts, 0)?.reshape(shape.dims())
    }
}

/// The parameters of a group of which ZeRO-3 divided each.
///
/// All ranks' stretches are the rows of one array. A parameter is some columns of it, row by row, without the padding at
/// its end.
fn divided_each(
    index: usize,
    shapes: &Shapes,
    stretches: &[&Tensor],
    optims: &[OptimStates],
) -> Result<Vec<Tensor>> {
    let world = stretches.len() as u64;
    let widths = shapes
        .iter()
        .map(|(_, shape)| shape.elements().div_ceil(world.max(1)));
    let width = widths.clone().try_fold(0u64, u64::checked_add);
    for (stretch, optim) in stretches.iter().zip(optims) {
        let held = stretch.shape().elements();
        if Some(held) != width {
            return Err(short(optim, index, held, width.unwrap_or(u64::MAX)));
        }
    }
    let rows: Vec<Tensor> = stretches.iter().map(|stretch| (*stretch).clone()).collect();
    let rows = Tensor::stack(&rows)?;
    let mut start = 0;
    let mut found = Vec::with_capacity(shapes.len());
    for ((_, shape), width) in shapes.iter().zip(widths) {
        let columns = rows.narrow(1, start, width)?;
        let flat = columns.reshape(&[columns.shape().elements()])?;
        found.push(flat.narrow(0, 0, shape.elements())?.reshape(shape.dims())?);
        start += width;
    }
    Ok(found)
}

fn short(optim: &OptimStates, index: usize, held: u64, wanted: u64) -> Error {
    let key = optim.stage.key();
    let is_offloaded = optim
        .path
        .parent()
        .is_some_and(|folder| place::exists(&folder.join("offloaded_tensors")).unwrap_or(false));
    let reason = match held < wanted && is_offloaded {
        true => format!(
            "{key}[{index}] holds {held} of {wanted} elements: the others were offloaded to NVMe, whose files in offloaded_tensors are not read; save without offload_optimizer to nvme"
        ),
        false if held < wanted => format!(
            "{key}[{index}] holds {held} of the {wanted} elements of its parameters: they were offloaded (offloaded_tensors), or files of two saves are mixed; save without offload to NVMe, or copy one save whole"
        ),
        false => format!(
            "{key}[{index}] holds {held} elements, where its parameters take {wanted}: files of two saves are mixed; copy one of them whole"
        ),
    };
    Error::checkpoint(&optim.path, reason)
}

fn lacking(optim: &OptimStates, index: usize, held: u64, shapes: &Shapes, name: &str) -> Error {
    let wanted = shapes
        .iter()
        .fold(0u64, |sum, (_, shape)| sum.saturating_add(shape.elements()));
    let key = optim.stage.key();
    let reason = format!(
        "{key}[{index}] of all ranks has {held} elements, where its parameters take {wanted}: they were offloaded (offloaded_tensors), or files of two saves are mixed; save without offload to NVMe, or copy one save whole"
    );
    Error::tensor(&optim.path, &name.escape_debug().to_string(), reason)
}

fn too_long(optim: &OptimStates) -> Error {
    Error::malformed(&optim.path, "its groups have more elements than any model")
}

//! Weights that a checkpoint holds twice, as F32 masters and rounded to the type of the training: which of the two is read.

use std::collections::HashMap;
use std::iter;

use super::compare::{Equality, compare};
use super::note::Note;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::mapping::Family;
use crate::tensor::{Dtype, SourceTensor, Tensor};

/// Elements that are compared before rounded weights stand for their masters.
const SAMPLE: u64 = 4096;

/// Takes weights that are stored as `dtype` in place of their masters, which would be rounded to the same elements, and
/// says which other choice there is.
///
/// # Errors
/// When they differ from their masters, and the checkpoint has a doubt of its own that both are of one step. Nothing is read
/// where neither a type nor a doubt asks for it.
pub fn prefer(
    checkpoint: &mut Checkpoint,
    dtype: Option<Dtype>,
    family: Option<&Family>,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let is_same = match (dtype, &checkpoint.doubt) {
        (None, None) => None,
        _ => are_rounded(checkpoint)?,
    };
    match (&checkpoint.doubt, is_same) {
        (Some(doubt), Some(false)) => {
            let reason = format!("{doubt}: files of two saves are mixed; copy one of them whole");
            return Err(Error::Mapping(reason));
        }
        (Some(doubt), None) => notes.push(Note::warning(format!(
            "{doubt}: if these are files of two saves, take another one"
        ))),
        (None, Some(false)) => notes.push(Note::warning(
            "the model's own weights are not its F32 masters rounded; the masters are shown"
                .to_owned(),
        )),
        _ => {}
    }
    let count = match (dtype, is_same) {
        (Some(dtype), Some(true)) => replace(checkpoint, dtype, family),
        _ => 0,
    };
    notes.extend(choice(checkpoint, dtype, count));
    Ok(())
}

/// Puts the rounded weights of type `dtype` in the place of their masters; how many there are. Those that the family keeps
/// in F32 stay.
fn replace(checkpoint: &mut Checkpoint, dtype: Dtype, family: Option<&Family>) -> usize {
    let stays = |name: &str| family.is_some_and(|family| stays_f32(family, name));
    let rounded = std::mem::take(&mut checkpoint.rounded);
    let is_wanted = |own: &SourceTensor| own.parts.iter().all(|part| part.dtype() == dtype);
    let wanted = rounded
        .into_iter()
        .filter(|own| is_wanted(own) && !stays(&own.name));
    let by_name: HashMap<_, _> = wanted.map(|own| (own.origin.clone(), own.parts)).collect();
    let mut count = 0;
    for tensor in &mut checkpoint.tensors {
        if let Some(parts) = by_name.get(&tensor.origin) {
            tensor.parts.clone_from(parts);
            count += 1;
        }
    }
    count
}

/// Whether the family keeps the tensor in F32, by any name that it may have below a training loop's own.
fn stays_f32(family: &Family, name: &str) -> bool {
    let ends = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
    iter::once(name)
        .chain(ends)
        .any(|name| family.stays_f32(name))
}

/// Whether a sample of the weights that are stored twice is the same rounded. None where there are none.
fn are_rounded(checkpoint: &Checkpoint) -> Result<Option<bool>> {
    for own in &checkpoint.rounded {
        let mut masters = checkpoint.tensors.iter();
        let master = masters.find(|tensor| tensor.origin == own.origin);
        let parts = master
            .and_then(|master| master.parts.first())
            .zip(own.parts.first());
        if let Some((master, own)) = parts.filter(|(_, own)| own.shape().rank() > 1) {
            let master = sample(master)?.cast(own.dtype())?;
            let equality = compare(&master, &sample(own)?)?;
            return Ok(Some(equality != Equality::Different));
        }
    }
    Ok(None)
}

fn sample(tensor: &Tensor) -> Result<Tensor> {
    let elements = tensor.shape().elements();
    let flat = tensor.reshape(&[elements])?;
    flat.narrow(0, 0, elements.min(SAMPLE))
}

/// The other form in which the weights can be had.
fn choice(checkpoint: &Checkpoint, dtype: Option<Dtype>, replaced: usize) -> Option<Note> {
    let trained = checkpoint.trained_as?;
    let word = if trained == Dtype::F16 { "f16" } else { "bf16" };
    Some(match dtype {
        None => Note::warning(format!(
            "the F32 masters are shown, as DeepSpeed's own converter does; --dtype {word} shows the weights as the model trains with them, half the bytes"
        )),
        Some(dtype) if replaced > 0 => Note::remark(format!(
            "{replaced} tensors are read as the training stored them in {dtype}, equal to their F32 masters rounded; without --dtype the masters are shown"
        )),
        Some(_) => Note::remark(
            "the F32 masters are rounded; without --dtype they are shown as they are".to_owned(),
        ),
    })
}

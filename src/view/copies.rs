//! Copies that ranks hold of one tensor: they tell files of two saves apart.

use std::collections::HashMap;

use super::compare::{Equality, compare};
use super::note::Note;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::mapping::MappedTensor;
use crate::tensor::{Shape, SourceTensor, Tensor};

/// Warns where two copies of one tensor differ. One tensor tells: a step of a training changes all. Ranks whose kernels do
/// not add up in one order may drift apart within one save, so that it is no more than a warning.
pub fn check(
    checkpoint: &Checkpoint,
    sources: &[SourceTensor],
    mapped: &[MappedTensor],
    notes: &mut Vec<Note>,
) -> Result<()> {
    for copied in checkpoint
        .copies
        .iter()
        .chain(first_copied(sources, mapped))
    {
        let [first, rest @ ..] = &*copied.parts else {
            continue;
        };
        for part in rest {
            if compare(first, part)? == Equality::Different {
                notes.push(Note::warning(format!(
                    "the copies of {} in {} and {} differ: if these are files of two saves, the weights are mixed",
                    copied.origin,
                    file(first),
                    file(part)
                )));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A tensor whose tensor-parallel parts are no parts of the one that is made of them.
fn first_copied<'a>(
    sources: &'a [SourceTensor],
    mapped: &[MappedTensor],
) -> Option<&'a SourceTensor> {
    let mut shared = sources
        .iter()
        .filter(|source| source.parts.len() > 1)
        .peekable();
    shared.peek()?;
    let whole = mapped.iter().filter_map(|tensor| match &*tensor.sources {
        [origin] => Some((&**origin, tensor.tensor.shape())),
        _ => None,
    });
    let whole: HashMap<&str, &Shape> = whole.collect();
    shared.find(|source| whole.get(&*source.origin) == Some(&source.parts[0].shape()))
}

fn file(tensor: &Tensor) -> String {
    let mut path = String::new();
    tensor.each_stored(&mut |stored| path = stored.file().path().display().to_string());
    path
}

//! Copies that tensor-parallel ranks hold of one tensor: they tell files of two saves apart.

use std::collections::HashMap;

use super::Note;
use super::compare::are_equal;
use crate::error::Result;
use crate::mapping::MappedTensor;
use crate::tensor::{Shape, SourceTensor, Tensor};

/// Warns where two copies of one tensor differ. One tensor tells: a step of a training changes all. Ranks whose kernels do
/// not add up in one order may drift apart within one save, so that it is no more than a warning.
pub fn check(
    sources: &[SourceTensor],
    mapped: &[MappedTensor],
    notes: &mut Vec<Note>,
) -> Result<()> {
    let mut shared = sources
        .iter()
        .filter(|source| source.parts.len() > 1)
        .peekable();
    if shared.peek().is_none() {
        return Ok(());
    }
    let whole = mapped.iter().filter_map(|tensor| match &*tensor.sources {
        [origin] => Some((&**origin, tensor.tensor.shape())),
        _ => None,
    });
    let whole: HashMap<&str, &Shape> = whole.collect();
    let is_copied =
        |source: &&SourceTensor| whole.get(&*source.origin) == Some(&source.parts[0].shape());
    let Some(source) = shared.find(is_copied) else {
        return Ok(());
    };
    let (first, rest) = (&source.parts[0], &source.parts[1..]);
    for part in rest {
        if !are_equal(first, part)? {
            notes.push(Note::warning(format!(
                "the copies of {} in {} and {} differ: if these are files of two saves, the weights are mixed",
                source.origin,
                file(first),
                file(part)
            )));
            return Ok(());
        }
    }
    Ok(())
}

fn file(tensor: &Tensor) -> String {
    let mut path = String::new();
    tensor.each_stored(&mut |stored| path = stored.file().path().display().to_string());
    path
}

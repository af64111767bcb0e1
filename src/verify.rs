//! Everything read once: what a mount does not look at until someone reads it, and what differs from another directory.

mod compare;
mod finding;
mod pairs;
mod reading;
mod sums;
mod values;

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::mapping::MappedTensor;
use crate::output::VirtualFile;
use crate::parallel;
use crate::tensor::Tensor;

pub use finding::{Difference, DifferentElements, Finding, Outcome};
pub use pairs::{Kind, Pair, compared_bytes, pairs};
pub use reading::Reading;
pub use sums::sources;
pub use values::{NonFinite, Number};

use reading::each_block;

/// Reads every tensor.
pub fn tensors(tensors: &[MappedTensor], reading: &Reading<'_>) -> Vec<Finding> {
    parallel::map(reading.threads, tensors, |mapped| {
        Finding::of(mapped, read(&mapped.tensor, reading))
    })
}

/// Compares every byte of a tensor that the view leaves out with the one that it is tied to.
pub fn tied(name: &str, copy: &Tensor, to: &MappedTensor, reading: &Reading<'_>) -> Finding {
    let outcome = match compare::compare(copy, &to.tensor, reading) {
        Ok(Outcome::Equal) => Ok(Outcome::Read { values: None }),
        Ok(_) => Ok(Outcome::Failed {
            reason: format!(
                "differs from {}, to which config.json ties it; set \"tie_word_embeddings\": false to show both",
                to.name
            ),
        }),
        Err(error) => Err(error),
    };
    Finding::new(name, outcome)
}

/// Compares every tensor with the one of the same name in `others`.
pub fn against(
    tensors: &[MappedTensor],
    others: &[(&str, &Tensor)],
    reading: &Reading<'_>,
) -> Vec<Finding> {
    let theirs: HashMap<&str, &Tensor> = others.iter().copied().collect();
    let mut findings = parallel::map(reading.threads, tensors, |mapped| {
        let outcome = match theirs.get(&*mapped.name) {
            Some(other) => compare::compare(&mapped.tensor, other, reading),
            None => Ok(Outcome::Extra),
        };
        Finding::of(mapped, outcome)
    });
    let ours: HashSet<&str> = tensors.iter().map(|mapped| &*mapped.name).collect();
    let missing = others.iter().filter(|(name, _)| !ours.contains(name));
    findings.extend(missing.map(|(name, _)| Finding::new(name, Ok(Outcome::Missing))));
    findings
}

/// Reads every file that is not made of tensors.
pub fn side_files(files: &[VirtualFile], reading: &Reading<'_>) -> Vec<Finding> {
    let has_tensors = |file: &&VirtualFile| {
        file.segments()
            .iter()
            .any(|segment| segment.tensor().is_some())
    };
    let files: Vec<&VirtualFile> = files.iter().filter(|file| !has_tensors(file)).collect();
    parallel::map(reading.threads, &files, |file| {
        let outcome = each_block(file.size(), &mut |start, block| {
            reading.reader.read_at(file, start, block)?;
            (reading.progress)(block.len() as u64);
            Ok(())
        });
        Finding::new(
            file.path(),
            outcome.map(|()| Outcome::Read { values: None }),
        )
    })
}

fn read(tensor: &Tensor, reading: &Reading<'_>) -> Result<Outcome> {
    let mut values = reading.counts.then(NonFinite::default);
    each_block(tensor.bytes(), &mut |start, block| {
        reading.reader.read_tensor_at(tensor, start, block)?;
        (reading.progress)(block.len() as u64);
        if let Some(values) = &mut values {
            values.count(tensor.dtype(), block);
        }
        Ok(())
    })?;
    Ok(Outcome::Read { values })
}

//! Everything read once: what a mount does not look at until someone reads it, and what differs from another directory.

mod compare;
mod sums;
mod values;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::error::Result;
use crate::mapping::MappedTensor;
use crate::output::VirtualFile;
use crate::parallel;
use crate::read::Reader;
use crate::tensor::Tensor;

pub use compare::Difference;
pub use sums::sources;
pub use values::{NonFinite, Number};

/// Bytes read at a time.
const BLOCK: u64 = 4 << 20;

/// Reads a range of a virtual file.
pub struct Reading<'a> {
    pub reader: Reader,
    pub threads: NonZeroUsize,
    /// Whether NaN and infinite values are counted.
    pub counts: bool,
    /// Told of bytes read, from several threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// The outcome for one tensor or one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// All bytes could be read.
    Read {
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<NonFinite>,
    },
    /// Both sides have the same type, shape and bytes.
    Equal,
    Different(Difference),
    /// The other directory has it, the view does not.
    Missing,
    /// The view has it, the other directory does not.
    Extra,
    Failed {
        reason: String,
    },
}

/// An outcome and its subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub name: String,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The laws that the elements of a computed tensor follow, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub laws: Vec<&'static str>,
}

impl Finding {
    fn new(name: &str, outcome: Result<Outcome>) -> Self {
        let failed = |error: crate::error::Error| Outcome::Failed {
            reason: error.to_string(),
        };
        Self {
            name: name.to_owned(),
            outcome: outcome.unwrap_or_else(failed),
            laws: Vec::new(),
        }
    }

    fn of(mapped: &MappedTensor, outcome: Result<Outcome>) -> Self {
        Self {
            laws: mapped.tensor.laws(),
            ..Self::new(&mapped.name, outcome)
        }
    }

    /// Whether nothing stands against it.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Read { .. } | Outcome::Equal)
    }
}

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

/// Calls `fill` with the offset of each block and the room for its bytes.
fn each_block(bytes: u64, fill: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
    let mut block = vec![0; BLOCK.min(bytes) as usize];
    for start in (0..bytes).step_by(BLOCK as usize) {
        fill(start, &mut block[..BLOCK.min(bytes - start) as usize])?;
    }
    Ok(())
}

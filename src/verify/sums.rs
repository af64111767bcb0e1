//! The checksums that source files hold of their own bytes.

use std::collections::HashSet;
use std::sync::Arc;

use super::finding::{Finding, Outcome};
use super::reading::Reading;
use crate::checkpoint::formats::torch_file;
use crate::mapping::MappedTensor;
use crate::parallel;
use crate::source::SourceFile;
use crate::tensor::Stored;

/// Bytes that hold a checksum of themselves.
enum Summed<'a> {
    /// A file as a whole.
    File(&'a Arc<SourceFile>),
    /// The part of a file around one array.
    Part(&'a Stored),
}

/// Checks every source file against the sums in it, one finding for each that has some.
pub fn sources(tensors: &[MappedTensor], reading: &Reading<'_>) -> Vec<Finding> {
    let checked = parallel::map(reading.threads, &summed(tensors), |summed| {
        let (file, has_sums) = match summed {
            Summed::File(file) => (*file, torch_file::check_sums(file)),
            Summed::Part(stored) => (stored.file(), stored.check_sums()),
        };
        let name = file.path().display().to_string();
        let read = Outcome::Read { values: None };
        (!matches!(has_sums, Ok(false))).then(|| Finding::new(&name, has_sums.map(|_| read)))
    });
    let mut findings: Vec<Finding> = checked.into_iter().flatten().collect();
    // Of the parts of one file the bad ones, or one good one.
    findings.sort_by(|a, b| (&a.name, a.is_good()).cmp(&(&b.name, b.is_good())));
    findings.dedup_by(|next, last| next.name == last.name && next.is_good());
    findings
}

fn summed(tensors: &[MappedTensor]) -> Vec<Summed<'_>> {
    let mut summed = Vec::new();
    let mut files = HashSet::new();
    for mapped in tensors {
        mapped.tensor.each_stored(&mut |stored| {
            if stored.is_deferred() {
                summed.push(Summed::Part(stored));
            } else if files.insert(Arc::as_ptr(stored.file())) {
                summed.push(Summed::File(stored.file()));
            }
        });
    }
    summed
}

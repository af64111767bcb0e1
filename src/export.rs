//! A view as real files: complete under its name, or not there at all.

mod checksums;
mod options;
mod pieces;
mod runs;
mod share;
mod staging;
mod sums;
mod target;

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::output::{Fingerprint, VirtualFile};
use crate::parallel;
use crate::tree::Tree;

pub use options::{Options, Progress, Step};
use pieces::{Piece, Range};
use staging::Staging;
use target::Target;

/// The result of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    pub files: usize,
    pub bytes: u64,
    /// Bytes that lie in blocks of the source.
    pub shared: u64,
    /// Bytes that an earlier, interrupted export had written.
    pub resumed: u64,
}

/// Writes `files` to the new directory `destination`. What is there after a failure or a kill is continued by the next
/// export of the same view to the same place.
pub fn export(
    files: Vec<VirtualFile>,
    source: &Path,
    destination: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Exported> {
    let target = Target::check(destination, source)?;
    let tree = Tree::new(files)?;
    let mut staging = Staging::open(&target)?;
    let mut files: Vec<VirtualFile> = tree.into_files().map(Arc::unwrap_or_clone).collect();
    let mut shared = Vec::new();
    if options.reflink {
        (files, shared) = share::plan(files, &staging)?;
    }
    staging.resume(&Fingerprint::of(&files)?, &files)?;
    staging.make(&files)?;
    shared.retain(|range| share::share(range, &files, &staging));
    let plan = Plan::new(&files, &shared, &staging);
    if let Err(error) = target.check_space(plan.missing()) {
        staging.leave_nothing_new(&target, &plan.done);
        return Err(error);
    }
    copy(&files, &plan, &staging, options, progress)?;
    if options.checksum {
        sums::write(&files, &staging, options.threads, progress)?;
    }
    staging.commit(&target)?;
    Ok(plan.exported)
}

/// Pieces that are to be written, and those on disk already.
struct Plan {
    done: Vec<Piece>,
    rest: Vec<Piece>,
    exported: Exported,
}

impl Plan {
    fn new(files: &[VirtualFile], shared: &[share::Shared], staging: &Staging) -> Self {
        let pieces = pieces::except(files, shared.iter().map(|shared| shared.range));
        let (done, rest): (Vec<Piece>, Vec<Piece>) =
            pieces.into_iter().partition(|piece| staging.has(piece));
        let exported = Exported {
            files: files.len(),
            bytes: files.iter().map(VirtualFile::size).sum(),
            shared: shared.iter().map(|shared| shared.range.length()).sum(),
            resumed: bytes(&done),
        };
        Self {
            done,
            rest,
            exported,
        }
    }

    /// Bytes that are to be written.
    fn missing(&self) -> u64 {
        bytes(&self.rest)
    }
}

fn bytes(pieces: &[Range]) -> u64 {
    pieces.iter().map(Range::length).sum()
}

fn copy(
    files: &[VirtualFile],
    plan: &Plan,
    staging: &Staging,
    options: &Options,
    progress: &dyn Progress,
) -> Result<()> {
    let total = plan.exported.bytes;
    progress.begin(Step::Copy, total, total - plan.missing());
    parallel::try_each(options.threads, &plan.rest, |piece| {
        staging.write(piece, &files[piece.file], progress)
    })?;
    checksums::write(files, staging, options)?;
    staging.sync(files)
}

//! Files that share the blocks of the source, where the filesystem can (XFS, btrfs): only what lies at another place
//! inside a block is written.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::pieces::Range;
use super::runs::{self, Run};
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::output::{Segment, VirtualFile, lengthened};
use crate::source::SourceFile;

/// The alignment of tensors in a safetensors file, which a longer header keeps.
const ALIGNMENT: u64 = 8;

/// Whole blocks of a file that are also whole blocks of a source.
#[derive(Debug)]
pub struct Shared {
    pub range: Range,
    source: Arc<SourceFile>,
    from: u64,
}

/// The files with headers that move most of their bytes to where blocks can be shared, and the ranges that then can.
/// Where the filesystem cannot share blocks, the files as they are.
pub fn plan(files: Vec<VirtualFile>, staging: &Staging) -> Result<(Vec<VirtualFile>, Vec<Shared>)> {
    let block = staging.block()?;
    let mut planned = Vec::with_capacity(files.len());
    let mut shared = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let runs = runs::of(file)?;
        let shift = shift(file, &runs, block);
        shared.extend(
            runs.iter()
                .filter_map(|run| whole_blocks(run, number, shift, block)),
        );
        planned.push(with_longer_header(file, shift));
    }
    let why = match shared.first() {
        Some(probe) => match can_share(probe, block, staging) {
            Ok(()) => {
                tell_rest(&planned, &shared);
                return Ok((planned, shared));
            }
            Err(error) => error.to_string(),
        },
        None => "its tensors lie otherwise than in a safetensors file".to_owned(),
    };
    tracing::warn!("no blocks can be shared with the source: {why}");
    Ok((files, Vec::new()))
}

/// Says so where much is to be written all the same.
fn tell_rest(files: &[VirtualFile], shared: &[Shared]) {
    let bytes: u64 = files.iter().map(VirtualFile::size).sum();
    let shared: u64 = shared.iter().map(|shared| shared.range.length()).sum();
    if shared < bytes / 10 * 9 {
        tracing::warn!(
            "{shared} of {bytes} bytes can share blocks with the source; the others lie otherwise there and are written"
        );
    }
}

/// Makes the range share its blocks; whether that succeeded. Otherwise it is to be written.
pub fn share(shared: &Shared, files: &[VirtualFile], staging: &Staging) -> bool {
    let Range { file, start, end } = shared.range;
    let path = staging.path(&files[file]);
    let target = staging.open_file(&files[file], OFlag::O_WRONLY);
    let target = target.map_err(|error| Error::unwritable(&path, &error));
    let result = target.and_then(|target| shared.clone_to(&target, &path, start, end - start));
    if let Err(error) = &result {
        tracing::info!("{}: written instead of shared: {error}", path.display());
    }
    result.is_ok()
}

impl Shared {
    /// `path` is that of the target, for messages.
    fn clone_to(&self, target: &File, path: &Path, to: u64, length: u64) -> Result<()> {
        let failed = |error: io::Error| Error::unwritable(path, &error);
        let source = self.source.handle()?;
        clone_range(&source, self.from, length, target, to).map_err(failed)?;
        self.source.checked_handle().map(drop)
    }
}

/// By how many bytes the header of a safetensors file is to grow so that most of the file lies in its blocks as in the
/// source's.
fn shift(file: &VirtualFile, runs: &[Run], block: u64) -> u64 {
    let [Segment::Inline(header), ..] = file.segments() else {
        return 0;
    };
    if !file.path().ends_with(".safetensors") {
        return 0;
    }
    let mut votes: HashMap<u64, u64> = HashMap::new();
    for run in runs {
        *votes
            .entry(run.from.wrapping_sub(run.to) % block)
            .or_default() += run.length;
    }
    let kept = votes
        .into_iter()
        .filter(|(shift, _)| (header.len() as u64 + shift).is_multiple_of(ALIGNMENT));
    // Of equals the smaller, so that each export chooses alike.
    kept.max_by_key(|(shift, bytes)| (*bytes, std::cmp::Reverse(*shift)))
        .map_or(0, |best| best.0)
}

fn with_longer_header(file: &VirtualFile, shift: u64) -> VirtualFile {
    let mut segments = file.segments().to_vec();
    if let (Some(Segment::Inline(header)), 1..) = (segments.first_mut(), shift) {
        *header = lengthened(header, header.len() as u64 + shift).into();
    }
    VirtualFile::new(file.path(), file.attributes(), segments)
}

/// The blocks inside a run, if it lies in the file as in the source once it is shifted.
fn whole_blocks(run: &Run, file: usize, shift: u64, block: u64) -> Option<Shared> {
    let to = run.to + shift;
    let start = to.next_multiple_of(block);
    let end = (to + run.length) / block * block;
    let congruent = to % block == run.from % block;
    (congruent && start < end).then(|| Shared {
        range: Range { file, start, end },
        source: run.source.clone(),
        from: run.from + (start - to),
    })
}

/// Tries one block.
fn can_share(shared: &Shared, block: u64, staging: &Staging) -> Result<()> {
    staging.probe(|probe, path| shared.clone_to(probe, path, 0, block))
}

fn clone_range(source: &File, from: u64, length: u64, target: &File, to: u64) -> io::Result<()> {
    let range = libc::file_clone_range {
        src_fd: i64::from(source.as_raw_fd()),
        src_offset: from,
        src_length: length,
        dest_offset: to,
    };
    // SAFETY: both descriptors are open, and the kernel only reads the struct, which outlives the call.
    match unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONERANGE, &raw const range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

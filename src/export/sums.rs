//! `SHA256SUMS`, as `sha256sum` writes and checks it: of what is on disk, not of what was to be.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};

use super::options::{Progress, Step};
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::output::{VirtualFile, hex};
use crate::parallel;

const NAME: &str = "SHA256SUMS";

/// Bytes read at a time.
const BLOCK: usize = 1 << 20;

pub fn write(
    files: &[VirtualFile],
    staging: &Staging,
    threads: NonZeroUsize,
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin(Step::Sum, files.iter().map(VirtualFile::size).sum(), 0);
    let lines = parallel::map(threads, files, |file| {
        let sum = staging
            .open_file(file, OFlag::O_RDONLY)
            .and_then(|file| sum(file, progress))
            .map_err(|error| Error::unwritable(&staging.path(file), &error))?;
        Ok(format!("{sum}  {}\n", file.path()))
    });
    let text = lines.into_iter().collect::<Result<String>>()?;
    let written = staging.open_beside(NAME).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Error::unwritable(Path::new(NAME), &error))
}

fn sum(mut file: File, progress: &dyn Progress) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hash.finalize())),
            count => {
                hash.update(&block[..count]);
                progress.advance(count as u64);
            }
        }
    }
}

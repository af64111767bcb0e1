//! The sums of data in zip archives, which a mount shows as 0: made of the data on disk, so that `unzip -t` finds the files
//! of an export right.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;

use super::options::Options;
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::output::{Checksum, VirtualFile};
use crate::parallel;

/// Bytes read at a time.
const BLOCK: u64 = 1 << 20;

/// Sums that are filled in with the file open once.
const TOGETHER: usize = 64;

/// Fills in all sums. The data stays as it is, so that an interrupted export can do so again.
pub fn write(files: &[VirtualFile], staging: &Staging, options: &Options) -> Result<()> {
    for file in files {
        let sums = file.checksums();
        let groups: Vec<&[Checksum]> = sums.chunks(TOGETHER).collect();
        parallel::try_each(options.threads, &groups, |sums| {
            let opened = staging.open_file(file, OFlag::O_RDWR);
            let filled =
                opened.and_then(|file| sums.iter().try_for_each(|sum| fill_in(&file, sum)));
            filled.map_err(|error| Error::unwritable(&staging.path(file), &error))
        })?;
    }
    Ok(())
}

fn fill_in(file: &File, checksum: &Checksum) -> io::Result<()> {
    let sum = sum(file, checksum)?;
    let mut fields = checksum.fields.iter();
    fields.try_for_each(|at| file.write_all_at(&sum.to_le_bytes(), *at))
}

fn sum(file: &File, checksum: &Checksum) -> io::Result<u32> {
    let data = &checksum.data;
    let mut sum = crc32fast::Hasher::new();
    let mut block = vec![0; BLOCK.min(data.end - data.start) as usize];
    for start in data.clone().step_by(BLOCK as usize) {
        let block = &mut block[..BLOCK.min(data.end - start) as usize];
        file.read_exact_at(block, start)?;
        sum.update(block);
    }
    Ok(sum.finalize())
}

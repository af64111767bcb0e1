//! `offset -> bytes` of any virtual file: pure, safe from many threads, no lock held over I/O.

use crate::error::Result;
use crate::repo::VirtualFile;

/// The bytes `offset .. offset + size` of `file`, fewer only at its end. They lie either in `scratch`, which grows as
/// needed, or in a map of a source file. The caller must hand them to the kernel without touching them: pages of a
/// source that was truncated meanwhile are not readable.
pub fn read<'a>(file: &'a VirtualFile, offset: u64, size: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let _ = (file, offset, size, scratch);
    todo!()
}

/// Fills `buffer` with the bytes from `offset` on, which must all lie inside the file.
pub fn read_at(file: &VirtualFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let _ = (file, offset, buffer);
    todo!()
}

//! Many small reads of one section in few large ones, where what is read lies close together.

use crate::checkpoint::formats::torch_file::section::Section;
use crate::error::Result;

/// Bytes read at a time.
const SIZE: u64 = 64 << 10;

/// The bytes that were last read, and what follows them.
pub struct Window<'a> {
    section: &'a Section,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub fn new(section: &'a Section) -> Self {
        Self {
            section,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `count` bytes from `at` on, all inside the section.
    pub fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>> {
        if let Some(bytes) = self.held(at, count) {
            return Ok(bytes.to_vec());
        }
        let left = self.section.length().saturating_sub(at);
        self.bytes = self.section.read(at, count.max(SIZE.min(left)))?;
        self.start = at;
        Ok(self.held(at, count).unwrap_or_default().to_vec())
    }

    fn held(&self, at: u64, count: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(count).ok()?)?;
        self.bytes.get(from..to)
    }
}

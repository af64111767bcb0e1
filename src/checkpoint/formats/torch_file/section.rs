//! A range of a file that is a file of its own: a whole `.pt`, or one item of a `.distcp`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::source::{Charge, SourceFile};

/// More than the metadata of a chunk takes.
const CHUNK: u64 = 64 << 10;

/// `length` bytes of a file from `start` on, known to lie inside it.
#[derive(Debug, Clone)]
pub struct Section {
    file: Arc<SourceFile>,
    start: u64,
    length: u64,
}

impl Section {
    pub fn whole(file: Arc<SourceFile>) -> Self {
        Self {
            start: 0,
            length: file.size(),
            file,
        }
    }

    pub fn new(file: Arc<SourceFile>, start: u64, length: u64) -> Result<Self> {
        match start.checked_add(length) {
            Some(end) if end <= file.size() => Ok(Self {
                file,
                start,
                length,
            }),
            _ => Err(Error::malformed(
                file.path(),
                format!(
                    "incomplete: {length} bytes at byte {start} are promised, the file has {}",
                    file.size()
                ),
            )),
        }
    }

    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where the section starts in the file.
    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// The section's bytes in the file.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.length
    }

    /// `count` bytes from `at` on, all inside the section.
    pub fn read(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let inside = at.checked_add(count).is_some_and(|end| end <= self.length);
        match usize::try_from(count) {
            Ok(size) if inside => {
                let mut bytes = vec![0; size];
                self.file.read_exact_at(&mut bytes, self.start + at)?;
                Ok(bytes)
            }
            _ => Err(self.refuse(format!("{count} bytes at byte {at} lie outside of it"))),
        }
    }

    /// Charges memory for metadata in it. A chunk's is small and read when the chunk is: it is not counted.
    pub fn charge(&self, bytes: u64) -> Result<Charge> {
        match self.is_whole() || bytes > CHUNK {
            true => self.file.charge(bytes),
            false => Ok(Charge::none()),
        }
    }

    /// At most `count` bytes from the front.
    pub fn front(&self, count: u64) -> Result<Vec<u8>> {
        self.read(0, count.min(self.length))
    }

    /// The error of bytes that break their format.
    pub fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::malformed(self.path(), self.place() + &reason.into())
    }

    /// The error of a form that is not served; `reason` says what is.
    pub fn unserved(&self, reason: impl Into<String>) -> Error {
        Error::checkpoint(self.path(), self.place() + &reason.into())
    }

    fn is_whole(&self) -> bool {
        self.start == 0 && self.length == self.file.size()
    }

    /// Which part of the file a message is about.
    fn place(&self) -> String {
        match self.is_whole() {
            true => String::new(),
            false => format!("item at bytes {:?}: ", self.range()),
        }
    }
}

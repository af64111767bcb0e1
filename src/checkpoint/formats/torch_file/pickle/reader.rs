//! The input of the machine: every length is checked against what is left.

use super::arena::Span;

/// Why a pickle was not read to its end.
#[derive(Debug)]
pub enum Fault {
    /// The input ends inside the pickle.
    Truncated,
    Refused(String),
    /// The pickle holds what is not served; the text says what is.
    Unserved(String),
    /// Its values take more memory than there is for them.
    Memory(String),
}

impl Fault {
    /// With the place in the pickle.
    pub fn at(self, byte: usize) -> Self {
        let there = |reason: String| format!("byte {byte} of the pickle: {reason}");
        match self {
            Self::Truncated => Self::Truncated,
            Self::Refused(reason) => Self::Refused(there(reason)),
            Self::Unserved(reason) => Self::Unserved(there(reason)),
            Self::Memory(reason) => Self::Memory(reason),
        }
    }
}

pub type Step<T = ()> = Result<T, Fault>;

pub fn refuse<T>(reason: impl Into<String>) -> Step<T> {
    Err(Fault::Refused(reason.into()))
}

/// Bytes read from front to back. They are fewer than 4 GiB, so that every place in them fits a [`Span`].
pub struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn byte(&mut self) -> Step<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or(Fault::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// A little-endian unsigned integer of `N` bytes.
    pub fn uint<const N: usize>(&mut self) -> Step<u64> {
        let bytes = self.rest().first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.at += N;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Bytes behind their length, which has `N` bytes.
    pub fn sized<const N: usize>(&mut self) -> Step<Span> {
        let length = self.uint::<N>()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.rest().len() => Ok(self.take(length)),
            _ => Err(Fault::Truncated),
        }
    }

    /// Bytes up to a line feed.
    pub fn line(&mut self) -> Step<Span> {
        let length = self.rest().iter().position(|byte| *byte == b'\n');
        let line = self.take(length.ok_or(Fault::Truncated)?);
        self.at += 1;
        Ok(line)
    }

    pub fn bytes(&self, span: Span) -> &'a [u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or(&[])
    }

    pub fn text(&self, span: Span) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(span)).ok()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    fn take(&mut self, length: usize) -> Span {
        let start = self.at as u32;
        self.at += length;
        Span {
            start,
            end: self.at as u32,
        }
    }
}

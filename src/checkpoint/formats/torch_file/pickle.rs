//! Python pickles as inert data: values in an arena, calls recorded and never made.

mod arena;
mod globals;
mod machine;
mod object;
mod opcode;
mod reader;

use std::path::Path;

use self::arena::{Arena, Id, Span};
pub use self::object::Object;
pub use self::reader::Fault;
use crate::error::{Error, Result};
use crate::source::Charge;

/// A pickle that was read to its end.
#[derive(Debug)]
pub struct Pickle {
    bytes: Vec<u8>,
    arena: Arena,
    root: Id,
    /// For the bytes and the values.
    _charge: Charge,
}

impl Pickle {
    /// Reads `bytes`, which are one pickle of at most `limit` values and nothing else. `charge` is for the bytes.
    pub fn parse(file: &Path, bytes: Vec<u8>, limit: usize, charge: Charge) -> Result<Self> {
        let finished = machine::run(&bytes, limit, charge).map_err(|fault| fault.of(file))?;
        if finished.length != bytes.len() {
            let extra = bytes.len() - finished.length;
            return Err(Error::malformed(
                file,
                format!("{extra} bytes follow the pickle"),
            ));
        }
        Ok(Self {
            bytes,
            arena: finished.arena,
            root: finished.root,
            _charge: finished.charge,
        })
    }

    /// Reads the pickle that `bytes` starts with, and tells its length.
    pub fn first(
        bytes: &[u8],
        limit: usize,
        charge: Charge,
    ) -> std::result::Result<(Self, usize), Fault> {
        let finished = machine::run(bytes, limit, charge)?;
        let pickle = Self {
            bytes: bytes.get(..finished.length).unwrap_or(bytes).to_vec(),
            arena: finished.arena,
            root: finished.root,
            _charge: finished.charge,
        };
        Ok((pickle, finished.length))
    }

    pub fn root(&self) -> Object<'_> {
        Object::new(self, self.root)
    }

    /// How many places in containers and calls there are for values.
    pub fn places(&self) -> usize {
        self.arena.places()
    }

    /// Module and name of every class and function that the pickle names.
    pub fn globals(&self) -> impl Iterator<Item = (&str, &str)> {
        let globals = self.arena.globals().iter();
        globals.map(|global| (self.text(global.module), self.text(global.name)))
    }

    /// Every reference to something outside the pickle.
    pub fn persistent(&self) -> impl Iterator<Item = Object<'_>> {
        self.arena.persistent().map(|id| Object::new(self, id))
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.span(span)).unwrap_or_default()
    }

    fn span(&self, span: Span) -> &[u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or(&[])
    }
}

impl Fault {
    /// The error of a pickle that should be whole.
    pub fn of(self, file: &Path) -> Error {
        match self {
            Self::Truncated => Error::malformed(file, "incomplete: its pickle ends too early"),
            Self::Refused(reason) => Error::malformed(file, reason),
            Self::Unserved(reason) => Error::checkpoint(file, reason),
            Self::Memory(reason) => Error::Memory {
                file: file.to_owned(),
                reason,
            },
        }
    }
}

#[cfg(test)]
mod tests;

//! Bytes of a source, where they came to lie.

use std::ops::Deref;

use super::direct_io::DirectBuffer;
use super::memory::Memory;

/// Bytes in memory of the mount, which gets it back on drop.
#[derive(Debug)]
pub struct Bytes(Held);

#[derive(Debug)]
enum Held {
    Direct(DirectBuffer),
    Memory(Memory),
}

impl From<DirectBuffer> for Bytes {
    fn from(buffer: DirectBuffer) -> Self {
        Self(Held::Direct(buffer))
    }
}

impl From<Memory> for Bytes {
    fn from(memory: Memory) -> Self {
        Self(Held::Memory(memory))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Direct(buffer) => buffer,
            Held::Memory(memory) => memory,
        }
    }
}

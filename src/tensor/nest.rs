//! Loops over stored bytes: what a copy consists of once every operation is lowered.

use super::dtype::Dtype;
use super::shape::MAX_RANK;
use super::stored::{Stored, unit_bytes};

/// A loop of a copy: `count` steps of `source` and `destination` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loop {
    pub count: u64,
    pub source: u64,
    pub destination: u64,
}

/// A copy of elements out of one stored array, outermost loop first. Without loops it is one element.
#[derive(Debug)]
pub struct Nest<'a> {
    pub stored: &'a Stored,
    /// Type of the stored elements; the tensor's own type differs where it is a cast.
    pub dtype: Dtype,
    /// Byte offset in the file of the first element.
    pub source: u64,
    /// Elements between the start of the requested range and the first element.
    pub destination: u64,
    pub(super) loops: [Loop; MAX_RANK],
    pub(super) rank: usize,
}

impl Nest<'_> {
    pub fn loops(&self) -> &[Loop] {
        &self.loops[..self.rank]
    }

    /// Bytes of one stored element.
    pub fn unit(&self) -> u64 {
        unit_bytes(self.dtype)
    }

    /// Whether the innermost loop, if there is one, copies neighbours to neighbours.
    pub fn is_contiguous_inside(&self) -> bool {
        self.loops()
            .last()
            .is_none_or(|inner| inner.source == 1 && inner.destination == 1)
    }

    /// Calls `f(source, destination, count)` for each run of the innermost loop, offsets in elements from the first one.
    pub fn each_run(&self, f: &mut dyn FnMut(u64, u64, u64)) {
        let (outer, count) = match self.loops().split_last() {
            Some((inner, outer)) => (outer, inner.count),
            None => (&[][..], 1),
        };
        each_offset(outer, 0, 0, &mut |source, destination| {
            f(source, destination, count);
        });
    }

    /// Joins each loop with the next inner one where both step through memory as one longer loop would.
    pub(super) fn merge_loops(&mut self) {
        let mut rank = 0;
        for i in 0..self.rank {
            let inner = self.loops[i];
            match self.loops[..rank].last_mut() {
                Some(outer)
                    if outer.source == inner.source * inner.count
                        && outer.destination == inner.destination * inner.count =>
                {
                    *outer = Loop {
                        count: outer.count * inner.count,
                        ..inner
                    };
                }
                _ => {
                    self.loops[rank] = inner;
                    rank += 1;
                }
            }
        }
        self.rank = rank;
    }
}

/// Calls `f` with the source and destination offset of each iteration of `loops`, outermost first.
pub fn each_offset(loops: &[Loop], source: u64, destination: u64, f: &mut dyn FnMut(u64, u64)) {
    match loops.split_first() {
        None => f(source, destination),
        Some((outer, inner)) => {
            for i in 0..outer.count {
                let (source, destination) = (
                    source + i * outer.source,
                    destination + i * outer.destination,
                );
                each_offset(inner, source, destination, f);
            }
        }
    }
}

//! Plain copies: in source order, one scattering `preadv` for each contiguous stretch of a source file.

use std::io::IoSliceMut;
use std::sync::Arc;

use crate::error::Result;
use crate::tensor::{Nest, SourceFile};

/// `length` bytes at `source` of a file go to `destination` of the reply.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    pub file: &'a Arc<SourceFile>,
    pub source: u64,
    pub destination: usize,
    pub length: usize,
}

impl Copy<'_> {
    fn source_end(&self) -> u64 {
        self.source + self.length as u64
    }

    fn is_followed_by(&self, next: &Copy<'_>) -> bool {
        Arc::ptr_eq(self.file, next.file) && self.source_end() == next.source
    }
}

/// The copies that a nest with a contiguous innermost loop stands for.
pub(super) fn expand<'a>(nest: &Nest<'a>, destination: usize, copies: &mut Vec<Copy<'a>>) {
    let unit = nest.unit();
    nest.each_run(&mut |source, offset, count| {
        copies.push(Copy {
            file: nest.stored.file(),
            source: nest.source + source * unit,
            destination: destination + ((nest.destination + offset) * unit) as usize,
            length: (count * unit) as usize,
        });
    });
}

/// Joins copies that continue each other in the source and in the reply, across tensors too.
pub(super) fn join(copies: &mut Vec<Copy<'_>>) {
    copies.dedup_by(|next, last| {
        let joins = last.is_followed_by(next) && last.destination + last.length == next.destination;
        if joins {
            last.length += next.length;
        }
        joins
    });
}

/// Carries out copies whose destinations do not overlap.
pub(super) fn execute(mut copies: Vec<Copy<'_>>, reply: &mut [u8]) -> Result<()> {
    if let [copy] = &*copies {
        let target = &mut reply[copy.destination..copy.destination + copy.length];
        return copy.file.read_exact_at(target, copy.source);
    }
    let mut slices = destinations(&mut copies, reply);
    let mut order: Vec<usize> = (0..copies.len()).collect();
    order.sort_by_key(|i| (Arc::as_ptr(copies[*i].file), copies[*i].source));
    for stretch in order.chunk_by(|a, b| copies[*a].is_followed_by(&copies[*b])) {
        let mut parts: Vec<_> = stretch
            .iter()
            .map(|i| IoSliceMut::new(std::mem::take(&mut slices[*i])))
            .collect();
        let first = &copies[stretch[0]];
        first.file.read_scattered(&mut parts, first.source)?;
    }
    Ok(())
}

/// The part of the reply that each copy fills. Sorts the copies by destination.
fn destinations<'r>(copies: &mut [Copy<'_>], mut reply: &'r mut [u8]) -> Vec<&'r mut [u8]> {
    copies.sort_by_key(|copy| copy.destination);
    let mut start = 0;
    copies
        .iter()
        .map(|copy| {
            let (_, rest) = std::mem::take(&mut reply).split_at_mut(copy.destination - start);
            let (part, rest) = rest.split_at_mut(copy.length);
            (reply, start) = (rest, copy.destination + copy.length);
            part
        })
        .collect()
}

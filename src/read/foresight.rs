//! Blocks of stores asked for before their reader comes to them, in the order of the virtual file.
//!
//! A virtual file takes its bytes from here and there: a tensor of a DCP alternates between shards, and the next tensor lies
//! elsewhere in them. So the plan of what follows is made from the virtual file, and each source range in it is begun, as far
//! as there is room; the reader then finds its blocks there or under way. A reader counts as sequential from its third request
//! on. The window starts at 4 MiB and doubles with each plan up to half of the cache:
//!
//! ```text
//! requests   0..0.5  0.5..1  1..1.5 MiB    1.5..2             ...    5.5 MiB
//! begun      -       -       1.5..5.5      -                  ...    5.5..13.5
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::output::{Piece, Pieces, VirtualFile};
use crate::source::{SourceFile, place};
use crate::tensor::{ComputedBox, Nest, Part, Tensor, pieces, pieces_of_box};

/// First window, in bytes of the virtual file.
const FIRST: u64 = 4 << 20;

/// Requests that follow each other before anything is begun.
const STREAK: u32 = 2;

/// How far a request may lie before the end of the one that it follows, and how far behind: several threads answer the kernel's
/// requests, and an export reads pieces of 4 MiB.
const BEFORE: u64 = 8 << 20;
const BEHIND: u64 = 8 << 20;

/// Sequential readers that are told apart.
const READERS: usize = 32;

/// After this time a reader counts as gone.
const IDLE: Duration = Duration::from_secs(5);

/// A range of a source is begun if at least one byte of so many is wanted.
const SPARSE: u64 = 4;

/// The sequential readers of a mount.
#[derive(Debug, Default)]
pub(super) struct Foresight(Mutex<VecDeque<Sequence>>);

/// One reader of a virtual file.
#[derive(Debug)]
struct Sequence {
    file: usize,
    seen: u64,
    streak: u32,
    planned: u64,
    window: u64,
    used: Instant,
}

impl Foresight {
    /// Notes a request, and begins what its reader will ask for next.
    pub fn note(&self, file: &VirtualFile, start: u64, end: u64) {
        if !place::has_objects() {
            return;
        }
        if let Some(ahead) = self.ahead(ptr::from_ref(file).addr(), start, end) {
            // What cannot be planned is told by the request itself.
            begin(file, ahead.start, ahead.end.min(file.size())).ok();
        }
    }

    /// The range of the file that is to be begun now.
    fn ahead(&self, file: usize, start: u64, end: u64) -> Option<Range<u64>> {
        let mut sequences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = |sequence: &Sequence| {
            sequence.file == file
                && start.saturating_add(BEFORE) >= sequence.seen
                && start <= sequence.seen.saturating_add(BEHIND)
        };
        let Some(at) = sequences.iter().position(follows) else {
            sequences.truncate(READERS - 1);
            sequences.push_front(Sequence {
                file,
                seen: end,
                streak: 0,
                planned: end,
                window: 0,
                used: Instant::now(),
            });
            return None;
        };
        let mut sequence = sequences.remove(at)?;
        // One that jumps about within reach is no sequence.
        let is_next = start <= sequence.seen && end > sequence.seen
            || start.abs_diff(sequence.seen) <= FIRST / 8;
        sequence.streak = match is_next {
            true => sequence.streak.saturating_add(1),
            false => sequence.streak,
        };
        sequence.seen = sequence.seen.max(end);
        sequence.used = Instant::now();
        let others = sequences.iter().filter(|other| other.is_active()).count();
        let ahead = sequence.next(others as u64 + 1);
        sequences.push_front(sequence);
        ahead
    }
}

impl Sequence {
    /// Whether its reader goes on, so that it has a share of the room.
    fn is_active(&self) -> bool {
        self.window > 0 && self.used.elapsed() < IDLE
    }

    /// The range to begin now, where so many readers share the room.
    fn next(&mut self, readers: u64) -> Option<Range<u64>> {
        let left = self.planned.saturating_sub(self.seen);
        if self.streak < STREAK || left > self.window / 2 {
            return None;
        }
        let most = (place::foresight_limit() / readers.max(1)).max(FIRST);
        self.window = (self.window * 2).clamp(FIRST, most);
        let start = self.planned.max(self.seen);
        self.planned = self.seen.saturating_add(self.window);
        (start < self.planned).then_some(start..self.planned)
    }
}

/// Begins the source ranges of a range of a virtual file.
fn begin(file: &VirtualFile, start: u64, end: u64) -> Result<()> {
    let mut result = Ok(());
    file.each_piece(start, end, &mut |_, piece| {
        match piece {
            Piece::Inline(_) => {}
            Piece::Source(source, range) => foresee(source, range),
            Piece::Tensor(tensor, range) if result.is_ok() => result = begin_tensor(tensor, range),
            Piece::Tensor(..) => {}
        }
        Ok(())
    })?;
    result
}

fn begin_tensor(tensor: &Tensor, range: Range<u64>) -> Result<()> {
    let unit = tensor.unit();
    pieces(
        tensor,
        range.start / unit..range.end.div_ceil(unit),
        &mut |part| begin_part(&part),
    )
}

fn begin_part(part: &Part<'_>) -> Result<()> {
    match part {
        Part::Stored(nest) => {
            begin_nest(nest);
            Ok(())
        }
        Part::Computed(part) => begin_inputs(part),
    }
}

/// The range in which the elements of a nest lie, unless most of it is others.
fn begin_nest(nest: &Nest<'_>) {
    let loops = nest.loops();
    let steps = loops
        .iter()
        .map(|each| each.count.saturating_sub(1).saturating_mul(each.source));
    let length = steps
        .fold(1, u64::saturating_add)
        .saturating_mul(nest.unit());
    let counts = loops.iter().map(|each| each.count);
    let bytes = counts.fold(nest.unit(), u64::saturating_mul);
    if length <= bytes.saturating_mul(SPARSE) {
        foresee(
            nest.stored.file(),
            nest.source..nest.source.saturating_add(length),
        );
    }
}

/// The same rows of inputs that have as many of them.
fn begin_inputs(part: &ComputedBox<'_>) -> Result<()> {
    let rows = part.tensor.shape().dims().first();
    let (_, inputs) = part.tensor.as_computed().unzip();
    for input in inputs.unwrap_or_default() {
        if let [own, columns] = input.shape().dims()
            && Some(own) == rows
        {
            pieces_of_box(input, part.rows.clone(), 0..*columns, &mut |part| {
                begin_part(&part)
            })?;
        }
    }
    Ok(())
}

fn foresee(source: &SourceFile, range: Range<u64>) {
    if source.is_remote() {
        source.read_ahead(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_sequential_reader_is_preceded_by_a_growing_window() {
        let foresight = Foresight::default();
        let ask = |at: u64| foresight.ahead(1, at * MIB, (at + 1) * MIB);
        assert_eq!((ask(0), ask(1)), (None, None));
        assert_eq!(ask(2), Some(3 * MIB..7 * MIB));
        assert_eq!((ask(3), ask(4)), (None, Some(7 * MIB..13 * MIB)));
        assert_eq!(ask(5), None);
        // Another file, and a reader far away.
        assert_eq!(foresight.ahead(2, 6 * MIB, 7 * MIB), None);
        assert_eq!(ask(500), None);
    }

    #[test]
    fn random_requests_begin_nothing() {
        let foresight = Foresight::default();
        for at in (0..400u64).map(|number| number * 7919 % 1000) {
            let start = at * 16 * MIB;
            assert_eq!(foresight.ahead(1, start, start + MIB / 16), None, "{at}");
        }
    }
}

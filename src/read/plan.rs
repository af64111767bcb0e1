//! The plan of one request: inline bytes, copies, casts and computed parts.

use std::borrow::Cow;
use std::ops::Range;

use super::cast_copy::CastCopy;
use super::computed::ComputedCopy;
use super::scatter::{self, Copy};
use super::span::Span;
use super::tiles::Production;
use super::{blocks, read_tensor_at, room};
use crate::error::Result;
use crate::output::{Piece, Pieces, VirtualFile};
use crate::tensor::{Nest, Part, Tensor, pieces, pieces_of_box};

/// A range of a tensor that is taken from blocks.
struct Transposed<'a> {
    destination: usize,
    tensor: &'a Tensor,
    range: Range<u64>,
}

/// How far a transposed tensor and its file were read.
pub(super) struct Progress {
    tensor: Tensor,
    end: u64,
    file_end: u64,
}

/// How many tensors on the next transposed one is looked for.
const REACH: usize = 16;

impl Progress {
    /// Has what comes next produced where the reader goes on to it.
    pub fn produce_ahead(&self, file: &VirtualFile) {
        blocks::produce_ahead(&self.tensor, self.end, || self.following(file));
    }

    /// The next transposed tensor of the file.
    fn following(&self, file: &VirtualFile) -> Option<Tensor> {
        let segments = file.overlapping(self.file_end, u64::MAX).take(REACH);
        let mut tensors = segments.filter_map(|(_, segment)| segment.tensor());
        let is_next =
            |tensor: &&Tensor| tensor.identity() != self.tensor.identity() && is_transposed(tensor);
        tensors.find(is_next).cloned()
    }
}

/// Whether the first row of a tensor would be taken from a block.
fn is_transposed(tensor: &Tensor) -> bool {
    let mut plan = Plan {
        uses_blocks: true,
        ..Plan::default()
    };
    let columns = tensor.shape().dims().last().unwrap_or(&1);
    let row = plan.add_tensor(tensor, 0, columns * tensor.unit(), 0);
    row.is_ok() && !plan.transposed.is_empty()
}

/// Destinations are byte offsets into the reply, and together cover it exactly once.
#[derive(Default)]
pub(super) struct Plan<'a> {
    ready: Vec<(usize, Cow<'a, [u8]>)>,
    copies: Vec<Copy<'a>>,
    stages: Vec<CastCopy<'a>>,
    productions: Vec<Production<'a>>,
    computed: Vec<ComputedCopy<'a>>,
    transposed: Vec<Transposed<'a>>,
    /// What those are produced from.
    behind_blocks: Vec<Span>,
    /// Whether transposed ranges are taken from blocks.
    uses_blocks: bool,
}

impl<'a> Plan<'a> {
    pub fn new(file: &'a VirtualFile, start: u64, end: u64) -> Result<Self> {
        let mut plan = Self {
            uses_blocks: true,
            ..Self::default()
        };
        file.each_piece(start, end, &mut |at, piece| {
            let destination = (at - start) as usize;
            match piece {
                Piece::Inline(bytes) => plan.ready.push((destination, bytes.into())),
                Piece::Source(file, range) => plan.copies.push(Copy {
                    file,
                    source: range.start,
                    destination,
                    length: (range.end - range.start) as usize,
                }),
                Piece::Tensor(tensor, range) => {
                    plan.add_tensor(tensor, range.start, range.end, destination)?;
                }
            }
            Ok(())
        })?;
        plan.join();
        Ok(plan)
    }

    /// Bytes `start .. end` of a tensor, without blocks.
    pub fn of_tensor(tensor: &'a Tensor, start: u64, end: u64) -> Result<Self> {
        let mut plan = Self::default();
        plan.add_tensor(tensor, start, end, 0)?;
        plan.join();
        Ok(plan)
    }

    /// A box of a matrix, row after row.
    pub fn of_box(tensor: &'a Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Self> {
        let mut plan = Self::default();
        pieces_of_box(tensor, rows, columns, &mut |piece| {
            plan.add_piece(tensor, piece, 0);
            Ok(())
        })?;
        plan.join();
        Ok(plan)
    }

    fn join(&mut self) {
        scatter::join(&mut self.copies);
        self.stages.dedup_by(|next, last| last.takes(next));
        self.stages.iter_mut().for_each(CastCopy::join);
    }

    /// Bytes `from .. to` of a tensor. The few requests that cut through an element are served by way of whole ones.
    fn add_tensor(
        &mut self,
        tensor: &'a Tensor,
        from: u64,
        to: u64,
        destination: usize,
    ) -> Result<()> {
        let unit = tensor.unit();
        if from.is_multiple_of(unit) && to.is_multiple_of(unit) {
            let mut part = Self::default();
            pieces(tensor, from / unit..to / unit, &mut |piece| {
                part.add_piece(tensor, piece, destination);
                Ok(())
            })?;
            let is_part = to - from < tensor.bytes();
            if self.uses_blocks && is_part && part.is_transposed() {
                self.behind_blocks.extend(part.spans()?);
                self.transposed.push(Transposed {
                    destination,
                    tensor,
                    range: from..to,
                });
            } else {
                self.copies.append(&mut part.copies);
                self.stages.append(&mut part.stages);
                self.productions.append(&mut part.productions);
                self.computed.append(&mut part.computed);
            }
            return Ok(());
        }
        let (first, last) = (from / unit * unit, to.next_multiple_of(unit));
        let mut whole = Vec::new();
        read_tensor_at(tensor, first, room(&mut whole, (last - first) as usize)?)?;
        whole.truncate((to - first) as usize);
        whole.drain(..(from - first) as usize);
        self.ready.push((destination, whole.into()));
        Ok(())
    }

    /// Whether neighbours of the reply are no neighbours of what it is read from or computed as.
    fn is_transposed(&self) -> bool {
        !self.productions.is_empty() || self.computed.iter().any(ComputedCopy::is_transposed)
    }

    fn add_piece(&mut self, tensor: &'a Tensor, part: Part<'a>, destination: usize) {
        match part {
            Part::Stored(nest) => self.add_nest(tensor, nest, destination),
            Part::Computed(part) => self.computed.push(ComputedCopy {
                part,
                dtype: tensor.dtype(),
                destination,
            }),
        }
    }

    fn add_nest(&mut self, tensor: &'a Tensor, nest: Nest<'a>, destination: usize) {
        let (from, to) = (nest.dtype, tensor.dtype());
        if !nest.is_contiguous_inside() {
            self.productions.push(Production {
                nest,
                dtype: to,
                destination,
            });
        } else if from == to {
            scatter::expand(&nest, destination, &mut self.copies);
        } else {
            self.stages.push(CastCopy::of(&nest, to, destination));
        }
    }

    /// What the files are read in.
    pub fn spans(&mut self) -> Result<impl Iterator<Item = Span>> {
        let computed = self.computed.iter().map(ComputedCopy::spans);
        let computed: Vec<Vec<Span>> = computed.collect::<Result<_>>()?;
        let stages = self.stages.iter_mut().flat_map(CastCopy::spans);
        let productions = self.productions.iter().map(Production::span);
        let behind_blocks = self.behind_blocks.drain(..);
        Ok(scatter::spans(&mut self.copies)
            .chain(stages)
            .chain(productions)
            .chain(behind_blocks)
            .chain(computed.into_iter().flatten()))
    }

    /// How far the last transposed tensor is read by a request that goes up to `end` of the file.
    pub fn progress(&self, end: u64) -> Option<Progress> {
        self.transposed.last().map(|last| Progress {
            tensor: last.tensor.clone(),
            end: last.range.end,
            file_end: end,
        })
    }

    /// The copy that makes a whole reply of `length` bytes, if one does.
    pub fn single_copy(&self, length: usize) -> Option<&Copy<'a>> {
        match &*self.copies {
            [copy] if copy.length == length => Some(copy),
            _ => None,
        }
    }

    pub fn execute(self, reply: &mut [u8]) -> Result<()> {
        for (destination, bytes) in &self.ready {
            reply[*destination..destination + bytes.len()].copy_from_slice(bytes);
        }
        for stage in self.stages {
            stage.execute(reply)?;
        }
        for production in &self.productions {
            production.execute(reply)?;
        }
        for computed in &self.computed {
            computed.execute(reply)?;
        }
        for part in self.transposed {
            let length = (part.range.end - part.range.start) as usize;
            let target = &mut reply[part.destination..part.destination + length];
            if !blocks::read(part.tensor, part.range.start, target)? {
                read_tensor_at(part.tensor, part.range.start, target)?;
            }
        }
        scatter::execute(self.copies, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Attributes, Segment};
    use crate::source::SourceFile;
    use crate::tensor::{Dtype, Shape, contiguous};

    #[test]
    fn the_next_transposed_tensor_of_the_file_follows() {
        let source = tempfile::NamedTempFile::new().unwrap();
        source.as_file().set_len(400).unwrap();
        let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
        let shape = Shape::new(&[10, 20]).unwrap();
        let layout = contiguous(0, &shape);
        let plain = Tensor::stored(source, Dtype::BF16, shape, layout).unwrap();
        let cast = plain.cast(Dtype::F32).unwrap();
        let (first, second) = (plain.transpose().unwrap(), plain.transpose().unwrap());
        let tensors =
            [&first, &plain, &cast, &second].map(|tensor| Segment::Tensor(tensor.clone()));
        let file = VirtualFile::new("x", Attributes::default(), tensors.into());
        let behind = |file_end| {
            let plan = Plan::new(&file, file_end - 10, file_end).unwrap();
            let following = plan.progress(file_end).unwrap().following(&file);
            following.map(|tensor| tensor.identity())
        };
        assert_eq!(behind(10), Some(second.identity()));
        assert_eq!(behind(400), Some(second.identity()));
        assert_eq!(behind(file.size()), None);
    }
}

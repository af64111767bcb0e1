//! The plan of one request: inline bytes, copies, casts and computed parts. It is complete before anything is read, but for
//! arrays whose place only their own file tells.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use super::cast_copy::CastCopy;
use super::computed::ComputedCopy;
use super::copies::{self, Copy};
use super::factors::Factors;
use super::inputs::Inputs;
use super::request::{Request, State};
use super::transpose_copy::TransposeCopy;
use crate::error::Result;
use crate::output::{Piece, Pieces, VirtualFile};
use crate::source::{Bytes, Caching, Memory};
use crate::tensor::{Nest, Part, Tensor, pieces, pieces_of_box};

/// A range of a tensor, and where it goes in the reply.
struct TensorRange<'a> {
    destination: usize,
    tensor: &'a Tensor,
    range: Range<u64>,
}

impl<'a> TensorRange<'a> {
    fn target<'r>(&self, reply: &'r mut [u8]) -> &'r mut [u8] {
        let length = (self.range.end - self.range.start) as usize;
        let target = reply.get_mut(self.destination..self.destination + length);
        target.unwrap_or_default()
    }

    /// Whether it begins and ends at multiples of so many bytes.
    fn is_whole(&self, unit: u64) -> bool {
        self.range.start.is_multiple_of(unit) && self.range.end.is_multiple_of(unit)
    }

    /// Whether it holds many rows, of which it cuts the first or the last.
    fn cuts_rows(&self) -> bool {
        let length = self.range.end - self.range.start;
        let row = row_bytes(self.tensor).max(1);
        length / row >= MANY_ROWS && !self.is_whole(row)
    }
}

/// How far a transposed tensor and its file were read.
#[derive(Debug)]
pub(super) struct Progress {
    tensor: Tensor,
    end: u64,
    file_end: u64,
}

/// How many tensors on the next transposed one is looked for.
const REACH: usize = 16;

impl Progress {
    /// Has the next block produced where the reader goes on to it.
    pub fn produce_ahead(&self, file: &VirtualFile, state: &Arc<State>, caching: Caching) {
        let following = || self.following(file);
        let Some(block) = state.blocks.ahead(&self.tensor, self.end, following) else {
            return;
        };
        let state = state.clone();
        let produce = move || {
            let request = Request::new(&state, caching);
            if block
                .produce(&|tensor, reply| fill(tensor, 0, reply, &request))
                .is_ok()
            {
                request.touched().settle();
            }
        };
        // Without a thread the reader produces it when it gets there.
        thread::Builder::new().spawn(produce).ok();
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

fn row_bytes(tensor: &Tensor) -> u64 {
    let columns = tensor.shape().dims().last().unwrap_or(&1);
    columns * tensor.unit()
}

/// Whether the first row of a tensor would be taken from a block.
fn is_transposed(tensor: &Tensor) -> bool {
    let plan = Plan::of_tensor(tensor, 0, row_bytes(tensor));
    plan.is_ok_and(|plan| plan.is_transposed())
}

/// Fills `reply` with the bytes of a tensor from `start` on, without blocks.
pub(super) fn fill(
    tensor: &Tensor,
    start: u64,
    reply: &mut [u8],
    request: &Request<'_>,
) -> Result<()> {
    Plan::of_tensor(tensor, start, start + reply.len() as u64)?.execute(request, reply)
}

impl Inputs for Request<'_> {
    fn fetch(&self, tensor: &Tensor, rows: Range<u64>, columns: Range<u64>) -> Result<Bytes> {
        let elements = (rows.end - rows.start) * (columns.end - columns.start);
        let length = (elements * tensor.unit()) as usize;
        Plan::of_box(tensor, rows, columns)?.into_bytes(length, self)
    }

    fn memory(&self, length: usize) -> Result<Memory> {
        self.state.fetcher.memory(length)
    }

    fn factors(&self) -> &Factors {
        &self.state.factors
    }
}

/// Destinations are byte offsets into the reply, and together cover it exactly once.
#[derive(Default)]
pub(super) struct Plan<'a> {
    inline: Vec<(usize, &'a [u8])>,
    copies: Vec<Copy<'a>>,
    casts: Vec<CastCopy<'a>>,
    transposes: Vec<TransposeCopy<'a>>,
    computed: Vec<ComputedCopy<'a>>,
    /// Taken from blocks.
    blocks: Vec<TensorRange<'a>>,
    /// Ranges that cut through an element, or through a row that is computed, of so many bytes: they are served by way of
    /// whole ones.
    cut: Vec<(u64, TensorRange<'a>)>,
}

/// Rows of a computed matrix from which on a reply is computed as whole rows: their inputs then lie together, and cost one read
/// of each file. Fewer rows are computed as far as they are wanted.
const MANY_ROWS: u64 = 8;

impl<'a> Plan<'a> {
    pub fn new(file: &'a VirtualFile, start: u64, end: u64) -> Result<Self> {
        let mut plan = Self::default();
        file.each_piece(start, end, &mut |at, piece| {
            let destination = (at - start) as usize;
            match piece {
                Piece::Inline(bytes) => plan.inline.push((destination, bytes)),
                Piece::Source(file, range) => plan.copies.push(Copy {
                    file,
                    source: range.start,
                    destination,
                    length: (range.end - range.start) as usize,
                }),
                Piece::Tensor(tensor, range) => plan.add_tensor(
                    TensorRange {
                        destination,
                        tensor,
                        range,
                    },
                    true,
                )?,
            }
            Ok(())
        })?;
        plan.join();
        Ok(plan)
    }

    /// Bytes `start .. end` of a tensor, without blocks.
    pub fn of_tensor(tensor: &'a Tensor, start: u64, end: u64) -> Result<Self> {
        let mut plan = Self::default();
        let whole = TensorRange {
            destination: 0,
            tensor,
            range: start..end,
        };
        plan.add_tensor(whole, false)?;
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
        copies::join(&mut self.copies);
        self.casts.dedup_by(|next, last| last.takes(next));
        self.casts.iter_mut().for_each(CastCopy::join);
    }

    fn add_tensor(&mut self, part: TensorRange<'a>, uses_blocks: bool) -> Result<()> {
        let TensorRange {
            tensor, ref range, ..
        } = part;
        let unit = tensor.unit();
        if !part.is_whole(unit) {
            self.cut.push((unit, part));
            return Ok(());
        }
        let mut plan = Self::default();
        pieces(tensor, range.start / unit..range.end / unit, &mut |piece| {
            plan.add_piece(tensor, piece, part.destination);
            Ok(())
        })?;
        let is_part = range.end - range.start < tensor.bytes();
        if uses_blocks && is_part && plan.is_transposed() {
            self.blocks.push(part);
            return Ok(());
        }
        if !plan.computed.is_empty() && part.cuts_rows() {
            self.cut.push((row_bytes(tensor), part));
            return Ok(());
        }
        self.copies.append(&mut plan.copies);
        self.casts.append(&mut plan.casts);
        self.transposes.append(&mut plan.transposes);
        self.computed.append(&mut plan.computed);
        Ok(())
    }

    /// Returns whether neighbours of the reply are no neighbours of what it is read from or computed as.
    fn is_transposed(&self) -> bool {
        !self.transposes.is_empty() || self.computed.iter().any(ComputedCopy::is_transposed)
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
        let dtype = tensor.dtype();
        if !nest.is_contiguous_inside() {
            self.transposes.push(TransposeCopy {
                nest,
                dtype,
                destination,
            });
        } else if nest.dtype == dtype {
            copies::expand(&nest, destination, &mut self.copies);
        } else {
            self.casts.push(CastCopy::of(&nest, dtype, destination));
        }
    }

    /// How far the last transposed tensor is read by a request that goes up to `end` of the file.
    pub fn progress(&self, end: u64) -> Option<Progress> {
        self.blocks.last().map(|last| Progress {
            tensor: last.tensor.clone(),
            end: last.range.end,
            file_end: end,
        })
    }

    /// The `length` bytes of the whole reply: where they lie in the source as they are, without a copy.
    pub fn into_bytes(self, length: usize, request: &Request<'_>) -> Result<Bytes> {
        if let [copy] = &*self.copies
            && copy.length == length
        {
            return request.fetch(copy.file, copy.range());
        }
        let mut reply = request.memory(length)?;
        self.execute(request, &mut reply)?;
        Ok(reply.into())
    }

    pub fn execute(self, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        for (destination, bytes) in &self.inline {
            let target = reply.get_mut(*destination..destination + bytes.len());
            target.unwrap_or_default().copy_from_slice(bytes);
        }
        for cast in self.casts {
            cast.execute(request, reply)?;
        }
        for transpose in &self.transposes {
            transpose.execute(request, reply)?;
        }
        for computed in &self.computed {
            computed.execute(request, reply)?;
        }
        for part in &self.blocks {
            read_block(part, request, part.target(reply))?;
        }
        for (unit, part) in &self.cut {
            read_cut(*unit, part, request, part.target(reply))?;
        }
        copies::execute(self.copies, request, reply)
    }
}

fn read_block(part: &TensorRange<'_>, request: &Request<'_>, target: &mut [u8]) -> Result<()> {
    let (tensor, start) = (part.tensor, part.range.start);
    let produce = |tensor: &Tensor, slab: &mut [u8]| fill(tensor, 0, slab, request);
    match request.state.blocks.read(tensor, start, target, &produce)? {
        true => Ok(()),
        false => fill(tensor, start, target, request),
    }
}

fn read_cut(
    unit: u64,
    part: &TensorRange<'_>,
    request: &Request<'_>,
    target: &mut [u8],
) -> Result<()> {
    let TensorRange { tensor, range, .. } = part;
    let (first, last) = (range.start / unit * unit, range.end.next_multiple_of(unit));
    let mut whole = request.memory((last - first) as usize)?;
    fill(tensor, first, &mut whole, request)?;
    let inside = (range.start - first) as usize..(range.end - first) as usize;
    target.copy_from_slice(whole.get(inside).unwrap_or_default());
    Ok(())
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

//! Elements that a kernel computes: a box of the result at a time, put together from boxes of the inputs.
//!
//! A request of a computed matrix comes as boxes. Each is cut into bands of whole rows whose inputs fit the processor's cache,
//! the inputs of a band are read as any tensor is, the kernel fills the band, and its elements go to their places in the
//! reply: at once where they follow each other there, transposed where they do not.

use std::cell::Cell;
use std::ops::Range;

use super::cast::cast;
use super::compute::compute;
use super::fetch::spans_of_box;
use super::room;
use super::scatter_tile::{Grid, place};
use super::span::Span;
use crate::error::Result;
use crate::tensor::{ComputedBox, Dtype, Kernel, Tensor};

/// Bytes of all inputs of a band together: a longest direct read.
const BAND_BYTES: u64 = 1 << 20;

/// Most elements of a band.
const BAND: u64 = 512 << 10;

thread_local! {
    static COMPUTED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static ROUNDED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A box of a computed matrix that a reply wants.
pub(super) struct ComputedCopy<'a> {
    pub part: ComputedBox<'a>,
    /// Type of the elements in the reply.
    pub dtype: Dtype,
    /// Where in the reply the requested range of the tensor starts, in bytes.
    pub destination: usize,
}

impl ComputedCopy<'_> {
    /// Whether neighbours of the result are no neighbours in the reply.
    pub fn is_transposed(&self) -> bool {
        let columns = self.part.columns.end - self.part.columns.start;
        columns > 1 && self.part.column_target != 1
    }

    /// The ranges of the sources that the box is computed from.
    pub fn spans(&self) -> Result<Vec<Span>> {
        spans_of_computed(
            self.part.tensor,
            self.part.rows.clone(),
            self.part.columns.clone(),
        )
    }

    pub fn execute(&self, reply: &mut [u8]) -> Result<()> {
        let (mut computed, mut rounded) = (COMPUTED.take(), ROUNDED.take());
        let mut bands = self.bands();
        let result = bands.try_for_each(|(rows, columns)| {
            self.execute_band(rows, columns, (&mut computed, &mut rounded), reply)
        });
        COMPUTED.set(computed);
        ROUNDED.set(rounded);
        result
    }

    fn bands(&self) -> impl Iterator<Item = (Range<u64>, Range<u64>)> + use<> {
        let (rows, columns) = (self.part.rows.clone(), self.part.columns.clone());
        let (_, inputs) = self.part.tensor.as_computed().unzip();
        let bytes: u64 = inputs.unwrap_or_default().iter().map(Tensor::unit).sum();
        let most = (BAND_BYTES / bytes.max(1)).min(BAND);
        let width = (columns.end - columns.start).min(most).max(1);
        let height = (most / width).max(1);
        let parts = |range: Range<u64>, most: u64| {
            let end = range.end;
            range
                .step_by(most as usize)
                .map(move |start| start..end.min(start + most))
        };
        parts(rows, height).flat_map(move |rows| {
            parts(columns.clone(), width).map(move |columns| (rows.clone(), columns))
        })
    }

    fn execute_band(
        &self,
        rows: Range<u64>,
        columns: Range<u64>,
        (computed, rounded): (&mut Vec<u8>, &mut Vec<u8>),
        reply: &mut [u8],
    ) -> Result<()> {
        let part = &self.part;
        let (height, width) = (rows.end - rows.start, columns.end - columns.start);
        let (own, unit) = (part.tensor.unit(), self.dtype.bytes().unwrap_or(1));
        let to = part.destination
            + (rows.start - part.rows.start) * part.row_target
            + (columns.start - part.columns.start) * part.column_target;
        let start = self.destination + (to * unit) as usize;
        let reply = reply.get_mut(start..).unwrap_or_default();
        let is_dense =
            (width == 1 || part.column_target == 1) && (height == 1 || part.row_target == width);
        if is_dense && part.tensor.dtype() == self.dtype {
            let target = reply.get_mut(..(height * width * unit) as usize);
            return compute(part.tensor, rows, columns, target.unwrap_or_default());
        }
        let elements = room(computed, (height * width * own) as usize)?;
        compute(part.tensor, rows, columns, elements)?;
        let elements = match part.tensor.dtype() == self.dtype {
            true => elements,
            false => {
                let target = room(rounded, (height * width * unit) as usize)?;
                cast(part.tensor.dtype(), elements, self.dtype, target);
                target
            }
        };
        let grid = Grid {
            rows: height as usize,
            columns: width as usize,
            pitch: width as usize,
            row_target: part.row_target as usize,
            column_target: part.column_target as usize,
        };
        place(unit, &grid, elements, reply);
        Ok(())
    }
}

/// The ranges of the sources that a box of a computed matrix needs, but for those that are read once and kept.
pub(super) fn spans_of_computed(
    tensor: &Tensor,
    rows: Range<u64>,
    columns: Range<u64>,
) -> Result<Vec<Span>> {
    let Some((kernel, inputs)) = tensor.as_computed() else {
        return Ok(Vec::new());
    };
    let mut spans = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let (height, width) = input.sides();
        let (rows, columns) = match (kernel, number) {
            (Kernel::LowRank(low_rank), 0) if low_rank.has_magnitude => (rows.clone(), 0..width),
            (Kernel::LowRank(_), 1 | 3) => (rows.clone(), 0..width),
            (Kernel::LowRank(_), _) if number > 0 => continue,
            (Kernel::Scaled(scaled), 0) => {
                let per_element = scaled.code.per_element(input.dtype());
                let end = columns.end.div_ceil(per_element);
                (rows.clone(), columns.start / per_element..end)
            }
            (Kernel::Scaled(_), _) => continue,
            (Kernel::BlockFp8, 1) | (Kernel::BlockScales, _) => continue,
            _ => (rows.clone(), columns.clone()),
        };
        let columns = columns.start.min(width)..columns.end.min(width);
        spans.extend(spans_of_box(
            input,
            rows.start.min(height)..rows.end.min(height),
            columns,
        )?);
    }
    Ok(spans)
}

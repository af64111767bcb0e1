//! Elements that a kernel computes: a box of the result at a time, put together from boxes of the inputs.
//!
//! A request of a computed matrix comes as boxes. Each is cut into bands of whole rows whose inputs fit the processor's cache,
//! the inputs of a band are read as any tensor is, the kernel fills the band, and its elements go to their places in the
//! reply: at once where they follow each other there, transposed where they do not.

use std::ops::Range;

use super::cast::cast;
use super::compute::compute;
use super::inputs::Inputs;
use super::scatter_tile::{Grid, place};
use crate::error::Result;
use crate::tensor::{ComputedBox, Dtype};

/// Bytes of the inputs of a band together, on the average over all bands: a longest direct read.
const BAND_BYTES: u64 = 1 << 20;

/// Most elements of a band.
const BAND: u64 = 512 << 10;

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

    pub fn execute(&self, from: &dyn Inputs, reply: &mut [u8]) -> Result<()> {
        let mut bands = self.bands();
        bands.try_for_each(|(rows, columns)| self.execute_band(from, rows, columns, reply))
    }

    fn bands(&self) -> impl Iterator<Item = (Range<u64>, Range<u64>)> + use<> {
        let (rows, columns) = (self.part.rows.clone(), self.part.columns.clone());
        let (height, width) = self.part.tensor.sides();
        let (_, inputs) = self.part.tensor.as_computed().unzip();
        let inputs = inputs.unwrap_or_default().iter();
        let bytes: u128 = inputs.map(|input| u128::from(input.bytes())).sum();
        let most = u128::from(BAND_BYTES) * u128::from(height) * u128::from(width) / bytes.max(1);
        let most = (most.min(BAND.into()) as u64).max(1);
        let width = (columns.end - columns.start).clamp(1, most);
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
        from: &dyn Inputs,
        rows: Range<u64>,
        columns: Range<u64>,
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
            return compute(from, part.tensor, rows, columns, target.unwrap_or_default());
        }
        let mut elements = from.memory((height * width * own) as usize)?;
        compute(from, part.tensor, rows, columns, &mut elements)?;
        if part.tensor.dtype() != self.dtype {
            let mut target = from.memory((height * width * unit) as usize)?;
            cast(part.tensor.dtype(), &elements, self.dtype, &mut target);
            elements = target;
        }
        let grid = Grid {
            rows: height as usize,
            columns: width as usize,
            pitch: width as usize,
            row_target: part.row_target as usize,
            column_target: part.column_target as usize,
        };
        place(unit, &grid, &elements, reply);
        Ok(())
    }
}

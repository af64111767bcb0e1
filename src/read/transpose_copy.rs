//! Transposed elements, cast or not, in cache-sized tiles.

use std::ops::Range;

use super::cast::cast;
use super::request::Request;
use super::scatter_tile::{Grid, place};
use crate::error::Result;
use crate::source::Wanted;
use crate::tensor::{Dtype, Loop, Nest, each_offset};

/// Bytes of neighbours in the source that are cast at a time, before they are placed.
const CAST_BYTES: usize = 512 << 10;

/// Longer rows are lent in parts.
const LONG_ROW: u64 = 256 << 10;

/// Bytes of each row and number of rows held at a time where others lie between them: a page is read, an eighth of a kilobyte
/// written.
const ROW_BYTES: u64 = 4096;
const ROWS: u64 = 64;

/// Rows of a tile do not follow each other at a power of two, which would crowd them into few lines of the cache.
const PADDING: u64 = 64;

/// A nest whose innermost loop is strided: neighbours of the reply are no neighbours of the source.
pub(super) struct TransposeCopy<'a> {
    pub nest: Nest<'a>,
    /// Type of the elements in the reply.
    pub dtype: Dtype,
    /// Where in the reply the requested range of the tensor starts, in bytes.
    pub destination: usize,
}

/// A rectangle of source elements: `rows` rows, `row_step` apart, of `columns` neighbours. In the reply, neighbours of a
/// row go `column_target` apart and rows `row_target`.
#[derive(Clone, Copy)]
struct Rectangle {
    rows: u64,
    row_step: u64,
    columns: u64,
    column_target: u64,
    row_target: u64,
    /// Elements from the first of the nest to the first of the rectangle, in the source and in the reply.
    source: u64,
    target: u64,
}

impl Rectangle {
    /// Returns whether nothing lies between its rows.
    fn is_dense(&self) -> bool {
        self.rows == 1 || self.row_step == self.columns
    }

    /// Returns some columns of some rows.
    fn part(&self, rows: Range<u64>, columns: Range<u64>) -> Self {
        Self {
            rows: rows.end - rows.start,
            columns: columns.end - columns.start,
            source: self.source + rows.start * self.row_step + columns.start,
            target: self.target + rows.start * self.row_target + columns.start * self.column_target,
            ..*self
        }
    }

    /// Returns the parts of at most so many rows and columns.
    fn parts(self, height: u64, width: u64) -> impl Iterator<Item = Self> {
        let starts = |end: u64, step: u64| (0..end).step_by(step.max(1) as usize);
        starts(self.columns, width).flat_map(move |column| {
            starts(self.rows, height).map(move |row| {
                let rows = row..self.rows.min(row + height);
                self.part(rows, column..self.columns.min(column + width))
            })
        })
    }
}

impl TransposeCopy<'_> {
    pub fn execute(&self, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        let (outer, rectangle) = self.rectangle();
        let is_dense = rectangle.is_dense();
        if !is_dense {
            self.nest.stored.file().read_ahead(self.span());
        }
        let mut result = Ok(());
        each_offset(&outer, 0, 0, &mut |source, target| {
            let rectangle = Rectangle {
                source,
                target,
                ..rectangle
            };
            if result.is_ok() {
                result = match is_dense {
                    true => self.lend(&rectangle, request, reply),
                    false => self.gather(&rectangle, request, reply),
                };
            }
        });
        result
    }

    /// The bytes of the file in which the elements lie.
    fn span(&self) -> Range<u64> {
        let (start, loops) = (self.nest.source, self.nest.loops());
        let steps = loops.iter().map(|each| (each.count - 1) * each.source);
        start..start + (steps.sum::<u64>() + 1) * self.nest.unit()
    }

    /// The loop along source neighbours and the loop along reply neighbours, and the others.
    fn rectangle(&self) -> (Vec<Loop>, Rectangle) {
        let mut outer = self.nest.loops().to_vec();
        let mut take = |chosen: &dyn Fn(&Loop) -> bool| {
            let at = outer.iter().position(chosen);
            at.map(|at| outer.remove(at))
        };
        let one = Loop {
            count: 1,
            source: 1,
            destination: 1,
        };
        let columns = take(&|each| each.source == 1).unwrap_or(one);
        let rows = take(&|each| each.destination == 1).or_else(|| take(&|_| true));
        let rows = rows.unwrap_or(one);
        let rectangle = Rectangle {
            rows: rows.count,
            row_step: rows.source,
            columns: columns.count,
            column_target: columns.destination,
            row_target: rows.destination,
            source: 0,
            target: 0,
        };
        (outer, rectangle)
    }

    /// Places a dense rectangle as it is lent: whole rows at a time, or long ones in parts.
    fn lend(&self, all: &Rectangle, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        let (file, unit) = (self.nest.stored.file(), self.nest.unit());
        let is_long = all.columns * unit > LONG_ROW;
        let height = if is_long { 1 } else { all.rows };
        for strip in all.parts(height, all.columns) {
            let row = if is_long { unit } else { strip.columns * unit };
            let start = self.nest.source + strip.source * unit;
            let range = start..start + strip.rows * strip.columns * unit;
            let most = (CAST_BYTES / row as usize).max(1) * row as usize;
            let most = if self.casts() { most } else { usize::MAX };
            request.lend(file, range, row, &mut |at, lent| {
                for (number, elements) in lent.chunks(most).enumerate() {
                    let first = (at + (number * most) as u64) / row;
                    let some = first..first + elements.len() as u64 / row;
                    let part = match is_long {
                        true => strip.part(0..1, some),
                        false => strip.part(some, 0..strip.columns),
                    };
                    self.place(&part, part.columns, elements, request, reply)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Places a rectangle between whose rows others lie, a few rows at a time.
    fn gather(&self, all: &Rectangle, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        let (file, unit) = (self.nest.stored.file(), self.nest.unit());
        for part in all.parts(ROWS, ROW_BYTES / unit) {
            let (pitch, width) = (part.columns + PADDING / unit, part.columns * unit);
            let mut tile = request.memory((part.rows * pitch * unit) as usize)?;
            let rows = tile.chunks_mut((pitch * unit) as usize).zip(0..);
            let wanted = rows.map(|(into, row)| Wanted {
                file,
                offset: self.nest.source + (part.source + row * part.row_step) * unit,
                into: into.get_mut(..width as usize).unwrap_or_default(),
            });
            request.gather(&mut wanted.collect::<Vec<_>>())?;
            self.place(&part, pitch, &tile, request, reply)?;
        }
        Ok(())
    }

    /// Casts elements that lie row after row, `pitch` apart, and sends each to its place in the reply.
    fn place(
        &self,
        part: &Rectangle,
        pitch: u64,
        elements: &[u8],
        request: &Request<'_>,
        reply: &mut [u8],
    ) -> Result<()> {
        let unit = self.dtype.bytes().unwrap_or(1);
        let start = self.destination + ((self.nest.destination + part.target) * unit) as usize;
        let reply = reply.get_mut(start..).unwrap_or_default();
        let grid = Grid {
            rows: part.rows as usize,
            columns: part.columns as usize,
            pitch: pitch as usize,
            row_target: part.row_target as usize,
            column_target: part.column_target as usize,
        };
        if !self.casts() {
            place(unit, &grid, elements, reply);
            return Ok(());
        }
        let mut produced = request.memory((part.rows * pitch * unit) as usize)?;
        cast(self.nest.dtype, elements, self.dtype, &mut produced);
        place(unit, &grid, &produced, reply);
        Ok(())
    }

    fn casts(&self) -> bool {
        self.nest.dtype != self.dtype
    }
}

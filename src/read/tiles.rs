//! Transposed elements, cast or not, in cache-sized tiles.

use std::cell::Cell;

use crate::error::Result;
use crate::source::{DirectBuffer, Rows};
use crate::tensor::{Dtype, Loop, Nest, each_offset};

use super::cast::cast;
use super::scatter_tile::{Grid, place};
use super::span::Span;
use super::{GATHERED, room};

/// Neighbours in the source held at a time, so that what was read is transposed in the processor's cache.
const RUN_BYTES: u64 = 256 << 10;
/// The same past the page cache where all of them are cast before they are placed: half a longest read.
const LANDED_CAST: u64 = DirectBuffer::MAX_LENGTH / 2;
/// Bytes of each row and number of rows held at a time otherwise: a page is read, half a kilobyte written.
const ROW_BYTES: u64 = 4096;
const ROWS: u64 = 128;
/// Rows of a tile do not follow each other at a power of two, which would crowd them into few lines of the cache.
const PADDING: u64 = 64;

thread_local! {
    static PRODUCED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A nest whose innermost loop is strided: neighbours of the reply are no neighbours of the source.
pub(super) struct Production<'a> {
    pub nest: Nest<'a>,
    /// Type of the produced elements.
    pub dtype: Dtype,
    /// Where in the reply the requested range of the tensor starts, in bytes.
    pub destination: usize,
}

/// A rectangle of source elements: `rows` rows, `row_step` apart, of `columns` neighbours. In the reply, neighbours of a
/// row go `column_target` apart and rows `row_target`.
struct Rectangle {
    rows: u64,
    row_step: u64,
    columns: u64,
    column_target: u64,
    row_target: u64,
    /// Bytes of source held at a time where they are neighbours.
    run: u64,
}

impl Rectangle {
    /// Whether nothing lies between its rows.
    fn is_dense(&self) -> bool {
        self.rows == 1 || self.row_step == self.columns
    }
}

impl Production<'_> {
    /// What the source elements lie in.
    pub fn span(&self) -> Span {
        let (start, unit, loops) = (self.nest.source, self.nest.unit(), self.nest.loops());
        let steps = loops.iter().map(|each| (each.count - 1) * each.source);
        let count: u64 = loops.iter().map(|each| each.count).product();
        Span {
            file: self.nest.stored.file().clone(),
            range: start..start + (steps.sum::<u64>() + 1) * unit,
            bytes: count * unit,
        }
    }

    pub fn execute(&self, reply: &mut [u8]) -> Result<()> {
        let (outer, mut rectangle) = self.rectangle();
        let span = self.span();
        if rectangle.is_dense() && span.file.uses_direct_io(span.range.clone()) {
            let casts = self.nest.dtype != self.dtype;
            rectangle.run = if casts {
                LANDED_CAST
            } else {
                DirectBuffer::MAX_LENGTH
            };
        } else {
            span.file.read_ahead(span.range);
        }
        let mut tile = Tile {
            read: GATHERED.take(),
            produced: PRODUCED.take(),
            pitch: 0,
        };
        let mut result = Ok(());
        each_offset(&outer, 0, 0, &mut |source, destination| {
            if result.is_ok() {
                result = self.execute_rectangle(&rectangle, source, destination, &mut tile, reply);
            }
        });
        GATHERED.set(tile.read);
        PRODUCED.set(tile.produced);
        result
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
            run: RUN_BYTES,
        };
        (outer, rectangle)
    }

    fn execute_rectangle(
        &self,
        rectangle: &Rectangle,
        source: u64,
        destination: u64,
        tile: &mut Tile,
        reply: &mut [u8],
    ) -> Result<()> {
        let (width, height) = self.tile_sides(rectangle);
        for column in (0..rectangle.columns).step_by(width as usize) {
            for row in (0..rectangle.rows).step_by(height as usize) {
                let part = Rectangle {
                    rows: height.min(rectangle.rows - row),
                    columns: width.min(rectangle.columns - column),
                    ..*rectangle
                };
                let from = source + row * part.row_step + column;
                let to = destination + row * part.row_target + column * part.column_target;
                let landed = self.read_tile(&part, from, tile)?;
                self.place_tile(&part, to, landed.as_deref(), tile, reply)?;
            }
        }
        Ok(())
    }

    /// Columns and rows of a tile.
    fn tile_sides(&self, rectangle: &Rectangle) -> (u64, u64) {
        let unit = self.nest.unit();
        let widest = if rectangle.is_dense() {
            rectangle.run
        } else {
            ROW_BYTES
        };
        let width = rectangle.columns.min(widest / unit).max(1);
        let height = match widest {
            ROW_BYTES => ROWS,
            bytes => bytes / (width * unit),
        };
        (width, height.clamp(1, rectangle.rows))
    }

    /// Reads the rectangle row after row, into the tile unless it landed elsewhere.
    fn read_tile(
        &self,
        part: &Rectangle,
        from: u64,
        tile: &mut Tile,
    ) -> Result<Option<DirectBuffer>> {
        let unit = self.nest.unit();
        let is_dense = part.is_dense();
        let padding = if is_dense { 0 } else { PADDING / unit };
        tile.pitch = part.columns + padding;
        let rows = Rows {
            offset: self.nest.source + from * unit,
            length: (part.columns * unit) as usize,
            step: part.row_step * unit,
        };
        let (file, pitch) = (self.nest.stored.file(), tile.pitch * unit);
        let length = part.rows * pitch;
        if is_dense && let Some(landed) = file.read_direct(rows.offset..rows.offset + length)? {
            return Ok(Some(landed));
        }
        let bytes = room(&mut tile.read, length as usize)?;
        file.read_rows(rows, bytes, pitch as usize)?;
        Ok(None)
    }

    /// Casts the elements of a tile and sends each to its place in the reply.
    fn place_tile(
        &self,
        part: &Rectangle,
        to: u64,
        landed: Option<&[u8]>,
        tile: &mut Tile,
        reply: &mut [u8],
    ) -> Result<()> {
        let unit = self.out_unit();
        let start = self.destination + ((self.nest.destination + to) * unit) as usize;
        let reply = &mut reply[start..];
        let length = part.rows * tile.pitch * self.nest.unit();
        let read = landed.unwrap_or(&tile.read);
        let read = &read[..length as usize];
        if self.nest.dtype == self.dtype {
            self.place(part, tile.pitch, read, reply);
            return Ok(());
        }
        let length = part.rows * tile.pitch * unit;
        let produced = room(&mut tile.produced, length as usize)?;
        cast(self.nest.dtype, read, self.dtype, produced);
        self.place(part, tile.pitch, produced, reply);
        Ok(())
    }

    fn place(&self, part: &Rectangle, pitch: u64, elements: &[u8], reply: &mut [u8]) {
        let grid = Grid {
            rows: part.rows as usize,
            columns: part.columns as usize,
            pitch: pitch as usize,
            row_target: part.row_target as usize,
            column_target: part.column_target as usize,
        };
        place(self.out_unit(), &grid, elements, reply);
    }

    fn out_unit(&self) -> u64 {
        self.dtype.bytes().unwrap_or(1)
    }
}

/// Buffers reused from tile to tile.
struct Tile {
    read: Vec<u8>,
    produced: Vec<u8>,
    /// Elements from the start of a row to the next.
    pitch: u64,
}

//! Elements that are no plain copies: transposed ones, in cache-sized tiles, and cast ones.

use crate::error::Result;
use crate::tensor::{Dtype, Loop, Nest, each_offset};

use super::cast::cast;

/// Bytes of source held at a time.
const TILE_BYTES: u64 = 256 << 10;

/// A nest whose innermost loop is strided, or whose elements change their type.
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
}

impl Production<'_> {
    pub fn execute(&self, reply: &mut [u8]) -> Result<()> {
        let (outer, rectangle) = self.rectangle();
        let mut tile = Tile::default();
        let mut result = Ok(());
        each_offset(&outer, 0, 0, &mut |source, destination| {
            if result.is_ok() {
                result = self.execute_rectangle(&rectangle, source, destination, &mut tile, reply);
            }
        });
        result
    }

    /// The loop along source neighbours, the loop along reply neighbours (one and the same for a cast), and the others.
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
        let widest = (TILE_BYTES / self.nest.unit()).max(1);
        let width = rectangle.columns.min(widest);
        let height = (widest / width).clamp(1, rectangle.rows);
        for row in (0..rectangle.rows).step_by(height as usize) {
            for column in (0..rectangle.columns).step_by(width as usize) {
                let part = Rectangle {
                    rows: height.min(rectangle.rows - row),
                    columns: width.min(rectangle.columns - column),
                    ..*rectangle
                };
                let from = source + row * part.row_step + column;
                let to = destination + row * part.row_target + column * part.column_target;
                self.read_tile(&part, from, tile)?;
                self.place_tile(&part, to, tile, reply);
            }
        }
        Ok(())
    }

    /// Reads the rectangle row after row and casts it.
    fn read_tile(&self, part: &Rectangle, from: u64, tile: &mut Tile) -> Result<()> {
        let unit = self.nest.unit();
        let (read, produced) = if self.nest.dtype == self.dtype {
            (&mut tile.produced, None)
        } else {
            (&mut tile.read, Some(&mut tile.produced))
        };
        read.resize((part.rows * part.columns * unit) as usize, 0);
        for (row, bytes) in read.chunks_mut((part.columns * unit) as usize).enumerate() {
            let offset = self.nest.source + (from + row as u64 * part.row_step) * unit;
            self.nest.stored.file().read_exact_at(bytes, offset)?;
        }
        if let Some(produced) = produced {
            produced.resize((part.rows * part.columns * self.out_unit()) as usize, 0);
            cast(self.nest.dtype, read, self.dtype, produced);
        }
        Ok(())
    }

    fn place_tile(&self, part: &Rectangle, to: u64, tile: &Tile, reply: &mut [u8]) {
        let start = self.destination + ((self.nest.destination + to) * self.out_unit()) as usize;
        let reply = &mut reply[start..];
        match self.out_unit() {
            1 => place::<1>(part, &tile.produced, reply),
            2 => place::<2>(part, &tile.produced, reply),
            4 => place::<4>(part, &tile.produced, reply),
            _ => place::<8>(part, &tile.produced, reply),
        }
    }

    fn out_unit(&self) -> u64 {
        self.dtype.bytes().unwrap_or(1)
    }
}

/// Buffers reused from tile to tile.
#[derive(Default)]
struct Tile {
    read: Vec<u8>,
    produced: Vec<u8>,
}

/// Side of the blocks in which a tile is transposed: both sides of a block stay in the first-level cache.
const BLOCK: usize = 32;

/// Copies elements of `WIDTH` bytes from the rows of a tile to their places.
fn place<const WIDTH: usize>(part: &Rectangle, tile: &[u8], reply: &mut [u8]) {
    let (rows, columns) = (part.rows as usize, part.columns as usize);
    let tile = tile.as_chunks::<WIDTH>().0;
    let reply = reply.as_chunks_mut::<WIDTH>().0;
    if part.column_target == 1 {
        for (row, elements) in tile.chunks(columns).enumerate() {
            let start = row * part.row_target as usize;
            reply[start..start + columns].copy_from_slice(elements);
        }
        return;
    }
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for column in column_block..columns.min(column_block + BLOCK) {
                for row in row_block..rows.min(row_block + BLOCK) {
                    let at = row * part.row_target as usize + column * part.column_target as usize;
                    reply[at] = tile[row * columns + column];
                }
            }
        }
    }
}

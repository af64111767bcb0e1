//! Elements from the rows of a tile to their places in the reply.

use std::array::from_fn;

/// A tile's sides and where its elements go, all in elements.
pub(super) struct Grid {
    pub rows: usize,
    pub columns: usize,
    /// From the start of a row to the next.
    pub pitch: usize,
    /// Between rows in the reply.
    pub row_target: usize,
    /// Between neighbours of a row in the reply.
    pub column_target: usize,
}

/// Side of the squares that are transposed in registers.
const SIDE: usize = 8;

/// Copies elements of `WIDTH` bytes.
pub(super) fn place<const WIDTH: usize>(grid: &Grid, tile: &[u8], reply: &mut [u8]) {
    let tile = tile.as_chunks::<WIDTH>().0;
    let reply = reply.as_chunks_mut::<WIDTH>().0;
    if grid.column_target == 1 {
        for row in 0..grid.rows {
            let (from, to) = (row * grid.pitch, row * grid.row_target);
            reply[to..to + grid.columns].copy_from_slice(&tile[from..from + grid.columns]);
        }
    } else if grid.row_target == 1 {
        transpose(grid, tile, reply);
    } else {
        place_each(grid, (0, 0), tile, reply);
    }
}

/// Squares side by side along the reply's rows, which are so written from front to back; then what is left of both sides.
fn transpose<T: Copy>(grid: &Grid, tile: &[T], reply: &mut [T]) {
    let (rows, columns) = (grid.rows / SIDE * SIDE, grid.columns / SIDE * SIDE);
    for column in (0..columns).step_by(SIDE) {
        for row in (0..rows).step_by(SIDE) {
            let start = row * grid.pitch + column;
            let square: [&[T]; SIDE] = from_fn(|i| &tile[start + i * grid.pitch..][..SIDE]);
            let line = |j: usize| -> [T; SIDE] { from_fn(|i| square[i][j]) };
            for j in 0..SIDE {
                let to = (column + j) * grid.column_target + row;
                reply[to..to + SIDE].copy_from_slice(&line(j));
            }
        }
    }
    let below = Grid { columns, ..*grid };
    place_each(&below, (rows, 0), tile, reply);
    place_each(grid, (0, columns), tile, reply);
}

/// The elements from row and column `first` on, one by one.
fn place_each<T: Copy>(grid: &Grid, first: (usize, usize), tile: &[T], reply: &mut [T]) {
    for column in first.1..grid.columns {
        for row in first.0..grid.rows {
            let to = row * grid.row_target + column * grid.column_target;
            reply[to] = tile[row * grid.pitch + column];
        }
    }
}

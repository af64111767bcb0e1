//! Elements from the rows of a tile to their places in the reply.

use std::array::from_fn;

use bytemuck::cast;
use wide::{u16x8, u32x4};

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

/// A square of elements, and turned, its columns as rows.
type Square<T, const SIDE: usize> = [[T; SIDE]; SIDE];

/// Sends elements of 1, 2, 4 or 8 bytes to their places.
pub(super) fn place(width: u64, grid: &Grid, tile: &[u8], reply: &mut [u8]) {
    match width {
        1 => place_all::<[u8; 1], 8>(grid, tile.as_chunks().0, reply.as_chunks_mut().0, turn),
        2 => place_all(
            grid,
            tile.as_chunks().0,
            reply.as_chunks_mut().0,
            turn_two_bytes,
        ),
        4 => place_all(
            grid,
            tile.as_chunks().0,
            reply.as_chunks_mut().0,
            turn_four_bytes,
        ),
        _ => place_all::<[u8; 8], 8>(grid, tile.as_chunks().0, reply.as_chunks_mut().0, turn),
    }
}

fn turn<T: Copy, const SIDE: usize>(square: Square<T, SIDE>) -> Square<T, SIDE> {
    from_fn(|column| from_fn(|row| square[row][column]))
}

/// In the processor's wide registers, twice as fast as one by one.
fn turn_two_bytes(square: Square<[u8; 2], 8>) -> Square<[u8; 2], 8> {
    u16x8::transpose(square.map(cast)).map(cast)
}

fn turn_four_bytes(square: Square<[u8; 4], 4>) -> Square<[u8; 4], 4> {
    u32x4::transpose(square.map(cast)).map(cast)
}

fn place_all<T: Copy + Default, const SIDE: usize>(
    grid: &Grid,
    tile: &[T],
    reply: &mut [T],
    turn: impl Fn(Square<T, SIDE>) -> Square<T, SIDE>,
) {
    if grid.column_target == 1 {
        for row in 0..grid.rows {
            let (from, to) = (row * grid.pitch, row * grid.row_target);
            reply[to..to + grid.columns].copy_from_slice(&tile[from..from + grid.columns]);
        }
    } else if grid.row_target == 1 {
        transpose(grid, tile, reply, turn);
    } else {
        place_each(grid, (0, 0), tile, reply);
    }
}

/// Squares side by side along the reply's rows, which are so written from front to back; then what is left of both sides.
fn transpose<T: Copy + Default, const SIDE: usize>(
    grid: &Grid,
    tile: &[T],
    reply: &mut [T],
    turn: impl Fn(Square<T, SIDE>) -> Square<T, SIDE>,
) {
    let (rows, columns) = (grid.rows / SIDE * SIDE, grid.columns / SIDE * SIDE);
    for column in (0..columns).step_by(SIDE) {
        for row in (0..rows).step_by(SIDE) {
            let from = |i| (row + i) * grid.pitch + column;
            let square = from_fn(|i| {
                let mut line = [T::default(); SIDE];
                line.copy_from_slice(&tile[from(i)..][..SIDE]);
                line
            });
            for (line, column) in turn(square).into_iter().zip(column..) {
                let to = column * grid.column_target + row;
                reply[to..to + SIDE].copy_from_slice(&line);
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

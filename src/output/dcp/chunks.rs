//! How a tensor is cut into the chunks of a DCP: boxes that lie in one piece, so that each is a range of its bytes.

use crate::tensor::Dims;

/// Equal chunks one after the other: `count` times `rows` indices of dimension `axis` from `start` on, at one index of all
/// dimensions before it and with all of those behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRun {
    pub outer: Dims,
    pub start: u64,
    pub rows: u64,
    pub count: u64,
}

impl ChunkRun {
    /// Where the chunk of a number begins, in a tensor of the shape `dims`.
    pub fn offsets(&self, number: u64, dims: &[u64]) -> Dims {
        let mut offsets = self.outer.clone();
        if offsets.len() < dims.len() {
            offsets.push(self.start + number * self.rows);
        }
        offsets.resize(dims.len(), 0);
        offsets
    }

    /// The shape of each chunk.
    pub fn sizes(&self, dims: &[u64]) -> Dims {
        let mut sizes = Dims::from_elem(1, self.outer.len());
        if sizes.len() < dims.len() {
            sizes.push(self.rows);
        }
        sizes.extend(dims.iter().skip(sizes.len()).copied());
        sizes
    }
}

/// Equal chunks of an item that lie one after the other in a file.
#[derive(Debug)]
pub struct Placed {
    pub item: usize,
    pub chunks: ChunkRun,
    pub file: usize,
    /// Where the first one's archive begins, and the bytes of each.
    pub offset: u64,
    pub length: u64,
}

/// The name of the file of a number.
pub fn file_name(number: usize) -> String {
    format!("__{number}_0.distcp")
}

/// Calls `visit` with the chunks of a tensor of the shape `dims` in the order of their bytes, none of more than `most` bytes
/// unless a single element is.
pub fn each_run(dims: &[u64], unit: u64, most: u64, visit: &mut dyn FnMut(ChunkRun)) {
    let total = dims
        .iter()
        .fold(unit, |bytes, size| bytes.saturating_mul(*size));
    match dims.first() {
        Some(rows) if total <= most => visit(ChunkRun {
            outer: Dims::new(),
            start: 0,
            rows: *rows,
            count: 1,
        }),
        Some(_) => cut(&Dims::new(), dims, unit, most, visit),
        None => visit(ChunkRun {
            outer: Dims::new(),
            start: 0,
            rows: 1,
            count: 1,
        }),
    }
}

fn cut(outer: &Dims, dims: &[u64], unit: u64, most: u64, visit: &mut dyn FnMut(ChunkRun)) {
    let Some((all, inner)) = dims.split_first() else {
        return;
    };
    let row = inner
        .iter()
        .fold(unit, |bytes, size| bytes.saturating_mul(*size));
    if row > most && !inner.is_empty() {
        for index in 0..*all {
            let mut outer = outer.clone();
            outer.push(index);
            cut(&outer, inner, unit, most, visit);
        }
        return;
    }
    // A power of two, so that the shards of a power of two of ranks end where chunks do.
    let rows = 1 << (most / row.max(1)).max(1).ilog2();
    let whole = all / rows;
    for (start, rows, count) in [(0, rows, whole), (whole * rows, all % rows, 1)] {
        if rows > 0 && count > 0 {
            visit(ChunkRun {
                outer: outer.clone(),
                start,
                rows,
                count,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxes(dims: &[u64], unit: u64, most: u64) -> Vec<(Vec<u64>, Vec<u64>)> {
        let mut boxes = Vec::new();
        each_run(dims, unit, most, &mut |run| {
            for number in 0..run.count {
                let offsets = run.offsets(number, dims).to_vec();
                boxes.push((offsets, run.sizes(dims).to_vec()));
            }
        });
        boxes
    }

    #[test]
    fn rows_are_cut_in_powers_of_two_and_the_rest_is_a_chunk_of_its_own() {
        assert_eq!(
            boxes(&[7, 10], 1, 39),
            [
                (vec![0, 0], vec![2, 10]),
                (vec![2, 0], vec![2, 10]),
                (vec![4, 0], vec![2, 10]),
                (vec![6, 0], vec![1, 10]),
            ]
        );
        assert_eq!(boxes(&[], 4, 1), [(vec![], vec![])]);
        assert_eq!(boxes(&[0, 3], 4, 1), [(vec![0, 0], vec![0, 3])]);
    }

    proptest! {
        #[test]
        fn chunks_are_ranges_of_bytes_that_follow_each_other(
            dims in prop::collection::vec(1u64..9, 0..5),
            unit in 1u64..9,
            most in 1u64..600,
        ) {
            let total: u64 = dims.iter().product::<u64>();
            let mut next = 0;
            for (offsets, sizes) in boxes(&dims, unit, most) {
                let place = |index: &[u64]| {
                    index.iter().zip(&dims).fold(0, |at, (i, size)| at * size + i)
                };
                let last: Vec<u64> = offsets.iter().zip(&sizes).map(|(o, s)| o + s - 1).collect();
                let held: u64 = sizes.iter().product();
                prop_assert_eq!(place(&offsets), next);
                prop_assert_eq!(place(&last) + 1, next + held);
                prop_assert!(held * unit <= most.max(unit));
                next += held;
            }
            prop_assert_eq!(next, total);
        }
    }
}

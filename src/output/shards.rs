//! Which tensors share a file, split as huggingface_hub splits them (2.4.0, `split_state_dict_into_shards_factory`).

use std::collections::BTreeMap;

use crate::checkpoint::formats::safetensors::HEADER_LIMIT;

/// Sizes that the split considers: the bytes of a unit's data, and a bound on those of its header entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weight {
    pub data: u64,
    pub entry: u64,
}

/// The numbers of the units in each shard. A shard has at most `limit` bytes of data, unless one unit alone has more.
/// A shard also ends where its header could become too large for a reader.
pub fn split(weights: &[Weight], limit: u64) -> Vec<Vec<usize>> {
    let mut shards = Vec::new();
    let mut current = Vec::new();
    let (mut data, mut header) = (0, 0);
    for (number, weight) in weights.iter().enumerate() {
        if weight.data > limit {
            shards.push(vec![number]);
            continue;
        }
        if data + weight.data > limit || header + weight.entry > HEADER_LIMIT {
            shards.push(std::mem::take(&mut current));
            (data, header) = (0, 0);
        }
        current.push(number);
        data += weight.data;
        header += weight.entry;
    }
    if !current.is_empty() {
        shards.push(current);
    }
    shards
}

/// The shard of each of `units` units.
pub fn shard_of(shards: &[Vec<usize>], units: usize) -> Vec<usize> {
    let mut shard_of = vec![0; units];
    for (number, shard) in shards.iter().enumerate() {
        for unit in shard {
            shard_of[*unit] = number;
        }
    }
    shard_of
}

/// The numbers of the units in each shard, where the shards are the files in which they lie. `files` has the one file of each
/// unit, in the order of the files' names.
pub fn as_stored<F: Ord>(files: &[F]) -> Vec<Vec<usize>> {
    let mut shards: BTreeMap<&F, Vec<usize>> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        shards.entry(file).or_default().push(number);
    }
    shards.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(sizes: &[u64], limit: u64) -> Vec<Vec<usize>> {
        let weight = |data: &u64| Weight {
            data: *data,
            entry: 1,
        };
        split(&sizes.iter().map(weight).collect::<Vec<_>>(), limit)
    }

    #[test]
    fn shards_fill_in_order_without_looking_ahead() {
        assert_eq!(
            shards(&[6, 6, 2, 6, 2, 2], 10),
            [vec![0], vec![1, 2], vec![3, 4, 5]]
        );
    }

    #[test]
    fn a_unit_over_the_limit_comes_before_the_shard_that_is_being_filled() {
        assert_eq!(shards(&[3, 20, 3], 10), [vec![1], vec![0, 2]]);
        assert_eq!(shards(&[10, 10], 10), [vec![0], vec![1]]);
        assert_eq!(shards(&[], 10), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn shards_as_stored_are_those_of_the_files() {
        let shards = as_stored(&["b", "a", "b", "c"]);
        assert_eq!(shards, [vec![1], vec![0, 2], vec![3]]);
    }

    #[test]
    fn headers_stay_below_what_readers_take() {
        let weight = Weight {
            data: 0,
            entry: HEADER_LIMIT / 2,
        };
        assert_eq!(split(&[weight; 3], 10), [vec![0, 1], vec![2]]);
    }
}

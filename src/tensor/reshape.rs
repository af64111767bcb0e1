//! Correspondence between the dimensions of two shapes with the same number of elements.

use std::ops::Range;

/// Dimensions of both sides of a reshape that span the same elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub old: Range<usize>,
    pub new: Range<usize>,
}

/// Pairs up the shortest runs of dimensions with equal products. Both shapes have the same number of elements.
pub(super) fn groups(old: &[u64], new: &[u64]) -> Box<[Group]> {
    let whole = || Group {
        old: 0..old.len(),
        new: 0..new.len(),
    };
    if old.contains(&0) {
        return [whole()].into();
    }
    let mut groups: Vec<Group> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() && j < new.len() {
        let (start_i, start_j) = (i, j);
        let (mut left, mut right) = (old[i], new[j]);
        (i, j) = (i + 1, j + 1);
        while left != right {
            if left < right {
                left *= old[i];
                i += 1;
            } else {
                right *= new[j];
                j += 1;
            }
        }
        groups.push(Group {
            old: start_i..i,
            new: start_j..j,
        });
    }
    match groups.last_mut() {
        Some(last) => (last.old.end, last.new.end) = (old.len(), new.len()),
        None => groups.push(whole()),
    }
    groups.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_span_equal_products() {
        let group = |old, new| Group { old, new };
        assert_eq!(
            *groups(&[12, 5], &[3, 4, 5]),
            [group(0..1, 0..2), group(1..2, 2..3)]
        );
        assert_eq!(*groups(&[6, 4], &[4, 6]), [group(0..2, 0..2)]);
        assert_eq!(*groups(&[1, 6, 1], &[6]), [group(0..3, 0..1)]);
        assert_eq!(*groups(&[], &[1, 1]), [group(0..0, 0..2)]);
    }
}

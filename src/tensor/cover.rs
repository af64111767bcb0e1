//! Whether boxes cover a larger box exactly once, in time n log n.
//!
//! Along one dimension a box is a step up where it starts and a step down where it ends. So the boxes cover the whole
//! once where, at each index of that dimension, the faces of the boxes that start or end there cancel, the whole's own
//! counted against them. Faces have one dimension less and are compared in the same way; those of neighbours in a grid are
//! equal and cancel at once. What is left over first, in row-major order, is the first element that no box or more than
//! one box holds.

use std::cmp::Ordering;
use std::ops::Range;

use super::shape::Dims;

/// The range of indices that a box has in each dimension.
pub(super) type Spans<'s> = &'s dyn Fn(usize, usize) -> Range<u64>;

/// An element that the boxes do not hold exactly once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Gap(Dims),
    Overlap(Dims),
}

/// A box, and how often it counts.
#[derive(Clone, Copy)]
struct Face {
    of: usize,
    weight: i64,
}

struct Sweep<'s> {
    spans: Spans<'s>,
    /// Dimensions in which not all boxes are alike.
    dims: Vec<usize>,
    /// The indices in `dims` that the sweep has come to.
    point: Vec<u64>,
}

/// Compares boxes `0..count`, none of them empty, with box `count`, in which all of them lie.
pub(super) fn check(count: usize, rank: usize, spans: Spans<'_>) -> Result<(), Fault> {
    let is_partial = |dim: &usize| (0..count).any(|of| spans(of, *dim) != spans(count, *dim));
    let mut sweep = Sweep {
        spans,
        dims: (0..rank).filter(is_partial).collect(),
        point: Vec::new(),
    };
    let parts = (0..count).map(|of| Face { of, weight: 1 });
    let whole = Face {
        of: count,
        weight: -1,
    };
    let Some(weight) = sweep.first_left(parts.chain([whole]).collect()) else {
        return Ok(());
    };
    let mut point = Dims::from_elem(0, rank);
    for (dim, at) in sweep.dims.iter().zip(&sweep.point) {
        if let Some(own) = point.get_mut(*dim) {
            *own = *at;
        }
    }
    Err(match weight > 0 {
        true => Fault::Overlap(point),
        false => Fault::Gap(point),
    })
}

impl Sweep<'_> {
    /// Returns the rest of the weights at the first point where they do not cancel; `point` is that one.
    fn first_left(&mut self, faces: Vec<Face>) -> Option<i64> {
        let depth = self.point.len();
        let faces = self.cancelled(faces);
        let Some(dim) = self.dims.get(depth).copied() else {
            return faces.first().map(|face| face.weight);
        };
        let mut steps = Vec::with_capacity(2 * faces.len());
        for face in faces {
            let span = (self.spans)(face.of, dim);
            let weight = -face.weight;
            steps.extend([(span.start, face), (span.end, Face { weight, ..face })]);
        }
        steps.sort_unstable_by_key(|(at, _)| *at);
        for group in steps.chunk_by(|one, other| one.0 == other.0) {
            self.point.extend(group.first().map(|(at, _)| *at));
            let faces = group.iter().map(|(_, face)| *face).collect();
            if let Some(left) = self.first_left(faces) {
                return Some(left);
            }
            self.point.truncate(depth);
        }
        None
    }

    /// The faces with those that are equal in the dimensions to come added up.
    fn cancelled(&self, mut faces: Vec<Face>) -> Vec<Face> {
        faces.sort_unstable_by(|one, other| self.order(*one, *other));
        let mut sums: Vec<Face> = Vec::new();
        for face in faces {
            match sums.last_mut() {
                Some(last) if self.order(*last, face) == Ordering::Equal => {
                    last.weight += face.weight;
                }
                _ => sums.push(face),
            }
        }
        sums.retain(|face| face.weight != 0);
        sums
    }

    fn order(&self, one: Face, other: Face) -> Ordering {
        let ahead = self.dims.get(self.point.len()..).unwrap_or(&[]);
        let key = |face: Face, dim| {
            let span = (self.spans)(face.of, dim);
            (span.start, span.end)
        };
        let differing = ahead
            .iter()
            .map(|dim| key(one, *dim).cmp(&key(other, *dim)));
        { differing }
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    type Box = Vec<Range<u64>>;

    fn checked(boxes: &[Box], whole: &Box) -> Result<(), Fault> {
        let spans = |of: usize, dim: usize| boxes.get(of).unwrap_or(whole)[dim].clone();
        check(boxes.len(), whole.len(), &spans)
    }

    /// The same by counting, for each element in row-major order, the boxes that hold it.
    fn counted(boxes: &[Box], whole: &Box) -> Result<(), Fault> {
        let elements: u64 = whole.iter().map(|span| span.end).product();
        for element in 0..elements {
            let mut rest = element;
            let mut point = Dims::from_elem(0, whole.len());
            for dim in (0..whole.len()).rev() {
                point[dim] = rest % whole[dim].end;
                rest /= whole[dim].end;
            }
            let holds = |own: &&Box| own.iter().zip(&point).all(|(span, at)| span.contains(at));
            match boxes.iter().filter(holds).count() {
                0 => return Err(Fault::Gap(point)),
                1 => {}
                _ => return Err(Fault::Overlap(point)),
            }
        }
        Ok(())
    }

    /// Cuts the box into parts at the places that `cuts` tell.
    fn cut(whole: &Box, cuts: &[(usize, u64)]) -> Vec<Box> {
        let mut boxes = vec![whole.clone()];
        for (number, (dim, at)) in cuts.iter().enumerate() {
            let own = boxes.swap_remove(number % boxes.len());
            let dim = dim % own.len();
            let middle = own[dim].start + at % (own[dim].end - own[dim].start);
            for part in [own[dim].start..middle, middle..own[dim].end] {
                let mut half = own.clone();
                half[dim] = part;
                boxes.extend((!half[dim].is_empty()).then_some(half));
            }
        }
        boxes
    }

    proptest! {
        #[test]
        fn boxes_are_judged_as_by_counting(
            sizes in prop::collection::vec(1u64..6, 0..5),
            cuts in prop::collection::vec((0usize..5, 0u64..6), 0..9),
            changes in prop::collection::vec((0usize..9, 0usize..5, 0u64..6, 1u64..6), 0..3),
        ) {
            let whole: Box = sizes.iter().map(|size| 0..*size).collect();
            let mut boxes = match whole.is_empty() {
                true => vec![whole.clone()],
                false => cut(&whole, &cuts),
            };
            for (number, dim, start, size) in changes {
                let number = number % boxes.len();
                if let Some(dim) = dim.checked_rem(whole.len()) {
                    let start = start % whole[dim].end;
                    boxes[number][dim] = start..(start + size).min(whole[dim].end);
                }
            }
            prop_assert_eq!(checked(&boxes, &whole), counted(&boxes, &whole));
        }
    }

    #[test]
    fn copies_and_absences_are_faults() {
        let whole = vec![0..2, 0..2];
        assert_eq!(checked(&[], &whole), Err(Fault::Gap([0, 0].into())));
        let twice = vec![whole.clone(), whole.clone()];
        assert_eq!(checked(&twice, &whole), Err(Fault::Overlap([0, 0].into())));
        assert_eq!(checked(&[vec![]], &vec![]), Ok(()));
    }

    #[test]
    fn work_grows_little_faster_than_the_boxes() {
        let looks = |count: u64| {
            let singles = (0..count).map(|at| vec![0..1, at..at + 1]);
            let boxes: Vec<Box> = singles.chain([vec![1..2, 0..count]]).collect();
            let whole: Box = vec![0..2, 0..count];
            let looks = Cell::new(0u64);
            let spans = |of: usize, dim: usize| {
                looks.set(looks.get() + 1);
                boxes.get(of).unwrap_or(&whole)[dim].clone()
            };
            assert_eq!(check(boxes.len(), 2, &spans), Ok(()));
            looks.get()
        };
        assert!(looks(16_000) < 32 * looks(1_000));
    }
}

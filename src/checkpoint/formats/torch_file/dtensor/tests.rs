//! Laws of placements: every element of the whole is in exactly one local tensor, replicas aside.

use super::super::testing::file;
use super::*;
use crate::tensor::{Dtype, contiguous};

use Placement::{Partial, Replicate, Shard, StridedShard};

const ROWS: Placement = Shard { dim: 0 };

/// A tensor of bytes with this shape.
fn local(dims: &[u64]) -> Tensor {
    let (_temporary, file) = file(&vec![0; dims.iter().product::<u64>() as usize]);
    let shape = Shape::new(dims).unwrap();
    let layout = contiguous(0, &shape);
    Tensor::stored(file, Dtype::U8, shape, layout).unwrap()
}

fn part(
    whole: &[u64],
    own: &[u64],
    placements: &[Placement],
    mesh: &[u64],
    coordinate: &[u64],
) -> DTensor {
    DTensor {
        local: local(own),
        shape: Shape::new(whole).unwrap(),
        placements: placements.to_vec(),
        mesh: mesh.into(),
        mesh_dim_names: Vec::new(),
        coordinate: coordinate.into(),
    }
}

fn offsets(
    whole: &[u64],
    own: &[u64],
    placements: &[Placement],
    mesh: &[u64],
    coordinate: &[u64],
) -> Vec<u64> {
    part(whole, own, placements, mesh, coordinate)
        .tile()
        .unwrap()
        .offsets
        .to_vec()
}

#[test]
fn chunks_are_rounded_up_and_the_last_may_be_empty() {
    let of = |rank: u64, rows: u64| offsets(&[5, 3], &[rows, 3], &[ROWS], &[4], &[rank])[0];
    assert_eq!([of(0, 2), of(1, 2), of(2, 1), of(3, 0)], [0, 2, 4, 5]);
}

#[test]
fn plain_shards_split_from_left_to_right() {
    let of = |i, j| offsets(&[16], &[4], &[ROWS, ROWS], &[2, 2], &[i, j])[0];
    assert_eq!([of(0, 0), of(0, 1), of(1, 0), of(1, 1)], [0, 4, 8, 12]);
    assert_eq!(
        offsets(
            &[4, 6],
            &[2, 3],
            &[ROWS, Shard { dim: 1 }],
            &[2, 2],
            &[1, 1]
        ),
        [2, 3]
    );
}

/// 16 rows, measured with torch 2.15 on a 2 x 2 mesh of FSDP over TP; 258 rows with torch 2.9 to 2.15.
#[test]
fn strided_shards_split_what_tensor_parallelism_has_split() {
    let placements = [
        StridedShard {
            dim: 0,
            split_factor: 2,
        },
        ROWS,
    ];
    let of = |i, j| offsets(&[16], &[4], &placements, &[2, 2], &[i, j])[0];
    assert_eq!([of(0, 0), of(0, 1), of(1, 0), of(1, 1)], [0, 8, 4, 12]);
    let of = |i, j, rows| offsets(&[258], &[rows], &placements, &[2, 2], &[i, j])[0];
    assert_eq!(
        [of(0, 0, 65), of(0, 1, 65), of(1, 0, 64), of(1, 1, 64)],
        [0, 129, 65, 194]
    );
}

#[test]
fn a_split_factor_that_no_mesh_dimension_has_is_refused() {
    let placements = [
        StridedShard {
            dim: 0,
            split_factor: 3,
        },
        ROWS,
    ];
    assert!(
        part(&[16], &[4], &placements, &[2, 2], &[0, 0])
            .tile()
            .is_err()
    );
}

#[test]
fn what_contradicts_the_mesh_is_refused() {
    assert!(part(&[4], &[3], &[ROWS], &[2], &[0]).tile().is_err());
    assert!(part(&[4], &[2], &[ROWS], &[2], &[2]).tile().is_err());
    assert!(part(&[4], &[2], &[ROWS], &[2], &[]).tile().is_err());
    assert!(part(&[4], &[2], &[ROWS], &[], &[0]).tile().is_err());
    assert!(part(&[4], &[2], &[ROWS], &[0], &[0]).tile().is_err());
    assert!(part(&[4], &[4], &[Partial], &[2], &[0]).tile().is_err());
    assert!(
        part(&[4], &[2], &[Shard { dim: 1 }], &[2], &[0])
            .tile()
            .is_err()
    );
}

#[test]
fn replicas_are_taken_once_and_gaps_are_refused() {
    let placements = [Replicate, ROWS];
    let rank = |i, j| Value::Distributed(part(&[5], &[3 - j], &placements, &[2, 2], &[i, j]));
    let whole = assemble(vec![rank(0, 0), rank(0, 1), rank(1, 0), rank(1, 1)]).unwrap();
    assert_eq!(whole.shape().dims(), [5]);
    assert_eq!(whole.operations(), ["assemble(2 chunks)"]);
    assert!(assemble(vec![rank(0, 0), rank(1, 0)]).is_err());
    assert!(assemble(Vec::new()).is_err());
}

#[test]
fn plain_tensors_are_replicas() {
    let whole = assemble(vec![Value::Plain(local(&[2])), Value::Plain(local(&[2]))]).unwrap();
    assert_eq!(whole.bytes(), 2);
    assert!(assemble(vec![Value::Plain(local(&[2])), Value::Plain(local(&[3]))]).is_err());
}

#[test]
fn tensors_without_elements_stay() {
    let rank = |j| Value::Distributed(part(&[0, 3], &[0, 3], &[ROWS], &[2], &[j]));
    assert_eq!(
        assemble(vec![rank(0), rank(1)]).unwrap().shape().dims(),
        [0, 3]
    );
}

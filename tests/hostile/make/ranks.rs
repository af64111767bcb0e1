//! Files in which each rank holds its part of a tensor.

use super::pickle::*;
use super::zip::torch;

const PLACEMENTS: &str = "torch.distributed.tensor.placement_types";

pub fn shard(dim: i64) -> Value {
    object(PLACEMENTS, "Shard", &dict(&[("dim", int(dim))]))
}

pub fn strided_shard(dim: i64, split_factor: i64) -> Value {
    let state = dict(&[("dim", int(dim)), ("split_factor", int(split_factor))]);
    object(PLACEMENTS, "_StridedShard", &state)
}

pub fn placement(class: &str) -> Value {
    object(PLACEMENTS, class, &dict(&[]))
}

/// The part of rank `rank` of `ranks` of the tensor `w`: `local` elements of `whole`.
pub fn rank_file(placement: Value, local: i64, whole: i64, rank: i64, ranks: i64) -> Vec<u8> {
    let part = tensor(floats("0", 4), 0, &[local], &[1]);
    torch(&dict(&[(
        "w",
        dtensor(placement, part, whole, rank, ranks),
    )]))
}

fn dtensor(placement: Value, local: Value, whole: i64, rank: i64, ranks: i64) -> Value {
    let layout = object(
        "torch.distributed._mesh_layout",
        "_MeshLayout",
        &dict(&[("shape", ints(&[ranks]))]),
    );
    let mesh = dict(&[
        ("_layout", layout),
        ("_coordinate_on_dim", list(&[int(rank)])),
    ]);
    let spec = dict(&[
        (
            "mesh",
            object("torch.distributed.device_mesh", "DeviceMesh", &mesh),
        ),
        ("placements", tuple(&[placement])),
    ]);
    let state = dict(&[
        ("_local_tensor", local),
        (
            "_spec",
            object(
                "torch.distributed.tensor._dtensor_spec",
                "DTensorSpec",
                &spec,
            ),
        ),
    ]);
    let class = global("torch.distributed.tensor", "DTensor");
    let wrapper = tuple(&[class.clone(), global("torch", "float32"), ints(&[whole])]);
    let function = global("torch._utils", "_rebuild_wrapper_subclass");
    call(
        global("torch._tensor", "_rebuild_from_type_v2"),
        &[function, class, wrapper, state],
    )
}

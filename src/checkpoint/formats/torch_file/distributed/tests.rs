//! DTensors as each release of torch pickles them, by its own `DeviceMesh.__init__`, dataclasses and module paths.

use super::super::TorchFile;
use super::super::dtensor::Value;
use super::super::testing::*;
use super::*;

/// Where a release has its classes, and what its meshes hold beside the ranks.
struct Release {
    version: &'static str,
    tensor: &'static str,
    spec: &'static str,
    placements: &'static str,
    mesh: Vec<(&'static str, Vec<u8>)>,
}

const OLD: &str = "torch.distributed._tensor.placement_types";
const NEW: &str = "torch.distributed.tensor.placement_types";

fn releases() -> Vec<Release> {
    let group = tuple(&[text("0"), sizes(&[0, 1]), text("0")]);
    let groups = || ("_dim_group_infos", list(std::slice::from_ref(&group)));
    let names = || ("_dim_group_names", list(&[text("0")]));
    let ranks = || ("_flatten_mesh_list", sizes(&[0, 1]));
    let thread = || ("_thread_id", none());
    let release = |version, spec, is_old: bool, mesh| Release {
        version,
        tensor: if is_old {
            "torch.distributed._tensor.api"
        } else {
            "torch.distributed.tensor"
        },
        spec,
        placements: if is_old { OLD } else { NEW },
        mesh,
    };
    let own = "torch.distributed._tensor._dtensor_spec";
    let new = "torch.distributed.tensor._dtensor_spec";
    vec![
        release(
            "2.2",
            OLD,
            true,
            vec![ranks(), ("_hash", int(-5)), groups()],
        ),
        release(
            "2.3",
            OLD,
            true,
            vec![
                ranks(),
                ("_hash", int(-5)),
                ("_parent_mesh", none()),
                groups(),
            ],
        ),
        release(
            "2.4",
            own,
            true,
            vec![
                ranks(),
                ("_parent_mesh", none()),
                ("_thread_id", int(140_000_000_000_000)),
                groups(),
            ],
        ),
        release("2.5", new, false, vec![ranks(), thread(), groups()]),
        release(
            "2.6",
            new,
            false,
            vec![ranks(), thread(), groups(), ("_hash", int(7))],
        ),
        release(
            "2.7",
            new,
            false,
            vec![ranks(), thread(), groups(), ("_hash", int(7))],
        ),
        release(
            "2.8",
            new,
            false,
            vec![ranks(), thread(), names(), ("_hash", int(7))],
        ),
    ]
}

impl Release {
    fn shard(&self, dim: i64) -> Vec<u8> {
        object(self.placements, "Shard", dict(&[("dim", int(dim))]))
    }

    fn strided(&self, dim: i64, split_factor: i64) -> Vec<u8> {
        let state = dict(&[("dim", int(dim)), ("split_factor", int(split_factor))]);
        object(self.placements, "_StridedShard", state)
    }

    /// A mesh of the `extents`, on a rank at `coordinate`.
    fn mesh(&self, extents: &[i64], coordinate: &[i64]) -> Vec<u8> {
        let ranks = extents.iter().product();
        let strides: Vec<i64> = (0..extents.len())
            .map(|dim| extents[dim + 1..].iter().product())
            .collect();
        let ranks = rebuilt(storage("IntStorage", "1", ranks), 0, extents, &strides);
        let coordinate: Vec<Vec<u8>> = coordinate.iter().map(|at| int(*at)).collect();
        let mut state = vec![
            ("device_type", text("cuda")),
            ("mesh", ranks),
            ("mesh_dim_names", tuple(&[text("fsdp")])),
            ("_coordinate_on_dim", list(&coordinate)),
        ];
        state.extend(self.mesh.iter().cloned());
        object("torch.distributed.device_mesh", "DeviceMesh", dict(&state))
    }

    /// Two rows of two floats, the part of a tensor of `rows` rows.
    fn dtensor(&self, rows: i64, mesh: Vec<u8>, placements: &[Vec<u8>]) -> Vec<u8> {
        let class = || global(self.tensor, "DTensor");
        let meta = global(self.spec, "TensorMeta");
        let meta = [
            meta,
            tuple(&[
                sizes(&[rows, 2]),
                sizes(&[2, 1]),
                global("torch", "float32"),
            ]),
        ];
        let meta = [meta.concat(), b"\x81".to_vec()].concat();
        let spec = dict(&[
            ("mesh", mesh),
            ("placements", tuple(placements)),
            ("tensor_meta", meta),
            ("_hash", none()),
        ]);
        let local = rebuilt(storage("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1]);
        let slots = dict(&[
            ("_local_tensor", local),
            ("_spec", object(self.spec, "DTensorSpec", spec)),
        ]);
        let layout = call(
            "torch.serialization",
            "_get_layout",
            &[text("torch.strided")],
        );
        let device = call("torch", "device", &[text("cuda"), int(0)]);
        let wrapper = tuple(&[
            class(),
            global("torch", "float32"),
            sizes(&[rows, 2]),
            sizes(&[2, 1]),
            int(0),
            layout,
            device,
            b"\x89".to_vec(),
        ]);
        let state = tuple(&[dict(&[]), slots]);
        let function = global("torch._utils", "_rebuild_wrapper_subclass");
        call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            &[function, class(), wrapper, state],
        )
    }

    fn read(&self, object: Vec<u8>) -> Result<DTensor> {
        let storages: [(&str, &[u8]); 2] = [("0", &[1; 16]), ("1", &[0; 16])];
        let bytes = saved(dict(&[("w", object)]), &storages);
        let file = TorchFile::open(file(&bytes).1)?;
        let found = file.tensors(&|_| true)?.pop();
        match found.map(|(_, value)| value).transpose()? {
            Some(Value::Distributed(part)) => Ok(part),
            other => panic!("{}: {other:?}", self.version),
        }
    }
}

#[test]
fn the_dtensors_of_every_release_are_read() {
    for release in releases() {
        let object = release.dtensor(4, release.mesh(&[2], &[1]), &[release.shard(0)]);
        let part = release.read(object).unwrap();
        assert_eq!(part.shape.dims(), [4, 2], "{}", release.version);
        assert_eq!((&*part.mesh, &*part.coordinate), (&[2][..], &[1][..]));
        assert_eq!(part.mesh_dim_names, ["fsdp"]);
        assert_eq!(*part.tile().unwrap().offsets, [2, 0], "{}", release.version);
        let replicate = object_of(&release, "Replicate");
        let object = release.dtensor(
            4,
            release.mesh(&[2, 2], &[1, 1]),
            &[replicate, release.shard(0)],
        );
        assert_eq!(
            *release.read(object).unwrap().tile().unwrap().offsets,
            [2, 0]
        );
        let partial = object_of(
            &release,
            if release.placements == OLD {
                "_Partial"
            } else {
                "Partial"
            },
        );
        let object = release.dtensor(4, release.mesh(&[2], &[1]), &[partial]);
        assert!(
            release.read(object).unwrap().tile().is_err(),
            "{}",
            release.version
        );
    }
}

fn object_of(release: &Release, class: &str) -> Vec<u8> {
    object(release.placements, class, dict(&[]))
}

/// From 2.5 on a strided shard says that tensor parallelism split first. Before, FSDP over it left two plain shards.
#[test]
fn shards_in_shards_are_read_where_their_order_is_told() {
    for release in releases() {
        let read = |first| {
            let object = release.dtensor(
                8,
                release.mesh(&[2, 2], &[1, 0]),
                &[first, release.shard(0)],
            );
            let tile = release.read(object)?.tile()?;
            Ok::<_, Error>(tile.offsets.to_vec())
        };
        match release.placements {
            OLD => {
                let line = read(release.shard(0)).unwrap_err().to_string();
                assert!(line.contains("before torch 2.5"), "{line}");
            }
            _ => {
                assert_eq!(read(release.shard(0)).unwrap(), [4, 0]);
                assert_eq!(read(release.strided(0, 2)).unwrap(), [2, 0]);
            }
        }
    }
}

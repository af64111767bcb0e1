//! Saves written as DeepSpeed lays parameters out, by the plainest code that does, and read back.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::formats::torch_file::testing::*;
use crate::tensor::{Tensor, nests};

/// A trained or frozen parameter.
#[derive(Debug, Clone)]
struct Parameter {
    name: String,
    dims: Vec<u64>,
    values: Vec<f32>,
    /// Elements that follow it in a flat group of ZeRO-1 and 2.
    padding: u64,
}

#[derive(Debug, Clone)]
struct Save {
    is_divided: bool,
    world: u64,
    groups: Vec<Vec<Parameter>>,
    frozen: Vec<Parameter>,
    with_paddings: bool,
    steps: i64,
}

impl Save {
    /// The flat groups of one rank, element by element.
    fn stretches(&self, rank: u64) -> Vec<Vec<f32>> {
        let of = |group: &Vec<Parameter>| match self.is_divided {
            true => group
                .iter()
                .flat_map(|own| divided(&own.values, rank, self.world))
                .collect(),
            false => self.partition(group, rank),
        };
        self.groups.iter().map(of).collect()
    }

    fn partition(&self, group: &[Parameter], rank: u64) -> Vec<f32> {
        let mut flat: Vec<f32> = Vec::new();
        for own in group {
            flat.extend(&own.values);
            let padding = if self.with_paddings { own.padding } else { 0 };
            flat.extend(vec![f32::NAN; padding as usize]);
        }
        let held = flat.len();
        while !(flat.len() as u64).is_multiple_of(2 * self.world) {
            flat.push(f32::NAN);
        }
        let width = flat.len() / self.world as usize;
        let start = rank as usize * width;
        // The last rank is saved without the padding of the group.
        let end = if rank + 1 == self.world {
            held.max(start)
        } else {
            start + width
        };
        flat[start..end].to_vec()
    }

    fn write(&self, folder: &Path) {
        let model_ranks = if self.is_divided { self.world } else { 1 };
        for rank in 0..model_ranks {
            let name = match self.is_divided {
                true => format!("zero_pp_rank_{rank}_mp_rank_00_model_states.pt"),
                false => "mp_rank_00_model_states.pt".to_owned(),
            };
            fs::write(folder.join(name), self.model(rank)).unwrap();
        }
        for rank in 0..self.world {
            let name = format!("bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt");
            fs::write(folder.join(name), self.optim(&self.stretches(rank))).unwrap();
        }
    }

    fn model(&self, rank: u64) -> Vec<u8> {
        let mut storages = Vec::new();
        let all = || self.groups.iter().flatten().chain(&self.frozen);
        let module: Vec<_> = all()
            .map(|own| {
                let held = if self.is_divided {
                    (vec![0], vec![])
                } else {
                    (own.dims.clone(), own.values.clone())
                };
                (own.name.as_str(), tensor(&mut storages, &held.0, &held.1))
            })
            .collect();
        let frozen: Vec<_> = self
            .frozen
            .iter()
            .map(|own| {
                let held = match self.is_divided {
                    true => divided(&own.values, rank, self.world),
                    false => own.values.clone(),
                };
                let dims = if self.is_divided {
                    vec![held.len() as u64]
                } else {
                    own.dims.clone()
                };
                (own.name.as_str(), tensor(&mut storages, &dims, &held))
            })
            .collect();
        let groups: Vec<_> = self.groups.iter().map(|group| shapes(group)).collect();
        let object = dict(&[
            ("module", dict(&module)),
            ("buffer_names", list(&[])),
            ("param_shapes", list(&groups)),
            ("frozen_param_shapes", shapes(&self.frozen)),
            ("frozen_param_fragments", dict(&frozen)),
            ("shared_params", dict(&[])),
            ("dp_world_size", int(self.world as i64)),
            ("mp_world_size", int(1)),
            ("global_steps", int(self.steps)),
            ("ds_version", text("0.19.8")),
        ]);
        file_of(object, &storages)
    }

    fn optim(&self, stretches: &[Vec<f32>]) -> Vec<u8> {
        let mut storages = Vec::new();
        let groups: Vec<_> = stretches
            .iter()
            .map(|own| tensor(&mut storages, &[own.len() as u64], own))
            .collect();
        let count = int(self.world as i64);
        let mut states = match self.is_divided {
            true => vec![
                ("partition_count", count),
                ("fp32_flat_groups", list(&groups)),
            ],
            false => vec![
                ("partition_count", list(&vec![count; self.groups.len()])),
                ("single_partition_of_fp32_groups", list(&groups)),
            ],
        };
        if self.with_paddings && !self.is_divided {
            let paddings = |group: &Vec<Parameter>| {
                list(
                    &group
                        .iter()
                        .map(|own| int(own.padding as i64))
                        .collect::<Vec<_>>(),
                )
            };
            states.push((
                "param_alignment_paddings",
                list(&self.groups.iter().map(paddings).collect::<Vec<_>>()),
            ));
        }
        let root = if self.is_divided {
            "optimizer_state_dict"
        } else {
            "base_optimizer_state"
        };
        let of_first = table(&[(int(0), dict(&[("step", int(self.steps))]))]);
        states.push((
            root,
            dict(&[("state", of_first), ("param_groups", list(&[]))]),
        ));
        file_of(dict(&[("optimizer_state_dict", dict(&states))]), &storages)
    }
}

/// The part of a parameter that a rank has where ZeRO-3 divides it.
fn divided(values: &[f32], rank: u64, world: u64) -> Vec<f32> {
    let width = values.len().div_ceil(world as usize);
    let index = |at: usize| {
        values
            .get(rank as usize * width + at)
            .copied()
            .unwrap_or(f32::NAN)
    };
    (0..width).map(index).collect()
}

fn shapes(parameters: &[Parameter]) -> Vec<u8> {
    let signed = |dims: &[u64]| dims.iter().map(|size| *size as i64).collect::<Vec<_>>();
    let entries = parameters
        .iter()
        .map(|own| (own.name.as_str(), sizes(&signed(&own.dims))));
    dict(&entries.collect::<Vec<_>>())
}

fn tensor(storages: &mut Vec<(String, Vec<u8>)>, dims: &[u64], values: &[f32]) -> Vec<u8> {
    let key = storages.len().to_string();
    let bytes = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let strides =
        (0..dims.len()).map(|dim| dims[dim + 1..].iter().map(|size| *size as i64).product());
    let strides: Vec<i64> = strides.collect();
    let dims: Vec<i64> = dims.iter().map(|size| *size as i64).collect();
    let call = rebuilt(
        storage("FloatStorage", &key, values.len() as i64),
        0,
        &dims,
        &strides,
    );
    storages.push((key, bytes));
    call
}

fn file_of(object: Vec<u8>, storages: &[(String, Vec<u8>)]) -> Vec<u8> {
    let storages: Vec<_> = storages
        .iter()
        .map(|(key, bytes)| (key.as_str(), bytes.as_slice()))
        .collect();
    saved(object, &storages)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut found = vec![f32::NAN; tensor.shape().elements() as usize];
    nests(tensor, 0..tensor.shape().elements(), &mut |nest| {
        assert!(nest.is_contiguous_inside());
        nest.each_run(&mut |source, destination, count| {
            let mut bytes = vec![0; 4 * count as usize];
            nest.stored
                .file()
                .read_exact_at(&mut bytes, nest.source + 4 * source)
                .unwrap();
            let start = (nest.destination + destination) as usize;
            for (own, bytes) in found[start..].iter_mut().zip(bytes.as_chunks::<4>().0) {
                *own = f32::from_le_bytes(*bytes);
            }
        });
        Ok(())
    })
    .unwrap();
    found
}

fn parameters(most: usize) -> impl Strategy<Value = Vec<(Vec<u64>, u64)>> {
    prop::collection::vec((prop::collection::vec(0u64..5, 0..4), 0u64..3), 1..=most)
}

fn saves() -> impl Strategy<Value = Save> {
    let groups = prop::collection::vec(parameters(5), 1..4);
    (
        any::<bool>(),
        1u64..6,
        groups,
        prop::collection::vec(prop::collection::vec(1u64..4, 0..3), 0..3),
        any::<bool>(),
    )
        .prop_map(|(is_divided, world, groups, frozen, with_paddings)| {
            let mut next = 0;
            let mut made = |kind: &str, dims: Vec<u64>, padding| {
                let count: u64 = dims.iter().product();
                let start = next;
                next += count.max(1);
                let values = (start..start + count).map(|value| value as f32).collect();
                Parameter {
                    name: format!("{kind}{start}.weight"),
                    dims,
                    values,
                    padding,
                }
            };
            let groups = groups.into_iter().map(|group| {
                group
                    .into_iter()
                    .map(|(dims, padding)| made("p", dims, padding))
                    .collect()
            });
            let groups = groups.collect();
            let frozen = frozen.into_iter().map(|dims| made("f", dims, 0)).collect();
            Save {
                is_divided,
                world,
                groups,
                frozen,
                with_paddings,
                steps: 2,
            }
        })
}

fn read_back(save: &Save) -> (tempfile::TempDir, Result<Saved>) {
    let root = tempfile::tempdir().unwrap();
    save.write(root.path());
    let saved = read(&Folder::open(root.path()).unwrap());
    (root, saved)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn parameters_come_back_from_flat_groups(save in saves()) {
        let (_root, saved) = read_back(&save);
        let tensors = saved.unwrap().tensors;
        let all: Vec<&Parameter> = save.groups.iter().flatten().chain(&save.frozen).collect();
        prop_assert_eq!(tensors.len(), all.len());
        for (tensor, own) in tensors.iter().zip(all) {
            prop_assert_eq!(&*tensor.name, &own.name);
            prop_assert_eq!(tensor.parts[0].shape().dims(), &*own.dims);
            prop_assert_eq!(values(&tensor.parts[0]), own.values.clone());
        }
    }

    #[test]
    fn groups_that_do_not_add_up_are_refused(save in saves(), rank in 0u64..6, extra in 1usize..3) {
        let rank = rank % save.world;
        let root = tempfile::tempdir().unwrap();
        save.write(root.path());
        let mut stretches = save.stretches(rank);
        stretches[0].extend(vec![0.0; extra + 4 * save.world as usize]);
        fs::write(root.path().join(format!("bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")), save.optim(&stretches)).unwrap();
        let line = read(&Folder::open(root.path()).unwrap()).unwrap_err().to_string();
        prop_assert!(line.contains("two saves") || line.contains("two stages"), "{}", line);
        prop_assert!(!line.contains('\n'));
    }
}

fn small(is_divided: bool) -> Save {
    let own = |name: &str, start: u64, dims: &[u64]| Parameter {
        name: name.to_owned(),
        dims: dims.to_vec(),
        values: (start..start + dims.iter().product::<u64>())
            .map(|value| value as f32)
            .collect(),
        padding: 0,
    };
    Save {
        is_divided,
        world: 2,
        groups: vec![vec![
            own("a.weight", 0, &[3, 3]),
            own("b.weight", 100, &[5]),
        ]],
        frozen: Vec::new(),
        with_paddings: false,
        steps: 2,
    }
}

/// The refusal of a save after `change` was made to its folder.
fn refusal(save: &Save, change: impl Fn(&Path)) -> String {
    let root = tempfile::tempdir().unwrap();
    save.write(root.path());
    change(root.path());
    read(&Folder::open(root.path()).unwrap())
        .unwrap_err()
        .to_string()
}

const SECOND: &str = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt";

#[test]
fn missing_and_stale_ranks_are_named() {
    for is_divided in [false, true] {
        let save = small(is_divided);
        let missing = refusal(&save, |folder| {
            fs::remove_file(folder.join(SECOND)).unwrap()
        });
        assert!(missing.contains(SECOND), "{missing}");
        let stale = "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt";
        let line = refusal(&save, |folder| {
            fs::copy(folder.join(SECOND), folder.join(stale)).unwrap();
        });
        assert!(line.contains(stale), "{line}");
    }
}

#[test]
fn short_groups_speak_of_offloaded_states() {
    let save = small(true);
    let line = refusal(&save, |folder| {
        fs::write(folder.join(SECOND), save.optim(&[vec![]])).unwrap()
    });
    for word in [SECOND, "0 of", "offloaded"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
}

#[test]
fn files_of_two_worlds_and_of_two_steps_are_refused() {
    let save = small(true);
    let other = Save {
        world: 3,
        ..save.clone()
    };
    let worlds = refusal(&save, |folder| {
        fs::write(folder.join(SECOND), other.optim(&other.stretches(1))).unwrap();
    });
    assert!(worlds.contains("a world of 3 ranks"), "{worlds}");
    let worlds = refusal(&other, |folder| {
        for rank in 0..2 {
            let name = format!("bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt");
            fs::write(folder.join(name), save.optim(&save.stretches(rank))).unwrap();
        }
    });
    assert!(worlds.contains("two saves"), "{worlds}");
    let later = Save {
        steps: 4,
        ..save.clone()
    };
    let models = refusal(&save, |folder| {
        let name = "zero_pp_rank_1_mp_rank_00_model_states.pt";
        fs::write(folder.join(name), later.model(1)).unwrap();
    });
    assert!(models.contains("is of step 4"), "{models}");
    let optims = refusal(&save, |folder| {
        fs::write(folder.join(SECOND), later.optim(&later.stretches(1))).unwrap();
    });
    assert!(optims.contains("is of step 4"), "{optims}");
}

#[test]
fn shares_of_one_parameter_are_one_tensor() {
    let (_root, saved) = read_back(&small(true));
    let tensors = saved.unwrap().tensors;
    assert_eq!(
        values(&tensors[0].parts[0]),
        (0..9).map(|value| value as f32).collect::<Vec<_>>()
    );
    assert_eq!(
        tensors[0].parts[0].operations().last().map(String::as_str),
        Some("reshape[3, 3]")
    );
}

/// A save of two tensor-parallel ranks without ZeRO, whose state dicts lie in `mp_rank_TT_model_states.pt` alone.
fn without_optimizer(info: Vec<u8>) -> (tempfile::TempDir, Result<Saved>) {
    let root = tempfile::tempdir().unwrap();
    for rank in 0..2u8 {
        let mut storages = Vec::new();
        let first = f32::from(rank);
        let module = [
            ("rows", tensor(&mut storages, &[1, 2], &[first, first])),
            ("columns", tensor(&mut storages, &[1, 2], &[first, first])),
            ("norm", tensor(&mut storages, &[2], &[7.0, 7.0])),
        ];
        let object = dict(&[
            ("module", dict(&module)),
            ("buffer_names", list(&[])),
            ("param_shapes", none()),
            ("dp_world_size", int(1)),
            ("mp_world_size", int(2)),
            ("universal_checkpoint_info", info.clone()),
        ]);
        let name = format!("mp_rank_{rank:02}_model_states.pt");
        fs::write(root.path().join(name), file_of(object, &storages)).unwrap();
    }
    let saved = read(&Folder::open(root.path()).unwrap());
    (root, saved)
}

#[test]
fn tensor_parallel_ranks_without_zero_are_joined() {
    let info = dict(&[
        (
            "parameter_with_row_parallelism_patterns",
            list(&[text("^columns$")]),
        ),
        ("tp_replicated_parameter_patterns", list(&[text("^norm$")])),
    ]);
    let (_root, saved) = without_optimizer(info);
    let saved = saved.unwrap();
    let found = saved.tensors.iter().map(|tensor| values(&tensor.parts[0]));
    let found: Vec<Vec<f32>> = found.collect();
    assert_eq!(saved.tensors[0].parts[0].shape().dims(), [2, 2]);
    assert_eq!(saved.tensors[1].parts[0].shape().dims(), [1, 4]);
    assert_eq!(
        found,
        [
            vec![0.0, 0.0, 1.0, 1.0],
            vec![0.0, 0.0, 1.0, 1.0],
            vec![7.0, 7.0]
        ]
    );
    let (_root, untold) = without_optimizer(none());
    let line = untold.unwrap_err().to_string();
    assert!(line.contains("2 tensor-parallel ranks"), "{line}");
}

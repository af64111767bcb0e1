//! One `*_optim_states.pt`: the stretch of each flat group that a rank holds.

use std::path::PathBuf;

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::torch_file::pickle::Object;
use crate::checkpoint::formats::torch_file::{TorchFile, Value};
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Tensor};

const STATES: &str = "optimizer_state_dict";

/// How ZeRO divides parameters among ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// ZeRO-1 and 2, which divide groups.
    Groups,
    /// ZeRO-3, which divides each parameter.
    Parameters,
}

/// The optimizer as one rank saved it.
#[derive(Debug)]
pub struct OptimStates {
    pub name: String,
    pub path: PathBuf,
    pub stage: Stage,
    /// How many ranks there are, by what this file says.
    pub world: u64,
    /// The rank's stretch of each group.
    pub groups: Vec<Tensor>,
    /// Elements that follow each parameter of each group, where they are aligned.
    pub paddings: Option<Vec<Vec<u64>>>,
    /// The group whose steps the optimizer counted, and how many they were.
    pub step: Option<(String, u64)>,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Self::Groups => "ZeRO-1 or 2",
            Self::Parameters => "ZeRO-3",
        }
    }

    /// The key of the flat groups.
    pub fn key(self) -> &'static str {
        match self {
            Self::Groups => "single_partition_of_fp32_groups",
            Self::Parameters => "fp32_flat_groups",
        }
    }
}

impl OptimStates {
    pub fn read(folder: &Folder, name: &str) -> Result<Self> {
        let file = TorchFile::open(folder.open_file(name)?)?;
        let path = folder.path().join(name);
        let has = |stage: &Stage| file.get(&[STATES, stage.key()]).is_some();
        let Some(stage) = [Stage::Parameters, Stage::Groups].into_iter().find(has) else {
            let reason =
                "holds no flat groups of ZeRO; name the model's 16-bit file, or save with ZeRO";
            return Err(Error::checkpoint(&path, reason));
        };
        let Some(world) = file.get(&[STATES, "partition_count"]).and_then(largest) else {
            return Err(Error::malformed(&path, "tells no partition_count"));
        };
        let is_group = |keys: &[String]| matches!(keys, [root, key, _] if root == STATES && key == stage.key());
        let mut groups = Vec::new();
        for (keys, value) in file.tensors(&is_group)? {
            match value? {
                Value::Plain(tensor)
                    if tensor.shape().rank() == 1
                        && keys.last() == Some(&groups.len().to_string()) =>
                {
                    groups.push(tensor)
                }
                _ => {
                    return Err(Error::malformed(
                        &path,
                        format!("{} is no flat array", keys.join(".")),
                    ));
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            stage,
            world,
            groups,
            paddings: file
                .get(&[STATES, "param_alignment_paddings"])
                .map(paddings)
                .transpose()
                .map_err(|reason| Error::malformed(&path, reason))?,
            step: step(&file)?,
            path,
        })
    }
}

/// A count, or the largest of those of several groups: experts have fewer ranks.
fn largest(count: Object<'_>) -> Option<u64> {
    count
        .as_u64()
        .or_else(|| count.items().filter_map(Object::as_u64).max())
}

fn paddings(groups: Object<'_>) -> std::result::Result<Vec<Vec<u64>>, &'static str> {
    let of_group = |group: Object<'_>| {
        group
            .items()
            .map(Object::as_u64)
            .collect::<Option<Vec<u64>>>()
    };
    let all: Option<Vec<_>> = groups.items().map(of_group).collect();
    all.ok_or("its param_alignment_paddings are no numbers")
}

/// The steps that the optimizer counts, a number in its groups or one with each parameter.
fn step(file: &TorchFile) -> Result<Option<(String, u64)>> {
    for root in ["base_optimizer_state", STATES] {
        let Some(state) = file.get(&[STATES, root]) else {
            continue;
        };
        let groups = state
            .get("param_groups")
            .into_iter()
            .flat_map(Object::items);
        let counted = groups
            .filter_map(|group| group.get("step")?.as_u64())
            .next();
        if let Some(step) = counted {
            return Ok(Some(("param_groups".to_owned(), step)));
        }
        let of_parameters = state.get("state").into_iter().flat_map(Object::entries);
        let steps =
            of_parameters.filter_map(|(key, value)| Some((key.as_u64()?, value.get("step")?)));
        if let Some((key, step)) = { steps }.next() {
            let step = match step.as_u64().or_else(|| whole(step.as_f64()?)) {
                Some(step) => Some(step),
                None => scalar(file, &[STATES, root, "state", &key.to_string(), "step"])?,
            };
            return Ok(step.map(|step| (format!("state.{key}"), step)));
        }
    }
    Ok(None)
}

/// The one element of a tensor that counts.
fn scalar(file: &TorchFile, path: &[&str]) -> Result<Option<u64>> {
    let found = file.tensors(&|keys| keys.iter().eq(path))?;
    let Some((_, Ok(Value::Plain(tensor)))) = found.into_iter().next() else {
        return Ok(None);
    };
    let mut place = None;
    tensor.each_stored(&mut |stored| {
        place = stored
            .known_layout()
            .map(|layout| (stored.file().clone(), layout.offset))
    });
    let (Some((file, offset)), 1, Dtype::F32) = (place, tensor.shape().elements(), tensor.dtype())
    else {
        return Ok(None);
    };
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(whole(f32::from_le_bytes(bytes).into()))
}

fn whole(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number < 9e15).then_some(number as u64)
}

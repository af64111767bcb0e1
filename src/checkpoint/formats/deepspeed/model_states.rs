//! One `*_model_states.pt`: names, shapes and order of the parameters, and the tensors that no optimizer divides.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::files::RankFile;
use super::tensor_parallel::Layout;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::torch_file::pickle::Object;
use crate::checkpoint::formats::torch_file::{TorchFile, Value};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// Names and shapes in the order of a flat array.
pub type Shapes = Vec<(String, Shape)>;

/// The model as one rank saved it.
#[derive(Debug)]
pub struct ModelStates {
    pub path: PathBuf,
    /// Whether this is the file of one data-parallel rank, which has a part of each parameter.
    pub is_divided: bool,
    /// The state dict, in the model's order. Parameters that ZeRO-3 divides are empty in it.
    pub module: Vec<(String, Tensor)>,
    pub buffers: HashSet<String>,
    /// The trained parameters by group, in the order of the flat groups. None without ZeRO.
    pub groups: Option<Vec<Shapes>>,
    pub frozen_shapes: Shapes,
    /// Whole frozen parameters, and this rank's stretch of each under ZeRO-3.
    pub frozen: HashMap<String, Tensor>,
    /// Names of one parameter each, and the name under which it is stored.
    pub shared: HashMap<String, String>,
    pub data_ranks: Option<u64>,
    pub tensor_ranks: Option<u64>,
    pub steps: Option<u64>,
    pub skipped_steps: u64,
    pub version: Option<String>,
    /// How tensor-parallel ranks divide parameters, where the file tells.
    pub layout: Option<Layout>,
}

impl ModelStates {
    /// Reads a file. The state dict is that of the first data-parallel rank alone: the others have none of their own.
    pub fn read(folder: &Folder, RankFile { name, data, .. }: &RankFile) -> Result<Self> {
        let file = TorchFile::open(folder.open_file(name)?)?;
        let path = folder.path().join(name);
        let with_module = data.is_none_or(|rank| rank == 0);
        refuse_experts(&file, &path)?;
        let is_wanted = |path: &[String]| match path {
            [root, _] => root == FROZEN || with_module && root == MODULE,
            _ => false,
        };
        let (mut module, mut frozen) = (Vec::new(), HashMap::new());
        for (mut keys, value) in file.tensors(&is_wanted)? {
            let name = keys.pop().unwrap_or_default();
            let Value::Plain(tensor) = value? else {
                let reason = "is a distributed tensor, which DeepSpeed does not divide; save it as a plain one";
                return Err(Error::tensor(&path, &name, reason));
            };
            match keys.first().is_some_and(|root| root == MODULE) {
                true => module.push((name, tensor)),
                false => drop(frozen.insert(name, tensor)),
            }
        }
        let number = |key: &str| file.get(&[key]).and_then(Object::as_u64);
        let text = |object: Object<'_>| object.as_str().map(str::to_owned);
        Ok(Self {
            is_divided: data.is_some(),
            module,
            buffers: part(&file, "buffer_names")
                .into_iter()
                .flat_map(Object::items)
                .filter_map(text)
                .collect(),
            groups: part(&file, "param_shapes")
                .map(|groups| groups_of(groups, &path))
                .transpose()?,
            frozen_shapes: match part(&file, "frozen_param_shapes") {
                Some(shapes) => shapes_of(shapes, &path)?,
                None => Vec::new(),
            },
            frozen,
            shared: part(&file, "shared_params").map_or(HashMap::new(), pairs),
            data_ranks: number("dp_world_size"),
            tensor_ranks: number("mp_world_size"),
            steps: number("global_steps"),
            skipped_steps: number("skipped_steps").unwrap_or(0),
            version: file.get(&["ds_version"]).and_then(text),
            layout: part(&file, "universal_checkpoint_info").map(Layout::of),
            path,
        })
    }

    /// The name of the file.
    pub fn file(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The error of a parameter in this file.
    pub fn refuse(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::tensor(&self.path, &name.escape_debug().to_string(), reason)
    }
}

const MODULE: &str = "module";
const FROZEN: &str = "frozen_param_fragments";

/// The value under a key, unless it is None.
fn part<'f>(file: &'f TorchFile, key: &str) -> Option<Object<'f>> {
    file.get(&[key]).filter(|part| !part.is_none())
}

fn refuse_experts(file: &TorchFile, path: &Path) -> Result<()> {
    let experts = ["ds_autoep_layers", "autoep_layers"]
        .into_iter()
        .find_map(|key| part(file, key));
    match experts.and_then(|layers| layers.items().next()) {
        None => Ok(()),
        Some(_) => Err(Error::checkpoint(
            path,
            "is of DeepSpeed's AutoEP (ds_autoep_layers), which divides experts among ranks in a way that is not read; convert it with ds_to_universal.py, or save the model with save_16bit_model",
        )),
    }
}

fn groups_of(groups: Object<'_>, path: &Path) -> Result<Vec<Shapes>> {
    match groups.is_sequence() {
        true => groups.items().map(|group| shapes_of(group, path)).collect(),
        false => Err(Error::malformed(
            path,
            "its param_shapes are no list of groups",
        )),
    }
}

fn shapes_of(shapes: Object<'_>, path: &Path) -> Result<Shapes> {
    let one = |(name, shape): (Object<'_>, Object<'_>)| {
        let shape = shape.as_sizes().and_then(|sizes| Shape::new(&sizes));
        match name.as_str().map(str::to_owned).zip(shape) {
            Some(named) => Ok(named),
            None => Err(Error::malformed(
                path,
                "a parameter without a name or a shape",
            )),
        }
    };
    shapes.entries().map(one).collect()
}

fn pairs(pairs: Object<'_>) -> HashMap<String, String> {
    let text = |object: Object<'_>| object.as_str().map(str::to_owned);
    pairs
        .entries()
        .filter_map(|(from, to)| text(from).zip(text(to)))
        .collect()
}

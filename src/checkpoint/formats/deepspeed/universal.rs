//! A universal checkpoint: `zero/NAME/fp32.pt` holds each trained parameter whole.

use std::collections::HashMap;

use super::model_states::ModelStates;
use super::{Saved, TensorRank, weights};
use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::torch_file::{TorchFile, Value};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::{Shape, Tensor};

const FOLDER: &str = "zero";
const MASTER: &str = "fp32.pt";

/// Whether `folder` is what ds_to_universal.py makes of a save.
pub fn is_universal(folder: &Folder) -> bool {
    folder.has_folder(FOLDER)
}

/// The masters and what no optimizer has.
pub fn read(folder: &Folder, ranks: &[TensorRank]) -> Result<Saved> {
    let Some((rank, first)) = ranks
        .first()
        .and_then(|rank| Some((rank, rank.models.first()?)))
    else {
        return Ok(Saved::default());
    };
    let zero = folder.subfolder(FOLDER)?;
    let mut masters = HashMap::new();
    for (name, shape) in weights::trained(first) {
        let stated = (ranks.len() == 1).then_some(shape);
        masters.insert(name.clone(), master(&zero, name, stated, first)?);
    }
    if let Some(stray) = zero
        .folders()?
        .into_iter()
        .find(|name| !masters.contains_key(name))
    {
        let reason = format!(
            "holds {stray}, which is no parameter of {}; take it away, or convert the save again",
            first.file()
        );
        return Err(Error::checkpoint(zero.path(), reason));
    }
    if ranks.len() > 1 && !first.frozen_shapes.is_empty() {
        let (name, _) = &first.frozen_shapes[0];
        return Err(first.refuse(name, "is frozen, and divided among tensor-parallel ranks that a universal checkpoint does not join; save it trained"));
    }
    let version = first.version.as_deref().unwrap_or("of an unknown version");
    Ok(Saved {
        tensors: weights::weights(masters, &rank.models, &first.shared, ranks.len() > 1)?,
        trained_as: weights::trained_as(first),
        notes: vec![format!(
            "a universal checkpoint, written by DeepSpeed {version}"
        )],
        ..Saved::default()
    })
}

/// The tensor of `fp32.pt`: in shape beside how ranks divided it, or flat and alone.
fn master(
    zero: &Folder,
    name: &str,
    stated: Option<&Shape>,
    first: &ModelStates,
) -> Result<Tensor> {
    let relative = format!("{name}/{MASTER}");
    if !zero.exists(&relative) {
        let reason = format!("{relative} is missing: {INCOMPLETE}");
        return Err(Error::checkpoint(zero.path(), reason));
    }
    let file = TorchFile::open(zero.open_file(&relative)?)?;
    let path = zero.path().join(&relative);
    let named = |error| crate::checkpoint::tensor_error::named(error, &path, name);
    if !file.root().is_mapping() {
        let shape = stated.ok_or_else(|| {
            first.refuse(name, "has no shape in its fp32.pt; convert the save again")
        })?;
        return file
            .tensor()
            .and_then(|flat| flat.reshape(shape.dims()))
            .map_err(named);
    }
    let found = file.tensors(&|keys| matches!(keys, [key] if key == "param"))?;
    match found.into_iter().next() {
        Some((_, value)) => match value? {
            Value::Plain(tensor) => match stated {
                Some(shape) => tensor.reshape(shape.dims()).map_err(named),
                None => Ok(tensor),
            },
            _ => Err(Error::checkpoint(
                &path,
                "holds a distributed tensor; convert the save again",
            )),
        },
        None => Err(Error::checkpoint(
            &path,
            "holds no param; convert the save again",
        )),
    }
}

//! `consolidated.00.pth` and its like: tensor-parallel files of Meta's Llama and of Mistral's first models.

use std::collections::BTreeMap;

use super::SourceTensor;
use super::folder::Folder;
use super::names::is_weight;
use super::torch_file::{TorchFile, Value};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::Tensor;

/// Every tensor with its parts in the order of the files. How they fit together is for the mapping to say.
/// Mixtral's first files each hold other tensors, whole.
pub fn read(folder: &Folder, names: &[String]) -> Result<Vec<SourceTensor>> {
    let mut tensors: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for name in in_order(folder, names)? {
        let file = TorchFile::open(folder.open_file(name)?)?;
        for (path, value) in file.tensors(&|path| is_weight(&path.join(".")))? {
            let tensor = path.join(".");
            let Value::Plain(part) = value? else {
                let reason = "is sharded inside of a tensor-parallel file";
                return Err(Error::tensor(&folder.path().join(name), &tensor, reason));
            };
            tensors.entry(tensor).or_default().push(part);
        }
    }
    let are_whole = tensors.values().all(|parts| parts.len() == 1);
    let complete = |parts: &[Tensor]| are_whole || parts.len() == names.len();
    if let Some((name, parts)) = tensors.iter().find(|(_, parts)| !complete(parts)) {
        let reason = format!(
            "is in {} of the {} consolidated files",
            parts.len(),
            names.len()
        );
        return Err(Error::tensor(folder.path(), name, reason));
    }
    let source = |(name, parts): (String, Vec<Tensor>)| SourceTensor::new(name, parts);
    Ok(tensors.into_iter().map(source).collect())
}

/// The files by their numbers, which must run from 0 on.
fn in_order<'n>(folder: &Folder, names: &'n [String]) -> Result<Vec<&'n String>> {
    if let [_] = names {
        return Ok(names.iter().collect());
    }
    let mut numbered: BTreeMap<usize, &String> = BTreeMap::new();
    for name in names {
        let number = name
            .split('.')
            .nth(1)
            .and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| !numbered.contains_key(number)) else {
            let reason = format!("{name} has no number of its own, as in consolidated.00.pth");
            return Err(Error::checkpoint(folder.path(), reason));
        };
        numbered.insert(number, name);
    }
    match (0..names.len()).find(|number| !numbered.contains_key(number)) {
        None => Ok(numbered.into_values().collect()),
        Some(missing) => Err(Error::checkpoint(
            folder.path(),
            format!("consolidated.{missing:02}.pth is missing: {INCOMPLETE}"),
        )),
    }
}

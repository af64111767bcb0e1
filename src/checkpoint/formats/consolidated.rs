//! `consolidated.00.pth` and its like: tensor-parallel files of Meta's Llama and of Mistral's first models.

use std::collections::BTreeMap;
use std::path::Path;

use super::numbered_files::NumberedFiles;
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::SourceTensor;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::names::is_optimizers;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Every tensor with its parts in the order of the files. How they fit together is for the mapping to say.
/// Mixtral's first files each hold other tensors, whole.
pub fn read(folder: &Folder, names: &[String]) -> Result<Vec<SourceTensor>> {
    let mut tensors: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for name in in_order(folder, names)? {
        let file = TorchFile::open(folder.open_file(&name)?)?;
        for (path, value) in file.tensors(&|path| !is_optimizers(&path.join(".")))? {
            let tensor = path.join(".");
            let Value::Plain(part) = value? else {
                let reason = "is sharded inside of a tensor-parallel file; save it gathered";
                return Err(Error::tensor(&folder.path().join(&name), &tensor, reason));
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

/// The files by their numbers, which must run from 0 on. One file alone needs none.
fn in_order(folder: &Folder, names: &[String]) -> Result<Vec<String>> {
    let files = numbered(folder.path(), names)?;
    if let [one] = names
        && files.is_empty()
    {
        return Ok(vec![one.clone()]);
    }
    let unnumbered = names
        .iter()
        .find(|name| !files.names().any(|own| own == *name));
    if let Some(name) = unnumbered {
        let reason = format!("{name} has no number of its own; name it as in consolidated.00.pth");
        return Err(Error::checkpoint(folder.path(), reason));
    }
    files.require_ranks(files.extent(0))?;
    Ok(files.names().map(str::to_owned).collect())
}

fn numbered(folder: &Path, names: &[String]) -> Result<NumberedFiles> {
    let first = names.first().and_then(|name| name.rsplit('.').next());
    let pattern = format!("consolidated.{{}}.{}", first.unwrap_or("pth"));
    NumberedFiles::parse(folder, &pattern, names)
}

/// # Errors
/// When the tensors have `found` of `promised` rows, because some of the files that make them are missing, or too many.
pub fn check_share(folder: &Path, names: &[String], found: u64, promised: u64) -> Result<()> {
    let here = names.len() as u64;
    let whole = here
        .checked_mul(promised)
        .filter(|all| found > 0 && all % found == 0);
    match whole.map(|all| all / found) {
        Some(whole) if whole > here => numbered(folder, names)?.require_ranks(whole),
        Some(whole) if whole < here => Err(Error::Mapping(format!(
            "{here} consolidated files are here, {whole} of which would make the model that the config describes; take the others away"
        ))),
        _ => Ok(()),
    }
}

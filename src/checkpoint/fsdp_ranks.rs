//! The rank files of verl's FSDP: `model_world_size_W_rank_R.pt`, each with every parameter's part of one rank.
//!
//! Layout: verl 0.9.1 `utils/checkpoint/fsdp_checkpoint_manager.py`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::folder::Folder;
use super::named::named;
use super::torch_file::dtensor::assemble;
use super::torch_file::{TorchFile, Value};
use crate::error::{Error, INCOMPLETE, Result};
use crate::tensor::{SourceTensor, Tensor};

/// Most ranks. A larger number in a file name is no world size.
const RANK_LIMIT: u64 = 1 << 16;

/// Every tensor, put together from the files of all ranks.
pub fn read(folder: &Folder) -> Result<Vec<SourceTensor>> {
    let names = rank_files(folder)?;
    let mut order = Vec::new();
    let mut ranks: HashMap<String, Vec<Value>> = HashMap::new();
    for name in &names {
        let file = TorchFile::open(folder.open_file(name)?)?;
        for (path, value) in file.tensors(&|_| true)? {
            let key = path.join(".");
            let values = ranks.entry(key.clone()).or_default();
            if values.is_empty() {
                order.push(key);
            }
            values.push(value?);
        }
    }
    let whole = |name: String| {
        let values = ranks.remove(&name).unwrap_or_default();
        let tensor =
            join(values, names.len()).map_err(|error| named(error, folder.path(), &name))?;
        Ok(SourceTensor::whole(name, tensor))
    };
    order.into_iter().map(whole).collect()
}

fn join(values: Vec<Value>, ranks: usize) -> Result<Tensor> {
    if values.len() != ranks {
        let reason = format!(
            "is in the files of {} of {ranks} ranks; they are not of one save",
            values.len()
        );
        return Err(Error::Mapping(reason));
    }
    assemble(values)
}

/// The files of all ranks, in their order.
fn rank_files(folder: &Folder) -> Result<Vec<String>> {
    let refuse = |reason: String| Err(Error::checkpoint(folder.path(), reason));
    let mut worlds: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (world, rank) in folder.names()?.iter().filter_map(|name| parse(name)) {
        worlds.entry(world).or_default().insert(rank);
    }
    let sizes: Vec<String> = worlds.keys().map(u64::to_string).collect();
    let Some((world, ranks)) = worlds.pop_first() else {
        return refuse("has no model_world_size_W_rank_R.pt".to_owned());
    };
    if !worlds.is_empty() {
        let sizes = sizes.join(" and ");
        return refuse(format!(
            "holds files of world sizes {sizes}; move those of one save to their own folder"
        ));
    }
    if world > RANK_LIMIT {
        return refuse(format!("names a world of {world} ranks"));
    }
    let missing: Vec<String> = (0..world)
        .filter(|rank| !ranks.contains(rank))
        .map(|rank| rank.to_string())
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return refuse(format!(
            "the files of rank {missing} of {world} are missing: {INCOMPLETE}"
        ));
    }
    Ok((0..world)
        .map(|rank| format!("model_world_size_{world}_rank_{rank}.pt"))
        .collect())
}

fn parse(name: &str) -> Option<(u64, u64)> {
    let numbers = name
        .strip_prefix("model_world_size_")?
        .strip_suffix(".pt")?;
    let (world, rank) = numbers.split_once("_rank_")?;
    Some((world.parse().ok()?, rank.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checkpoint::torch_file::testing::*;

    /// A file that holds a replicated tensor of `rows` bytes under `name`.
    fn rank(name: &str, rows: i64) -> Vec<u8> {
        let bytes = storage("ByteStorage", "0", rows);
        saved(
            dict(&[(name, rebuilt(bytes, 0, &[rows], &[1]))]),
            &[("0", &vec![0; rows as usize])],
        )
    }

    fn read_files(files: &[(&str, Vec<u8>)]) -> Result<Vec<SourceTensor>> {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(root.path().join(name), bytes).unwrap();
        }
        read(&Folder::open(root.path()).unwrap())
    }

    fn refusal(files: &[(&str, Vec<u8>)]) -> String {
        read_files(files).unwrap_err().to_string()
    }

    const FIRST: &str = "model_world_size_2_rank_0.pt";
    const SECOND: &str = "model_world_size_2_rank_1.pt";

    #[test]
    fn replicated_tensors_are_kept_once() {
        let tensors = read_files(&[
            (FIRST, rank("w", 3)),
            (SECOND, rank("w", 3)),
            ("optim_x.pt", vec![]),
        ])
        .unwrap();
        assert_eq!(tensors.len(), 1);
        assert_eq!(tensors[0].parts[0].shape().dims(), [3]);
    }

    #[test]
    fn missing_ranks_are_named() {
        assert!(refusal(&[(SECOND, rank("w", 3))]).contains("rank 0 of 2"));
        assert!(
            refusal(&[("model_world_size_99999999_rank_1.pt", rank("w", 3))]).contains("world of")
        );
        assert!(refusal(&[]).contains("model_world_size_W_rank_R.pt"));
    }

    #[test]
    fn files_of_two_saves_are_refused() {
        let other = ("model_world_size_1_rank_0.pt", rank("w", 3));
        assert!(refusal(&[(FIRST, rank("w", 3)), other]).contains("world sizes 1 and 2"));
        assert!(refusal(&[(FIRST, rank("w", 3)), (SECOND, rank("v", 3))]).contains("1 of 2 ranks"));
        assert!(
            refusal(&[(FIRST, rank("w", 3)), (SECOND, rank("w", 4))])
                .contains("shape [3] on one rank")
        );
    }
}

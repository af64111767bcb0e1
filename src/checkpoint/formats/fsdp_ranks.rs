//! The rank files of verl's FSDP: `model_world_size_W_rank_R.pt`, each with every parameter's part of one rank.
//!
//! CheckpointFormat: verl 0.9.1 `utils/checkpoint/fsdp_checkpoint_manager.py`.

use std::collections::HashMap;

use super::numbered_files::NumberedFiles;
use super::torch_file::dtensor::{distinct, replicas, tiles};
use super::torch_file::{TorchFile, Value};
use crate::checkpoint::folder::Folder;
use crate::checkpoint::tensor_error::{named, refuse_flat};
use crate::error::{Error, Result};
use crate::tensor::{Shape, SourceTensor, Tensor, Tile};

/// World size and rank.
const RANK_FILE: &str = "model_world_size_{}_rank_{}.pt";

/// The contents of the files of all ranks together.
#[derive(Debug, Default)]
pub struct Ranks {
    pub tensors: Vec<SourceTensor>,
    /// Of the smallest tensor of which ranks hold copies, the copies of each part.
    pub copies: Vec<SourceTensor>,
}

/// Every tensor, put together from the files of all ranks.
pub fn read(folder: &Folder) -> Result<Ranks> {
    let names = rank_files(folder)?;
    check_steps(folder, &names)?;
    let mut order = Vec::new();
    let mut ranks: HashMap<String, Vec<Value>> = HashMap::new();
    for name in &names {
        let file = TorchFile::open(folder.open_file(name)?)?;
        for (path, value) in file.tensors(&|_| true)? {
            let key = path.join(".");
            refuse_flat(&folder.path().join(name), &key)?;
            let values = ranks.entry(key.clone()).or_default();
            if values.is_empty() {
                order.push(key);
            }
            values.push(value?);
        }
    }
    let mut read = Ranks::default();
    for name in order {
        let values = ranks.remove(&name).unwrap_or_default();
        let held = on_all(values, names.len());
        let (shape, tiles) = held.map_err(|error| named(error, folder.path(), &name))?;
        read.keep_copies(&name, &tiles);
        let tensor = Tensor::tiled(shape, distinct(tiles));
        let tensor = tensor.map_err(|error| named(error, folder.path(), &name))?;
        read.tensors.push(SourceTensor::whole(name, tensor));
    }
    Ok(read)
}

impl Ranks {
    fn keep_copies(&mut self, name: &str, tiles: &[Tile]) {
        let size = |copies: &[SourceTensor]| {
            let parts = copies.iter().flat_map(|copy| &copy.parts);
            parts.fold(0u64, |sum, part| sum.saturating_add(part.bytes()))
        };
        let copies = replicas(tiles).into_iter();
        let copies: Vec<_> = copies.map(|parts| SourceTensor::new(name, parts)).collect();
        let is_smaller = self.copies.is_empty() || size(&copies) < size(&self.copies);
        if !copies.is_empty() && is_smaller {
            self.copies = copies;
        }
    }
}

fn on_all(values: Vec<Value>, ranks: usize) -> Result<(Shape, Vec<Tile>)> {
    if values.len() != ranks {
        let reason = format!(
            "is in the files of {} of {ranks} ranks; they are not of one save",
            values.len()
        );
        return Err(Error::Mapping(reason));
    }
    tiles(values)
}

/// The files of all ranks, in their order.
fn rank_files(folder: &Folder) -> Result<Vec<String>> {
    let files = NumberedFiles::parse(folder.path(), RANK_FILE, &folder.names()?)?;
    let refuse = |reason: String| Err(Error::checkpoint(folder.path(), reason));
    let worlds: Vec<u64> = files.numbers(0).into_iter().collect();
    match *worlds {
        [] => {
            refuse("has no model_world_size_W_rank_R.pt; name the folder that has them".to_owned())
        }
        [world] => {
            files.require(&[world..world.saturating_add(1), 0..world])?;
            Ok(files.names().map(str::to_owned).collect())
        }
        _ => {
            let sizes: Vec<String> = worlds.iter().map(u64::to_string).collect();
            refuse(format!(
                "holds files of world sizes {}; move those of one save to their own folder",
                sizes.join(" and ")
            ))
        }
    }
}

/// Refuses files of two saves, where the learning rates of their ranks are of different steps.
fn check_steps(folder: &Folder, names: &[String]) -> Result<()> {
    let extra = names
        .iter()
        .map(|name| name.replacen("model_", "extra_state_", 1));
    let steps = extra.filter_map(|name| Some((step(folder, &name)?, name)));
    let steps: Vec<(u64, String)> = steps.collect();
    let Some(((step, name), rest)) = steps.split_first() else {
        return Ok(());
    };
    match rest.iter().find(|(other, _)| other != step) {
        None => Ok(()),
        Some((other, file)) => Err(Error::checkpoint(
            folder.path(),
            format!(
                "{name} is of step {step} and {file} of step {other}: files of two saves are mixed; take all from one"
            ),
        )),
    }
}

/// The step of the learning rate's schedule that a rank saved beside its weights. A file that tells none is passed over.
fn step(folder: &Folder, name: &str) -> Option<u64> {
    let file = folder.open_file(name).ok()?;
    let file = TorchFile::open(file).ok()?;
    file.get(&["lr_scheduler", "last_epoch"])?.as_u64()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checkpoint::formats::torch_file::testing::*;

    /// A file that holds a replicated tensor of `rows` bytes under `name`.
    fn rank(name: &str, rows: i64) -> Vec<u8> {
        let bytes = storage("ByteStorage", "0", rows);
        saved(
            dict(&[(name, rebuilt(bytes, 0, &[rows], &[1]))]),
            &[("0", &vec![0; rows as usize])],
        )
    }

    fn read_files(files: &[(&str, Vec<u8>)]) -> Result<Ranks> {
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
        let Ranks { tensors, copies } = read_files(&[
            (FIRST, rank("w", 3)),
            (SECOND, rank("w", 3)),
            ("optim_x.pt", vec![]),
        ])
        .unwrap();
        assert_eq!(copies[0].parts.len(), 2);
        assert_eq!(tensors.len(), 1);
        assert_eq!(tensors[0].parts[0].shape().dims(), [3]);
    }

    #[test]
    fn missing_ranks_are_named() {
        assert!(refusal(&[(SECOND, rank("w", 3))]).contains(FIRST));
        assert!(
            refusal(&[("model_world_size_99999999_rank_1.pt", rank("w", 3))])
                .contains("count 99999999 ranks")
        );
        assert!(refusal(&[]).contains("model_world_size_W_rank_R.pt"));
    }

    #[test]
    fn ranks_whose_schedules_are_of_different_steps_are_refused() {
        let extra = |step| {
            saved(
                dict(&[("lr_scheduler", dict(&[("last_epoch", int(step))]))]),
                &[],
            )
        };
        let with = |step| {
            read_files(&[
                (FIRST, rank("w", 3)),
                (SECOND, rank("w", 3)),
                ("extra_state_world_size_2_rank_0.pt", extra(10)),
                ("extra_state_world_size_2_rank_1.pt", extra(step)),
            ])
        };
        assert!(with(10).is_ok());
        let line = with(20).unwrap_err().to_string();
        for word in ["rank_0.pt is of step 10", "rank_1.pt of step 20", "mixed"] {
            assert!(line.contains(word), "{word} is not in {line}");
        }
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

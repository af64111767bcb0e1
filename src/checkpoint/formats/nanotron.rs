//! nanotron's `N/model/`: a folder for each module, in it a safetensors file for each parameter and rank, whose header says
//! where its slices belong in the whole.
//!
//! `decoder/0/pp_block/attn/qkv_proj/model_weight_pp-rank-0-of-1_tp-rank-1-of-2.safetensors` holds one tensor, `data`; a
//! `local_global_slices_pairs` of `0,20,None|None,None,None#20,40,None|None,None,None` puts its rows 0 to 20 at 20 to 40.
//! A parameter that all ranks share has one file, without ranks in its name.
//!
//! Format: nanotron, serialize/{weights,utils}.py.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::numbered_files::NumberedFiles;
use super::safetensors::{self, Header};
use super::torch_file::dtensor::distinct;
use crate::checkpoint::folder::Folder;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, Result};
use crate::source::SourceFile;
use crate::tensor::{Dims, Shape, SourceTensor, Tensor, Tile};

/// The folder of the weights.
pub const MODEL: &str = "model";

/// The file beside that folder which shows that nanotron wrote it.
pub const METADATA: &str = "checkpoint_metadata.json";

/// nanotron's own config of the model.
const CONFIG: &str = "model_config.json";

/// Most folders, one in the other, and most of all.
const DEPTH: usize = 16;
const MOST_FOLDERS: usize = 1 << 20;

/// The one tensor of each file.
const DATA: &str = "data";

/// How file names begin: behind it stands the parameter's name.
const START: &str = "model_";

const END: &str = ".safetensors";

/// The suffix that may follow the parameter's name: pipeline, tensor and expert ranks with their counts.
const RANKS: [&str; 2] = [
    "_pp-rank-{}-of-{}_tp-rank-{}-of-{}",
    "_pp-rank-{}-of-{}_tp-rank-{}-of-{}_exp-rank-{}-of-{}",
];

/// Every parameter, put together from the files of all ranks.
///
/// # Errors
/// When files of ranks are missing, or the model's rotary embeddings turn neighbours.
pub fn read(folder: &Folder) -> Result<Vec<SourceTensor>> {
    refuse_interleaved(folder)?;
    let mut tensors = Vec::new();
    for (module, path) in modules(folder)? {
        tensors.extend(parameters(&module, &path)?);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The files of all parameters.
pub fn files(folder: &Folder) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (module, path) in modules(folder)? {
        let above = [&[MODEL.to_owned()], &path[..]].concat().join("/");
        let names = module
            .names()?
            .into_iter()
            .filter(|name| parameter(name).is_some());
        files.extend(names.map(|name| format!("{above}/{name}")));
    }
    Ok(files)
}

/// The folders of all modules, each with its path.
fn modules(folder: &Folder) -> Result<Vec<(Folder, Vec<String>)>> {
    let mut found: Vec<(Folder, Vec<String>)> = vec![(folder.subfolder(MODEL)?, Vec::new())];
    let mut looked = 0;
    while let Some((module, path)) = found.get(looked).cloned() {
        looked += 1;
        if path.len() > DEPTH || found.len() > MOST_FOLDERS {
            let reason = "nests more folders than any model has modules; name another checkpoint";
            return Err(Error::checkpoint(module.path(), reason));
        }
        for name in module.folders()? {
            found.push((module.subfolder(&name)?, [&path[..], &[name]].concat()));
        }
    }
    Ok(found)
}

fn refuse_interleaved(folder: &Folder) -> Result<()> {
    if !folder.exists(CONFIG) {
        return Ok(());
    }
    let config: Map<String, Value> = folder.json(CONFIG)?;
    match config.get("rope_interleaved") {
        Some(Value::Bool(true)) => {
            let reason = "says rope_interleaved, an order of rows that no table of nanotron's re-orders; convert it with nanotron's convert_nanotron_to_hf.py";
            Err(Error::checkpoint(&folder.path().join(CONFIG), reason))
        }
        _ => Ok(()),
    }
}

/// The parameters of one module.
fn parameters(module: &Folder, path: &[String]) -> Result<Vec<SourceTensor>> {
    let names = module.names()?;
    let mut by_parameter: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in &names {
        if let Some(parameter) = parameter(name) {
            by_parameter
                .entry(parameter)
                .or_default()
                .push(name.clone());
        }
    }
    let tensor = |(parameter, files): (&str, Vec<String>)| {
        let name = [path, &[parameter.to_owned()]].concat().join(".");
        let tensor = joined(module, parameter, &files);
        let tensor = tensor.map_err(|error| named(error, module.path(), &name))?;
        Ok(SourceTensor::whole(name, tensor))
    };
    by_parameter.into_iter().map(tensor).collect()
}

/// The parameter that a file holds a part of.
fn parameter(name: &str) -> Option<&str> {
    let stem = name.strip_prefix(START)?.strip_suffix(END)?;
    Some(
        stem.split_once("_pp-rank-")
            .map_or(stem, |(parameter, _)| parameter),
    )
}

/// The whole of a parameter from its files.
fn joined(module: &Folder, parameter: &str, names: &[String]) -> Result<Tensor> {
    if let [name] = names
        && *name == format!("{START}{parameter}{END}")
    {
        return whole(&module.open_file(name)?);
    }
    check_complete(module, parameter, names)?;
    let (mut shape, mut tiles) = (None, Vec::new());
    for name in names {
        let file = module.open_file(name)?;
        let (own, slices) = placed(&file)?;
        if shape.get_or_insert_with(|| own.clone()) != &own {
            let reason = format!(
                "{name} says it has shape {own}, other files another: two saves are mixed; copy one of them whole"
            );
            return Err(Error::Mapping(reason));
        }
        tiles.extend(slices);
    }
    let shape = shape.ok_or_else(|| Error::Mapping("has no file".to_owned()))?;
    Tensor::tiled(shape, distinct(tiles))
}

/// All tensor-parallel and expert-parallel ranks of one pipeline stage must be there.
fn check_complete(module: &Folder, parameter: &str, names: &[String]) -> Result<()> {
    for ranks in RANKS {
        let pattern = format!("{START}{parameter}{ranks}{END}");
        let files = NumberedFiles::parse(module.path(), &pattern, names)?;
        let Some((numbers, _)) = files.iter().next() else {
            continue;
        };
        let wanted = numbers.as_chunks::<2>().0.iter().enumerate();
        let wanted = wanted.flat_map(|(kind, [rank, count])| match kind {
            0 => [
                *rank..rank.saturating_add(1),
                *count..count.saturating_add(1),
            ],
            _ => [0..*count, *count..count.saturating_add(1)],
        });
        return files.require(&wanted.collect::<Vec<_>>());
    }
    let reason = format!(
        "{} has no ranks that are understood in its name; save it with nanotron 0.4",
        names.join(", ")
    );
    Err(Error::checkpoint(module.path(), reason))
}

fn whole(file: &Arc<SourceFile>) -> Result<Tensor> {
    let tensors = safetensors::tensors(file)?;
    match <[_; 1]>::try_from(tensors) {
        Ok([(name, tensor)]) if *name == *DATA => Ok(tensor),
        _ => Err(Error::malformed(
            file.path(),
            "does not hold one tensor called data",
        )),
    }
}

/// The shape of the whole, and the slices of it that a file holds.
fn placed(file: &Arc<SourceFile>) -> Result<(Shape, Vec<Tile>)> {
    let local = whole(file)?;
    let header = Header::read(file)?;
    let broken = |what: &str| Error::malformed(file.path(), format!("{what} cannot be read"));
    let said = |key: &'static str| header.metadata(key).ok_or_else(|| broken(key));
    const SHAPE: &str = "unsharded_shape";
    const SLICES: &str = "local_global_slices_pairs";
    let dims = sizes(said(SHAPE)?).ok_or_else(|| broken(SHAPE))?;
    let shape = Shape::new(&dims).ok_or_else(|| broken(SHAPE))?;
    let pairs = said(SLICES)?.split(';');
    let tiles = pairs.map(|pair| tile(pair, &local, &shape));
    let tiles = tiles.map(|tile| tile?.ok_or_else(|| broken(SLICES)));
    let tiles = tiles.collect::<Result<_>>()?;
    Ok((shape, tiles))
}

/// The numbers of `(144, 40)`.
fn sizes(text: &str) -> Option<Dims> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let sizes = inner
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty());
    sizes.map(|size| size.parse().ok()).collect()
}

/// The slice of `local` that a pair of slices puts into the whole.
fn tile(pair: &str, local: &Tensor, shape: &Shape) -> Result<Option<Tile>> {
    let Some((own, global)) = pair.split_once('#') else {
        return Ok(None);
    };
    let (Some(own), Some(global)) = (ranges(own, local.shape()), ranges(global, shape)) else {
        return Ok(None);
    };
    let sizes = |ranges: &[(u64, u64)]| ranges.iter().map(|(_, size)| *size).collect::<Vec<_>>();
    if sizes(&own) != sizes(&global) {
        return Ok(None);
    }
    let mut tensor = local.clone();
    for (dim, (start, size)) in own.iter().enumerate() {
        tensor = tensor.narrow(dim, *start, *size)?;
    }
    let offsets = global.iter().map(|(start, _)| *start).collect();
    Ok(Some(Tile { offsets, tensor }))
}

/// Start and size in each dimension of `0,36,None|None,None,None`, inside of `shape`.
fn ranges(text: &str, shape: &Shape) -> Option<Vec<(u64, u64)>> {
    let slices: Vec<&str> = text.split('|').collect();
    if slices.len() != shape.rank() {
        return None;
    }
    let range = |(slice, size): (&&str, &u64)| {
        let mut parts = slice.split(',').map(str::trim);
        let mut bound = |default: u64| match parts.next()? {
            "None" => Some(default),
            number => number.parse().ok(),
        };
        let (start, end, step) = (bound(0)?, bound(*size)?, bound(1)?);
        let length = end.checked_sub(start)?;
        (end <= *size && step == 1).then_some((start, length))
    };
    slices.iter().zip(shape.dims()).map(range).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const MODULE: &str = "model/model/decoder/0/attn";

    fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), data].concat()
    }

    /// Rows `rows` of a parameter of `[4, 2]` bytes, as a rank saves them.
    fn part(rows: std::ops::Range<u64>) -> Vec<u8> {
        let (start, end) = (rows.start, rows.end);
        let count = end - start;
        let header = format!(
            r#"{{"__metadata__":{{"unsharded_shape":"(4, 2)","local_global_slices_pairs":"0,{count},None|None,None,None#{start},{end},None|None,None,None"}},"data":{{"dtype":"U8","shape":[{count},2],"data_offsets":[0,{}]}}}}"#,
            count * 2
        );
        file_of(&header, &vec![start as u8; 2 * count as usize])
    }

    fn read_files(files: &[(&str, Vec<u8>)]) -> Result<Vec<SourceTensor>> {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
            fs::write(path, bytes).unwrap();
        }
        read(&Folder::open(root.path()).unwrap())
    }

    fn name(rank: u64) -> String {
        format!("{MODULE}/model_weight_pp-rank-0-of-1_tp-rank-{rank}-of-2.safetensors")
    }

    #[test]
    fn slices_are_put_at_their_places() {
        let tensors = read_files(&[(&name(0), part(0..2)), (&name(1), part(2..4))]).unwrap();
        assert_eq!(&*tensors[0].name, "model.decoder.0.attn.weight");
        assert_eq!(tensors[0].parts[0].shape().dims(), [4, 2]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let refused = |files: &[(&str, Vec<u8>)], words: &str| {
            let line = read_files(files).unwrap_err().to_string();
            assert!(line.contains(words), "{words} is not in {line}");
        };
        refused(
            &[(&name(0), part(0..2))],
            "model_weight_pp-rank-0-of-1_tp-rank-1-of-2",
        );
        refused(
            &[(&name(0), part(0..1)), (&name(1), part(2..4))],
            "no chunk holds",
        );
        refused(
            &[(&name(0), part(0..2)), (&name(1), file_of("{}", &[]))],
            "one tensor called data",
        );
        let interleaved = (
            "model_config.json",
            br#"{"rope_interleaved": true}"#.to_vec(),
        );
        refused(&[(&name(0), part(0..2)), interleaved], "rope_interleaved");
    }

    #[test]
    fn slices_outside_of_a_tensor_are_not_understood() {
        let shape = Shape::new(&[4, 2]).unwrap();
        assert_eq!(
            ranges("1,3,None|None,None,None", &shape),
            Some(vec![(1, 2), (0, 2)])
        );
        for text in [
            "1,5,None|None,None,None",
            "3,1,None|None,None,None",
            "0,4,2|None,None,None",
            "0,4,None",
            "x|y",
            "",
        ] {
            assert_eq!(ranges(text, &shape), None, "{text}");
        }
    }
}

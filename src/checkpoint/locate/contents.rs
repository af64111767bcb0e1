//! The kind of a file, judged by its first bytes, and whether it holds a model, judged by its tensors. A save keeps files of
//! the training beside the weights, `rng.pt`, `train_state.pt`, `dl_state_dict.bin`, under names that nothing fixes.

use std::collections::BTreeMap;

use crate::checkpoint::folder::Folder;
use crate::checkpoint::formats::torch_file::{TorchFile, Value};
use crate::checkpoint::names::is_optimizers;
use crate::error::Result;
use crate::tensor::Dtype;

/// Bytes from which a file's kind is told.
const FRONT: u64 = 512;

/// Largest header of a safetensors file, as its first eight bytes may say.
const HEADER_LIMIT: u64 = 100_000_000;

/// How the legacy stream of torch.save begins: a pickle of its magic number.
const LEGACY: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Ends of names of files that hold no tensors, which are not opened to look.
const OTHER_ENDS: [&str; 17] = [
    ".json",
    ".jsonl",
    ".yaml",
    ".yml",
    ".toml",
    ".txt",
    ".md",
    ".log",
    ".csv",
    ".model",
    ".jinja",
    ".py",
    ".sh",
    ".distcp",
    ".tmp",
    ".lock",
    ".metadata",
];

/// Most files of one folder whose kind is told from their bytes.
const MOST_LOOKED_AT: usize = 64;

/// A kind of file that holds tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Safetensors,
    Torch,
}

/// The kind of a file by its first bytes, whatever it is called.
///
/// # Errors
/// When it cannot be read.
pub fn kind_of(folder: &Folder, name: &str) -> Result<Option<FileKind>> {
    let file = folder.open_file(name)?;
    let mut front = vec![0; file.size().min(FRONT) as usize];
    file.read_exact_at(&mut front, 0)?;
    Ok(kind(&front))
}

fn kind(front: &[u8]) -> Option<FileKind> {
    let is_archive = || {
        let has_pickle = front.windows(9).any(|part| part == b"/data.pkl");
        front.starts_with(b"PK\x03\x04") && has_pickle
    };
    let is_legacy = || front.get(2..).is_some_and(|rest| rest.starts_with(LEGACY));
    let is_safetensors = || match front {
        [a, b, c, d, e, f, g, h, b'{', ..] => {
            u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) <= HEADER_LIMIT
        }
        _ => false,
    };
    match () {
        () if is_archive() || front.first() == Some(&0x80) && is_legacy() => Some(FileKind::Torch),
        () if is_safetensors() => Some(FileKind::Safetensors),
        () => None,
    }
}

/// Those of `names` that are files of torch.save by their first bytes. Their names say nothing.
pub fn torch_files_of_other_names(folder: &Folder, names: &[&str]) -> Vec<String> {
    let may_be = |name: &&&str| {
        let is_other = OTHER_ENDS.iter().any(|end| name.ends_with(end));
        !name.starts_with('.')
            && !is_other
            && folder.metadata(name).is_ok_and(|file| file.is_file())
    };
    let candidates = names.iter().filter(may_be).take(MOST_LOOKED_AT);
    let is_torch = |name: &&&str| matches!(kind_of(folder, name), Ok(Some(FileKind::Torch)));
    candidates
        .filter(is_torch)
        .map(|name| (*name).to_owned())
        .collect()
}

/// Those of `names` that hold models. Names that differ in their digits alone are judged by the first of them.
pub fn with_models(folder: &Folder, names: &[String]) -> Vec<String> {
    let mut judged: BTreeMap<String, bool> = BTreeMap::new();
    let mut holds = |name: &&String| {
        let form = name.replace(|char: char| char.is_ascii_digit(), "");
        *judged
            .entry(form)
            .or_insert_with(|| holds_model(folder, name))
    };
    names.iter().filter(|name| holds(name)).cloned().collect()
}

/// How many kinds of names there are, where digits make no difference.
pub fn forms(names: &[String]) -> usize {
    let form = |name: &String| name.replace(|char: char| char.is_ascii_digit(), "");
    names
        .iter()
        .map(form)
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

/// Whether a file of torch.save has a matrix of weights. One that cannot be read counts: opening it will say why.
fn holds_model(folder: &Folder, name: &str) -> bool {
    let found = folder
        .open_file(name)
        .and_then(TorchFile::open)
        .and_then(|file| file.tensors(&|path| !is_optimizers(&path.join("."))));
    let is_weights = |path: &[String], value: &Result<Value>| match value {
        Ok(value) => {
            let is_flat = path.iter().any(|key| key.contains("flat_param"));
            is_flat || value.shape().rank() > 1 && may_be_weights(dtype(value))
        }
        Err(_) => true,
    };
    found.map_or(true, |found| {
        found.iter().any(|(path, value)| is_weights(path, value))
    })
}

fn dtype(value: &Value) -> Option<Dtype> {
    match value {
        Value::Plain(tensor) => Some(tensor.dtype()),
        Value::Distributed(part) => Some(part.local.dtype()),
        Value::Sharded(part) => part.shards.first().map(|shard| shard.tensor.dtype()),
    }
}

/// Whether weights have this type: batches and tables of a data loader are of long integers.
fn may_be_weights(dtype: Option<Dtype>) -> bool {
    !matches!(
        dtype,
        Some(
            Dtype::Bool
                | Dtype::I16
                | Dtype::U16
                | Dtype::I32
                | Dtype::U32
                | Dtype::I64
                | Dtype::U64
        )
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checkpoint::formats::torch_file::testing::*;

    fn one(name: &str, sizes: &[i64]) -> Vec<u8> {
        let count = sizes.iter().product();
        let strides: Vec<i64> = (0..sizes.len())
            .map(|at| sizes[at + 1..].iter().product())
            .collect();
        let bytes = storage("ByteStorage", "0", count);
        saved(
            dict(&[(name, rebuilt(bytes, 0, sizes, &strides))]),
            &[("0", &vec![0; count as usize])],
        )
    }

    #[test]
    fn kinds_are_told_by_bytes() {
        let zip = one("w", &[2, 3]);
        assert_eq!(kind(&zip[..128]), Some(FileKind::Torch));
        assert_eq!(
            kind(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80"),
            Some(FileKind::Torch)
        );
        assert_eq!(kind(b"\x10\0\0\0\0\0\0\0{}"), Some(FileKind::Safetensors));
        for other in [
            &b"PK\x03\x04\0\0word/document.xml"[..],
            b"\x80\x04\x95",
            b"",
            b"{\"a\": 1}",
            b"\xff\xff\xff\xff\xff\xff\xff\xff{",
        ] {
            assert_eq!(kind(other), None, "{other:?}");
        }
    }

    #[test]
    fn files_without_a_matrix_hold_no_model() {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("rng.pt", one("cuda", &[16])),
            ("model.pt", one("w", &[2, 3])),
            ("flat.pt", one("_flat_param", &[6])),
            ("optimizer_of.pt", one("optimizer.state.w.exp_avg", &[2, 3])),
            ("broken.pt", b"PK\x03\x04".to_vec()),
        ] {
            fs::write(root.path().join(name), bytes).unwrap();
        }
        let folder = Folder::open(root.path()).unwrap();
        let names = folder.names().unwrap();
        assert_eq!(
            with_models(&folder, &names),
            ["broken.pt", "flat.pt", "model.pt"]
        );
    }
}

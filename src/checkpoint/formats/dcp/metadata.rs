//! `.metadata`: records of the tensors and of the items that hold their chunks, each read by the names of its fields, so
//! that fields which come and go between releases do not matter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use foldhash::{HashSet, HashSetExt};

use crate::checkpoint::folder::Folder;
use crate::checkpoint::foreign;
use crate::checkpoint::formats::torch_file::dtype;
use crate::checkpoint::formats::torch_file::pickle::{Object, Pickle};
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, INCOMPLETE, Result, UNTRUSTED};
use crate::tensor::{Dims, Dtype, Shape};

const NAME: &str = ".metadata";
/// Most bytes and values. A model of a thousand tensors, with its optimizer, on a thousand ranks takes half of it.
const SIZE_LIMIT: u64 = 1 << 30;
const VALUE_LIMIT: usize = 1 << 26;
/// Most dictionaries above a name that are told apart.
const DEEPEST: usize = 8;
/// Most bytes of one that tells of less data than it has bytes itself. A chunk and its item are told in fewer bytes than
/// torch.save takes for an item.
const SMALL: u64 = 8 << 20;
/// Packages whose classes occur in `.metadata`, beside torch.
const PACKAGES: [&str; 9] = [
    "megatron",
    "olmo_core",
    "pathlib",
    "collections",
    "builtins",
    "__builtin__",
    "copyreg",
    "enum",
    "_codecs",
];

/// How the names of torch's element types begin.
const TYPES: [&str; 8] = [
    "float", "bfloat", "int", "uint", "bool", "complex", "qu", "qint",
];

pub struct Metadata {
    path: PathBuf,
    pickle: Pickle,
}

/// A tensor: TensorStorageMetadata.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub name: &'a str,
    record: Object<'a>,
}

/// A range of a data file: a MetadataIndex and its _StorageInfo.
pub struct Item<'a> {
    pub name: &'a str,
    /// Of the chunk that the item is. Items that are no tensor have none.
    pub offsets: Option<Dims>,
    pub file: &'a str,
    pub start: u64,
    pub length: u64,
}

impl Metadata {
    pub fn open(folder: &Folder) -> Result<Self> {
        if !folder.exists(NAME) {
            return Err(incomplete(folder)?);
        }
        let path = folder.path().join(NAME);
        check_size(folder)?;
        let (bytes, charge) = folder.read_charged(NAME, SIZE_LIMIT)?;
        if let Some(what) = foreign::kind(&bytes) {
            return Err(Error::checkpoint(&path, what));
        }
        let pickle = Pickle::parse(&path, bytes, VALUE_LIMIT, charge)?;
        let is_needless = |(module, name): &(&str, &str)| !is_needed(module, name);
        if let Some((module, name)) = pickle.globals().find(is_needless) {
            let path = &format!("{module}.{name}");
            let path = path.escape_debug();
            let reason = format!("names {path}, which no DCP metadata needs; {UNTRUSTED}");
            return Err(Error::checkpoint(&folder.path().join(NAME), reason));
        }
        Ok(Self { path, pickle })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors. Other values are stored as bytes, which are not read.
    pub fn entries(&self) -> Result<Vec<Entry<'_>>> {
        let (mut entries, mut names) = (Vec::new(), HashSet::new());
        for (name, record) in self.table("state_dict_metadata")?.entries() {
            let name = name
                .as_str()
                .ok_or_else(|| self.broken("a tensor without a name"))?;
            if !names.insert(name) {
                return Err(self.refuse(name, "is listed twice"));
            }
            match record.class_name() {
                Some("TensorStorageMetadata") => entries.push(Entry { name, record }),
                Some("BytesStorageMetadata") => {}
                _ => return Err(self.refuse(name, "has a record of an unknown class")),
            }
        }
        Ok(entries)
    }

    /// The prefixes of `names` that were keys of dictionaries, told by the paths from which the saver flattened them.
    pub fn dictionaries(&self, names: &HashSet<&str>) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let paths = self.pickle.root().field("planner_data");
        for (name, path) in paths
            .iter()
            .filter(|paths| paths.is_mapping())
            .flat_map(|paths| paths.entries())
        {
            let Some(name) = name.as_str().filter(|name| names.contains(name)) else {
                continue;
            };
            let keys: Vec<&str> = path
                .items()
                .map_while(Object::as_str)
                .take(DEEPEST)
                .collect();
            let mut prefix = String::new();
            for key in keys.iter().take(keys.len().saturating_sub(1)) {
                prefix.push_str(key);
                prefix.push('.');
                if name.starts_with(&prefix) && !all.contains(&prefix) {
                    all.insert(prefix.clone());
                }
            }
        }
        all
    }

    /// How many items there are.
    pub fn count(&self) -> Result<usize> {
        Ok(self.table("storage_data")?.entries().count())
    }

    pub fn items(&self) -> impl Iterator<Item = Result<Item<'_>>> {
        let table = self.table("storage_data").ok();
        let entries = table.into_iter().flat_map(Object::entries);
        entries.map(|(index, info)| self.item(index, info))
    }

    fn item<'a>(&self, index: Object<'a>, info: Object<'a>) -> Result<Item<'a>> {
        let name = index.field("fqn").and_then(Object::as_str);
        let name = name.ok_or_else(|| self.broken("an item without a name"))?;
        let number = |field: &str| info.field(field).and_then(Object::as_u64);
        let file = info.field("relative_path").and_then(Object::as_str);
        let (Some(file), Some(start), Some(length)) = (file, number("offset"), number("length"))
        else {
            return Err(self.refuse(name, "has an item without a place in a file"));
        };
        let transforms = info
            .field("transform_descriptors")
            .and_then(|list| list.item(0));
        if let Some(transform) = transforms {
            let transform = transform.as_str().unwrap_or("unknown").escape_debug();
            let reason = format!(
                "is stored through {transform}, from which no part can be read without all before it; rewrite it with: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {} model.pt",
                self.path.parent().unwrap_or(&self.path).display()
            );
            return Err(Error::tensor(
                &self.path,
                &name.escape_debug().to_string(),
                reason,
            ));
        }
        Ok(Item {
            name,
            offsets: index.field("offset").and_then(Object::as_sizes),
            file,
            start,
            length,
        })
    }

    pub fn refuse(&self, tensor: &str, reason: impl Into<String>) -> Error {
        named(Error::Mapping(reason.into()), &self.path, tensor)
    }

    fn table(&self, name: &str) -> Result<Object<'_>> {
        let table = self
            .pickle
            .root()
            .field(name)
            .filter(|table| table.is_mapping());
        table.ok_or_else(|| self.broken(format!("no DCP metadata: it has no {name}")))
    }

    fn broken(&self, reason: impl Into<String>) -> Error {
        Error::malformed(&self.path, reason)
    }
}

impl<'a> Entry<'a> {
    /// The properties' state is a tuple that starts with the type.
    pub fn dtype(&self) -> Result<Dtype> {
        let properties = self.record.field("properties").and_then(Object::state);
        let own = properties.and_then(|state| state.item(0).or_else(|| state.get("dtype")));
        dtype(own.ok_or_else(|| Error::Mapping("has no type".to_owned()))?)
    }

    pub fn shape(&self) -> Result<Shape> {
        shape(self.record.field("size"))
    }

    /// Offsets and shape of each chunk.
    pub fn chunks(&self) -> impl Iterator<Item = Result<(Dims, Shape)>> + use<'a> {
        let chunks = self
            .record
            .field("chunks")
            .into_iter()
            .flat_map(Object::items);
        chunks.map(|chunk| {
            let offsets = chunk.field("offsets").and_then(Object::as_sizes);
            let offsets =
                offsets.ok_or_else(|| Error::Mapping("has a chunk without offsets".to_owned()))?;
            Ok((offsets, shape(chunk.field("sizes"))?))
        })
    }
}

fn shape(sizes: Option<Object<'_>>) -> Result<Shape> {
    let sizes = sizes.and_then(Object::as_sizes);
    let sizes = sizes.ok_or_else(|| Error::Mapping("has no shape".to_owned()))?;
    Shape::new(&sizes).ok_or_else(|| {
        Error::Mapping(format!(
            "shape {sizes:?} has too many dimensions or elements"
        ))
    })
}

/// Whether a `.metadata` may name this. Of torch itself that is how it writes the types, sizes and layouts of tensors.
fn is_needed(module: &str, name: &str) -> bool {
    match module.split_once('.') {
        Some(("torch", inner)) => inner.starts_with("distributed.") || name == "_get_layout",
        None if module == "torch" => {
            ["Size", "device"].contains(&name) || TYPES.iter().any(|start| name.starts_with(start))
        }
        _ => PACKAGES.contains(&module.split('.').next().unwrap_or(module)),
    }
}

/// Refuses what would take memory for nothing.
fn check_size(folder: &Folder) -> Result<()> {
    let size = folder.open_file(NAME)?.size();
    if size <= SMALL || size <= folder.bytes_beside(NAME)? {
        return Ok(());
    }
    let reason = format!("has {size} bytes, more than all the data that it tells of: {INCOMPLETE}");
    Err(Error::checkpoint(&folder.path().join(NAME), reason))
}

/// Why a folder of chunks has no `.metadata`: the last thing that a save writes is missing.
fn incomplete(folder: &Folder) -> Result<Error> {
    let names = folder.names()?;
    let of_rank = |name: &&String| name.starts_with("__") && name.ends_with(NAME);
    let reason = if names.iter().any(|name| name == ".metadata.tmp") {
        format!("has .metadata.tmp but no .metadata, the save was interrupted: {INCOMPLETE}")
    } else if let Some(name) = names.iter().find(of_rank) {
        format!("has {name} of one rank but no .metadata of all: {INCOMPLETE}")
    } else {
        format!("has no .metadata: {INCOMPLETE}")
    };
    Ok(Error::checkpoint(folder.path(), reason))
}

//! Files that `torch.save` wrote: a pickle of the structure, and storages beside it.

pub mod archive;
mod distributed;
pub mod dtensor;
mod legacy;
pub mod pickle;
mod rebuild;
pub mod section;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
mod walk;

use std::collections::HashSet;
use std::sync::Arc;

use self::archive::Archive;
pub use self::dtensor::Value;
use self::legacy::Legacy;
use self::pickle::{Object, Pickle};
pub use self::rebuild::dtype;
use self::section::Section;
pub use self::walk::Found;
use crate::checkpoint::foreign;
use crate::error::{Error, Result};
use crate::source::SourceFile;
use crate::tensor::{SourceTensor, Tensor};

/// How an archive begins.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// Most bytes and values of a file's pickle. A hundred thousand DTensors take a tenth of it.
const PICKLE_LIMIT: u64 = 128 << 20;
const VALUE_LIMIT: usize = 1 << 23;

/// A file of `torch.save`, its structure read and its tensors located but not read.
#[derive(Debug)]
pub struct TorchFile {
    pickle: Pickle,
    storages: Storages,
}

/// Where the bytes of tensors lie.
#[derive(Debug)]
pub struct Storages {
    container: Container,
    /// Keys that the pickle names as two things.
    ambiguous: HashSet<String>,
}

#[derive(Debug)]
enum Container {
    Archive(Archive),
    Legacy(Legacy),
}

impl Storages {
    fn new(container: Container, pickle: &Pickle) -> Self {
        Self {
            container,
            ambiguous: storage::ambiguous(pickle),
        }
    }

    fn file(&self) -> &Arc<SourceFile> {
        match &self.container {
            Container::Archive(archive) => archive.section().file(),
            Container::Legacy(legacy) => legacy.file(),
        }
    }

    /// Start in the file and size of a storage.
    fn locate(&self, key: &str) -> Result<(u64, u64)> {
        if self.ambiguous.contains(key) {
            return Err(Error::Mapping(format!(
                "is in storage {key:?}, which has two types or views; save it with a copy of its own"
            )));
        }
        match &self.container {
            Container::Archive(archive) => archive.storage(key),
            Container::Legacy(legacy) => legacy.storage(key),
        }
    }
}

impl TorchFile {
    pub fn open(file: Arc<SourceFile>) -> Result<Self> {
        let section = Section::whole(file.clone());
        let front = section.front(512)?;
        if front.starts_with(ARCHIVE) {
            return Self::in_section(section);
        }
        if let Some(what) = foreign(&front) {
            return Err(Error::checkpoint(file.path(), what));
        }
        let (pickle, legacy) = Legacy::open(file, VALUE_LIMIT)?;
        Ok(Self {
            storages: Storages::new(Container::Legacy(legacy), &pickle),
            pickle,
        })
    }

    /// Reads a zip file of `torch.save` that is part of a file.
    pub fn in_section(section: Section) -> Result<Self> {
        let archive = Archive::open(section)?;
        let size = archive.size("data.pkl").unwrap_or(0).min(PICKLE_LIMIT);
        let charge = archive.section().charge(size)?;
        let bytes = archive.read("data.pkl", PICKLE_LIMIT)?.unwrap_or_default();
        let pickle = Pickle::parse(archive.section().path(), bytes, VALUE_LIMIT, charge)?;
        Ok(Self {
            storages: Storages::new(Container::Archive(archive), &pickle),
            pickle,
        })
    }

    /// The object that was saved.
    pub fn root(&self) -> Object<'_> {
        self.pickle.root()
    }

    /// The value at a path of dictionary keys and attributes, such as `["args", "num_layers"]`.
    pub fn get(&self, path: &[&str]) -> Option<Object<'_>> {
        path.iter().try_fold(self.root(), |object, name| {
            object.get(name).or_else(|| object.field(name))
        })
    }

    /// Every tensor, by its path of keys and indices, that `keep` wants. One that cannot be served is an error in its
    /// place, so that an optimizer's oddities hinder no weight.
    pub fn tensors(&self, keep: &dyn Fn(&[String]) -> bool) -> Result<Vec<Found>> {
        let tensors = walk::tensors(&self.pickle, &self.storages, keep)?;
        let file = self.storages.file();
        file.keep(file.charge(tensors.len() as u64 * SourceTensor::COST)?);
        Ok(tensors)
    }

    /// The one tensor that was saved.
    pub fn tensor(&self) -> Result<Tensor> {
        match rebuild::value(self.root(), &self.storages)? {
            Some(Value::Plain(tensor)) => Ok(tensor),
            _ => Err(Error::Mapping(
                "is saved as something that is no plain tensor".to_owned(),
            )),
        }
    }
}

/// Checks a file against the checksums that it holds of itself; whether it holds any.
pub fn check_sums(file: &Arc<SourceFile>) -> Result<bool> {
    let section = Section::whole(file.clone());
    match section.front(4)?.starts_with(ARCHIVE) {
        true => Archive::open(section)?.check_sums(),
        false => Ok(false),
    }
}

/// Returns the kind of a file that only has the name of a torch file.
fn foreign(front: &[u8]) -> Option<&'static str> {
    const TAR: &str =
        "is a tar archive, as torch 0.1 wrote; load it and save it again with torch.save";
    let is_tar = || {
        front
            .get(257..)
            .is_some_and(|rest| rest.starts_with(b"ustar"))
    };
    match front.first() {
        Some(0x80) => None,
        _ => foreign::kind(front)
            .or_else(|| is_tar().then_some(TAR))
            .or(Some(
                "is no file of torch.save; name the file that it wrote",
            )),
    }
}

#[cfg(test)]
mod tests;

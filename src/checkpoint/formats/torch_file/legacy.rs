//! The stream of `torch.save` before torch 1.6: pickles, then every storage behind its element count.
//!
//! Format: torch 2.15.0 `torch/serialization.py`, `_legacy_save` and `_legacy_load`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::pickle::{Fault, Object, Pickle};
use super::storage::Storage;
use crate::checkpoint::tensor_error::unnamed;
use crate::error::{Error, Result};
use crate::source::{Charge, SourceFile};

/// The first pickle: the integer 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: u64 = 1001;
/// Bytes read first in search of the end of the pickles, and most bytes that they may have.
const FIRST_READ: u64 = 1 << 20;
const PICKLES_LIMIT: u64 = 128 << 20;

/// Where each storage lies in the file.
#[derive(Debug)]
pub struct Legacy {
    file: Arc<SourceFile>,
    /// Start and size in bytes, by key.
    storages: HashMap<String, (u64, u64)>,
}

impl Legacy {
    /// The object that the stream holds, and its storages.
    pub fn open(file: Arc<SourceFile>, limit: usize) -> Result<(Pickle, Self)> {
        let stream = read_pickles(&file, limit)?;
        let storages = locate(&file, &stream)?;
        Ok((stream.object, Self { file, storages }))
    }

    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    pub fn storage(&self, key: &str) -> Result<(u64, u64)> {
        let place = self.storages.get(key).copied();
        place.ok_or_else(|| {
            Error::malformed(self.file.path(), format!("storage {key:?} is missing"))
        })
    }
}

struct Stream {
    object: Pickle,
    keys: Pickle,
    /// Where the pickles end.
    length: u64,
}

/// Reads more and more of the file until the pickles are whole.
fn read_pickles(file: &SourceFile, limit: usize) -> Result<Stream> {
    let most = file.size().min(PICKLES_LIMIT);
    let mut size = FIRST_READ.min(most);
    loop {
        let charge = file.charge(2 * size)?;
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, 0)?;
        match parse(&bytes, limit, &charge) {
            Err(Fault::Truncated) if size < most => size = (size * 4).min(most),
            stream => return stream.map_err(|fault| fault.of(file.path())),
        }
    }
}

fn parse(bytes: &[u8], limit: usize, charge: &Charge) -> std::result::Result<Stream, Fault> {
    let refuse = |reason: &str| Err(Fault::Refused(reason.to_owned()));
    let mut rest = bytes;
    let mut next = || -> std::result::Result<Pickle, Fault> {
        let (pickle, length) = Pickle::first(rest, limit, charge.another())?;
        rest = rest.get(length..).unwrap_or(&[]);
        Ok(pickle)
    };
    if next()?.root().as_long() != Some(&MAGIC) {
        return refuse("a pickle that torch.save did not write: it lacks the magic number");
    }
    if next()?.root().as_u64() != Some(VERSION) {
        return refuse("an unknown version of the torch.save stream");
    }
    if next()?
        .root()
        .get("little_endian")
        .and_then(Object::as_bool)
        != Some(true)
    {
        let reason = "has big byte order; save it again on a little-endian machine";
        return Err(Fault::Unserved(reason.to_owned()));
    }
    let (object, keys) = (next()?, next()?);
    let length = (bytes.len() - rest.len()) as u64;
    Ok(Stream {
        object,
        keys,
        length,
    })
}

/// Walks the storages: each is a count of eight bytes and its elements. The pickle alone tells the size of an element.
fn locate(file: &SourceFile, stream: &Stream) -> Result<HashMap<String, (u64, u64)>> {
    let refuse = |reason: String| Error::malformed(file.path(), reason);
    let units = element_sizes(&stream.object).map_err(|error| unnamed(error, file.path()))?;
    let mut storages = HashMap::new();
    let mut at = stream.length;
    for key in stream.keys.root().items() {
        let key = key
            .as_str()
            .ok_or_else(|| refuse("a storage without a key".to_owned()))?;
        let unit = units
            .get(key)
            .ok_or_else(|| refuse(format!("storage {key:?} belongs to no tensor")))?;
        if file.size().saturating_sub(at) < 8 {
            return Err(refuse(format!(
                "incomplete: it ends before storage {key:?}"
            )));
        }
        let mut count = [0; 8];
        file.read_exact_at(&mut count, at)?;
        let size = u64::from_le_bytes(count).checked_mul(*unit);
        let Some((size, end)) = size.and_then(|size| Some((size, (at + 8).checked_add(size)?)))
        else {
            return Err(refuse(format!("storage {key:?} has an impossible size")));
        };
        if end > file.size() {
            return Err(refuse(format!(
                "incomplete: it ends inside storage {key:?}"
            )));
        }
        if storages.insert(key.to_owned(), (at + 8, size)).is_some() {
            return Err(refuse(format!("storage {key:?} is written twice")));
        }
        at = end;
    }
    match at == file.size() {
        true => Ok(storages),
        false => Err(refuse(format!(
            "{} bytes follow the last storage",
            file.size() - at
        ))),
    }
}

/// Bytes of an element of each storage that the pickle names.
fn element_sizes(pickle: &Pickle) -> Result<HashMap<Cow<'_, str>, u64>> {
    let mut units = HashMap::new();
    for object in pickle.persistent() {
        let is_storage = object
            .persistent_id()
            .and_then(|id| id.item(0))
            .and_then(Object::as_str)
            == Some("storage");
        if !is_storage {
            continue;
        }
        let storage = Storage::of(object)?;
        let unit = storage.unit();
        if *units.entry(storage.key.clone()).or_insert(unit) != unit {
            return Err(Error::Mapping(format!(
                "storage {:?} has elements of two sizes",
                storage.key
            )));
        }
    }
    Ok(units)
}

#[cfg(test)]
mod tests;

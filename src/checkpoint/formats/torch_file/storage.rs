//! Storages: the flat arrays that tensors are views of.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::Storages;
use super::pickle::{Object, Pickle};
use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// A range of bytes in a file.
#[derive(Clone, Copy)]
pub struct Place {
    pub start: u64,
    pub size: u64,
}

/// A storage as a persistent id names it: `("storage", class, key, location, count)`, and in the legacy stream a view
/// `(key, offset, count)` or None.
pub struct Storage<'a> {
    pub key: Cow<'a, str>,
    /// `None` for a storage of bytes whose type the tensor tells.
    pub dtype: Option<Dtype>,
    location: &'a str,
    count: u64,
    view: Option<View<'a>>,
}

/// A part of a storage that has a key of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct View<'a> {
    key: &'a str,
    offset: u64,
    count: u64,
}

impl<'a> Storage<'a> {
    pub fn of(object: Object<'a>) -> Result<Self> {
        let Some(id) = object.persistent_id() else {
            return refuse("is made from no storage");
        };
        let text = |index| id.item(index).and_then(Object::as_str);
        let count = id.item(4).and_then(Object::as_u64);
        let (Some("storage"), Some(class), Some(key), Some(location), Some(count)) = (
            text(0),
            id.item(1).and_then(Object::class_name),
            id.item(2).and_then(key),
            text(3),
            count,
        ) else {
            return refuse("is made from a storage that is not one");
        };
        let dtype = storage_dtype(class)?;
        let view = id
            .item(5)
            .filter(|view| !view.is_none())
            .map(view)
            .transpose()?;
        Ok(Self {
            key,
            dtype,
            location,
            count,
            view,
        })
    }

    /// Bytes of an element of the storage.
    pub fn unit(&self) -> u64 {
        self.dtype.and_then(Dtype::bytes).unwrap_or(1)
    }

    /// Bytes of the storage, or of the view on one that it is.
    pub fn locate(&self, storages: &Storages) -> Result<Place> {
        if self.location == "meta" {
            let reason = "has no data: it was on the meta device when saved; save it once it has";
            return Err(Error::Unserved(reason.to_owned()));
        }
        let (start, size) = storages.locate(&self.key)?;
        let unit = self.unit();
        let (offset, count) = match self.view {
            Some(view) => (view.offset, view.count),
            None => (0, self.count),
        };
        let inner = offset.checked_mul(unit).zip(count.checked_mul(unit));
        let whole = self.view.is_some() || self.count.checked_mul(unit) == Some(size);
        match inner {
            Some((offset, bytes))
                if whole && offset.checked_add(bytes).is_some_and(|end| end <= size) =>
            {
                Ok(Place {
                    start: start + offset,
                    size: bytes,
                })
            }
            _ => refuse(format!(
                "claims {} elements of {unit} bytes in storage {:?}, which has {size} bytes",
                self.count, self.key
            )),
        }
    }
}

/// The name of a storage. litgpt's incremental save has its number in that place.
fn key(object: Object<'_>) -> Option<Cow<'_, str>> {
    let number = || Some(object.as_u64()?.to_string().into());
    object.as_str().map(Cow::Borrowed).or_else(number)
}

fn view(object: Object<'_>) -> Result<View<'_>> {
    let number = |index| object.item(index).and_then(Object::as_u64);
    match (
        object.item(0).and_then(Object::as_str),
        number(1),
        number(2),
    ) {
        (Some(key), Some(offset), Some(count)) => Ok(View { key, offset, count }),
        _ => refuse("is made from a broken view of a storage"),
    }
}

/// Keys of storages that the pickle names as two things: with two types, or as two views. torch keeps to the one that it
/// met first, for all tensors.
pub fn ambiguous(pickle: &Pickle) -> HashSet<String> {
    let mut met = HashMap::new();
    let mut ambiguous = HashSet::new();
    for id in pickle.persistent().filter_map(Object::persistent_id) {
        let class = id.item(1).and_then(Object::class_name);
        let Some(root) = id.item(2).and_then(key) else {
            continue;
        };
        let part = id.item(5).and_then(|part| view(part).ok());
        let whole = (root.clone(), (root.clone(), class, None));
        let part = part.map(|part| (Cow::Borrowed(part.key), (root, class, Some(part))));
        for (key, meaning) in [Some(whole), part].into_iter().flatten() {
            let known = met.entry(key).or_insert_with(|| meaning.clone());
            if *known != meaning {
                ambiguous.extend([known.0.to_string(), meaning.0.to_string()]);
            }
        }
    }
    ambiguous
}

/// Classes of `torch/storage.py`, of `torch` and, in old files, of `torch.cuda`.
fn storage_dtype(class: &str) -> Result<Option<Dtype>> {
    Ok(Some(match class {
        "UntypedStorage" | "_UntypedStorage" => return Ok(None),
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "ComplexFloatStorage" => Dtype::C64,
        other => {
            return Err(Error::Unserved(format!(
                "has a storage of class {}, which safetensors lacks; save it cast, or without it",
                other.escape_debug()
            )));
        }
    }))
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Mapping(reason.into()))
}

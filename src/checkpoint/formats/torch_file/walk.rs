//! Finds every tensor in a tree of dictionaries and lists.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::dtensor::Value;
use super::pickle::{Object, Pickle};
use super::{Storages, rebuild};
use crate::checkpoint::tensor_error::{named, unnamed};
use crate::error::{Error, Result};

/// Most levels of dictionaries and lists. A list that contains itself has no end.
const DEPTH_LIMIT: usize = 64;
/// Most keys and indices that the paths of all dictionaries, lists and objects have together, for each place of a value
/// that the pickle has, and in all. Few bytes may put lists into each other that share lists, so that no one can follow
/// every path.
const KEYS_PER_PLACE: usize = 16;
const FEW_KEYS: usize = 1 << 12;
const KEY_LIMIT: usize = 1 << 24;

/// Of a tensor whose name would be made up.
const UNNAMED: &str = "is a tensor under a key that is neither text nor an integer, which makes no name; save it under text";

/// A tensor's path of keys and indices, and what is known of it.
pub type Found = (Vec<String>, Result<Value>);

/// The tensors under `root` whose path `keep` wants. One that cannot be served is an error in its place.
pub fn tensors(
    pickle: &Pickle,
    storages: &Storages,
    keep: &dyn Fn(&[String]) -> bool,
) -> Result<Vec<Found>> {
    let mut walk = Walk {
        storages,
        keep,
        path: Vec::new(),
        keys_left: (FEW_KEYS + KEYS_PER_PLACE * pickle.places()).min(KEY_LIMIT),
        harmless: HashSet::new(),
        unnamed: 0,
        found: Vec::new(),
    };
    walk.visit(pickle.root())?;
    let mut found = walk.found;
    refuse_twins(&mut found, storages);
    Ok(found)
}

/// Puts an error in the place of each tensor whose name an earlier one has: an integer and a text may make one path.
fn refuse_twins(found: &mut [Found], storages: &Storages) {
    let mut names = HashSet::with_capacity(found.len());
    for (path, value) in found {
        let name = path.join(".");
        if !names.contains(&name) {
            names.insert(name);
            continue;
        }
        let reason = "is there twice, under keys that make one name; save it with other keys";
        *value = Err(named(
            Error::Mapping(reason.to_owned()),
            storages.file().path(),
            &name,
        ));
    }
}

/// A key of a dictionary, equal to another where Python's are.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(&'a str),
    Number(i64),
    Other(Object<'a>),
}

/// Up to here each integer has a floating-point number of its own.
const EXACT: f64 = (1u64 << 53) as f64;

impl<'a> Key<'a> {
    fn of(object: Object<'a>) -> Self {
        let number = object.as_i64().or(object.as_bool().map(i64::from));
        let whole = { object.as_f64() }.filter(|value| value.fract() == 0.0 && value.abs() < EXACT);
        match (object.as_str(), number.or(whole.map(|value| value as i64))) {
            (Some(text), _) => Self::Text(text),
            (None, Some(number)) => Self::Number(number),
            (None, None) => Self::Other(object),
        }
    }
}

/// The entries, of which a later one replaces an earlier one's value.
#[expect(
    clippy::mutable_key_type,
    reason = "the account of a pickle's memory is no part of what makes two keys equal"
)]
fn last_of_each<'a>(
    entries: impl Iterator<Item = (Object<'a>, Object<'a>)>,
) -> Vec<(Object<'a>, Object<'a>)> {
    let mut kept: Vec<(Object<'a>, Object<'a>)> = Vec::new();
    let mut places: HashMap<Key<'a>, usize> = HashMap::new();
    for (key, value) in entries {
        match places.entry(Key::of(key)) {
            Entry::Occupied(place) => {
                if let Some((_, own)) = kept.get_mut(*place.get()) {
                    *own = value;
                }
            }
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}

struct Walk<'a, 'k> {
    storages: &'k Storages,
    keep: &'k dyn Fn(&[String]) -> bool,
    path: Vec<String>,
    keys_left: usize,
    /// Values known to refer to no storage.
    harmless: HashSet<Object<'a>>,
    /// Keys of the path that make no name.
    unnamed: usize,
    found: Vec<Found>,
}

impl<'a> Walk<'a, '_> {
    fn visit(&mut self, object: Object<'a>) -> Result<()> {
        if object.is_mapping() {
            for (key, value) in last_of_each(object.entries()) {
                let unnamed = usize::from(key.as_str().is_none() && key.as_i64().is_none());
                self.unnamed += unnamed;
                self.enter(|| component(key), value)?;
                self.unnamed -= unnamed;
            }
        } else if object.is_sequence() {
            for (index, value) in object.items().enumerate() {
                self.enter(|| index.to_string(), value)?;
            }
        } else if (self.keep)(&self.path) {
            let value = self.leaf(object).transpose();
            self.found
                .extend(value.map(|value| (self.path.clone(), value)));
        }
        Ok(())
    }

    fn enter(&mut self, name: impl FnOnce() -> String, object: Object<'a>) -> Result<()> {
        if object.is_scalar() {
            return Ok(());
        }
        self.path.push(name());
        self.spend_keys()?;
        self.visit(object)?;
        self.path.pop();
        Ok(())
    }

    /// Takes the keys of this path off those that are left.
    fn spend_keys(&mut self) -> Result<()> {
        let refuse = |reason| Err(Error::malformed(self.storages.file().path(), reason));
        match self.keys_left.checked_sub(self.path.len()) {
            _ if self.path.len() > DEPTH_LIMIT => refuse(format!(
                "nests lists deeper than {DEPTH_LIMIT} levels, or in themselves"
            )),
            None => refuse("has lists in more places than any checkpoint".to_owned()),
            Some(left) => {
                self.keys_left = left;
                Ok(())
            }
        }
    }

    fn leaf(&mut self, object: Object<'a>) -> Result<Option<Value>> {
        let unknown = || match object.class_name() {
            Some(class) => format!(
                "is inside an object of class {}, whose form is unknown; save the state_dict instead",
                class.escape_debug()
            ),
            None => "is a storage without a shape; save the state_dict instead".to_owned(),
        };
        let value = match rebuild::value(object, self.storages) {
            Ok(None) if self.holds_storage(object) => Err(Error::Unserved(unknown())),
            Ok(Some(_)) if self.unnamed > 0 => Err(Error::Unserved(UNNAMED.to_owned())),
            value => value,
        };
        value.map_err(|error| self.about_this(error))
    }

    /// The error of the tensor at the path, or of the file if it holds no more than this.
    fn about_this(&self, error: Error) -> Error {
        let file = self.storages.file().path();
        match (error, self.path.is_empty()) {
            (Error::Unserved(reason), true) => {
                Error::checkpoint(file, format!("its only value {reason}"))
            }
            (error, true) => unnamed(error, file),
            (error, false) => named(error, file, &self.path.join(".")),
        }
    }

    /// Whether a storage, which no rule made a tensor of, can be reached from `object`.
    fn holds_storage(&mut self, object: Object<'a>) -> bool {
        let mut ahead = vec![object];
        while let Some(object) = ahead.pop() {
            if object.persistent_id().is_some() {
                return true;
            }
            if !object.is_scalar() && self.harmless.insert(object) {
                ahead.extend(object.children());
            }
        }
        false
    }
}

/// The part of a path that a dictionary's key makes: of one that makes no name, in brackets.
fn component(key: Object<'_>) -> String {
    match (key.as_str(), key.as_i64()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(number)) => number.to_string(),
        (None, None) => format!("<{}>", key.class_name().unwrap_or("key")),
    }
}

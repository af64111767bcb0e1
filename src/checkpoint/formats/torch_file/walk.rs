//! Finds every tensor in a tree of dictionaries and lists.

use std::collections::HashSet;

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
        found: Vec::new(),
    };
    walk.visit(pickle.root())?;
    Ok(walk.found)
}

struct Walk<'a, 'k> {
    storages: &'k Storages,
    keep: &'k dyn Fn(&[String]) -> bool,
    path: Vec<String>,
    keys_left: usize,
    /// Values known to refer to no storage.
    harmless: HashSet<Object<'a>>,
    found: Vec<Found>,
}

impl<'a> Walk<'a, '_> {
    fn visit(&mut self, object: Object<'a>) -> Result<()> {
        if object.is_mapping() {
            for (key, value) in object.entries() {
                self.enter(|| component(key), value)?;
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

/// The part of a path that a dictionary's key makes.
fn component(key: Object<'_>) -> String {
    match (key.as_str(), key.as_i64()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(number)) => number.to_string(),
        (None, None) => format!("<{}>", key.class_name().unwrap_or("key")),
    }
}

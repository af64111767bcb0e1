//! Addresses of objects: a store, and a key of plain names in it.
//!
//! A path that flows through the program as `s3://bucket/run/step-4000` is such an address. It never holds a query or a
//! password: these are taken off when the command line is read and kept by the connections.

use std::path::{Path, PathBuf};

use super::secrets;
use crate::error::{Error, Result};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    S3,
    Gcs,
    Azure,
    Http,
    Hub,
}

/// Schemes with which a path is an address.
const SCHEMES: [(&str, Scheme); 11] = [
    ("s3", Scheme::S3),
    ("s3a", Scheme::S3),
    ("gs", Scheme::Gcs),
    ("gcs", Scheme::Gcs),
    ("az", Scheme::Azure),
    ("abfs", Scheme::Azure),
    ("abfss", Scheme::Azure),
    ("azure", Scheme::Azure),
    ("http", Scheme::Http),
    ("https", Scheme::Http),
    ("hf", Scheme::Hub),
];

/// A store and a key in it. The key has no empty name, no `.` and no `..`; it is empty for the store itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub scheme: Scheme,
    /// The address of the store: `s3://bucket`, `https://host:8000`, `hf://org/repo@rev`.
    pub store: String,
    pub key: String,
}

impl Address {
    /// Takes a path apart. Returns `None` for a path of the local file system.
    ///
    /// # Errors
    /// When it begins as a URL does and is none that can be read.
    pub fn parse(path: &Path) -> Result<Option<Self>> {
        let Some((word, rest)) = path.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(None);
        };
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let refuse = |reason: &str| Err(Error::checkpoint(path, reason));
        let known = SCHEMES
            .iter()
            .find(|(known, _)| word.eq_ignore_ascii_case(known));
        let Some((_, scheme)) = known else {
            return refuse(
                "is a kind of URL that cannot be read; name a path, s3://, gs://, az://, https:// or hf://",
            );
        };
        let (store, key) = match scheme {
            Scheme::Hub => hub_store(rest),
            _ => {
                let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
                (authority.to_owned(), key.to_owned())
            }
        };
        if store.is_empty() || store.starts_with('@') {
            return refuse("names no store; write it as s3://BUCKET/FOLDER or hf://ORG/REPO");
        }
        let names: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
        let is_plain =
            |name: &&str| !matches!(*name, "." | "..") && !name.chars().any(char::is_control);
        if !names.iter().all(is_plain) {
            return refuse("has a part that no object can have; write the plain key");
        }
        Ok(Some(Self {
            scheme: *scheme,
            store: format!("{}://{store}", word.to_ascii_lowercase()),
            key: names.join("/"),
        }))
    }

    /// The key of `name` below this one.
    pub fn below(&self, name: &str) -> String {
        match &*self.key {
            "" => name.to_owned(),
            key => format!("{key}/{name}"),
        }
    }

    /// The path that stands for the address.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(match &*self.key {
            "" => self.store.clone(),
            key => format!("{}/{key}", self.store),
        })
    }
}

/// Whether a path is an address, be it one that cannot be read.
pub fn is_remote(path: &Path) -> bool {
    !matches!(Address::parse(path), Ok(None))
}

/// `ORG/REPO@REVISION` and the rest. A revision has a slash only after `refs`.
fn hub_store(rest: &str) -> (String, String) {
    let mut names = rest.split('/').filter(|name| !name.is_empty());
    let mut store: Vec<&str> = names.by_ref().take(2).collect();
    let is_ref = |store: &[&str]| store.last().is_some_and(|name| name.ends_with("@refs"));
    if is_ref(&store) {
        store.extend(names.by_ref().take(2));
    }
    (store.join("/"), names.collect::<Vec<_>>().join("/"))
}

/// Reads a path or URL of the command line: the query and the password of a URL go to the connections, and the path that
/// stands for the rest is returned. The URL of an index stands for its folder.
///
/// # Errors
/// When it begins as a URL does and is none that can be read.
pub fn admit(word: &Path) -> Result<PathBuf> {
    let Some(text) = word.to_str().filter(|text| text.contains("://")) else {
        return Ok(word.to_owned());
    };
    let (plain, secret) = secrets::taken_off(text);
    let Some(mut address) = Address::parse(Path::new(&plain))? else {
        return Ok(word.to_owned());
    };
    if address.scheme == Scheme::Http {
        address.key = decoded(&address.key);
        let folder = address
            .key
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned();
        if address.key.ends_with(".index.json") || address.key.ends_with(".metadata") {
            address.key = folder;
        }
    }
    let path = address.path();
    if let Some(secret) = secret {
        secrets::keep(&path, secret);
    }
    Ok(path)
}

/// A key without the percent signs of its URL.
fn decoded(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String) {
        let address = Address::parse(Path::new(text)).unwrap().unwrap();
        (address.store, address.key)
    }

    #[test]
    fn stores_and_keys_are_told_apart() {
        for (text, store, key) in [
            ("s3://b", "s3://b", ""),
            ("s3://b/a//c/", "s3://b", "a/c"),
            ("gs://b/a b%20", "gs://b", "a b%20"),
            ("https://h:1/x/y", "https://h:1", "x/y"),
            ("hf://org/repo", "hf://org/repo", ""),
            ("hf://org/repo@v1/sub/f", "hf://org/repo@v1", "sub/f"),
            ("hf://org/repo@refs/pr/3/f", "hf://org/repo@refs/pr/3", "f"),
            ("hf://gpt2", "hf://gpt2", ""),
        ] {
            assert_eq!(parts(text), (store.to_owned(), key.to_owned()), "{text}");
        }
        for path in ["/a/b", "a", "./s3://b", "C:/x"] {
            assert_eq!(Address::parse(Path::new(path)).unwrap(), None, "{path}");
        }
        for text in ["ftp://h/x", "s3://", "s3://b/../c", "hf://", "s3://b/a\n"] {
            assert!(Address::parse(Path::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_of_addresses_have_parents_and_join() {
        let path = Address::parse(Path::new("s3://b/a/"))
            .unwrap()
            .unwrap()
            .path();
        assert_eq!(path.join("c"), Path::new("s3://b/a/c"));
        assert_eq!(path.parent(), Some(Path::new("s3://b")));
    }

    #[test]
    fn secrets_do_not_stay_in_a_path() {
        let admitted = |text: &str| admit(Path::new(text)).unwrap().display().to_string();
        let shown = admitted("https://me:pw@h/x%20y/m.safetensors?X-Amz-Signature=s");
        assert_eq!(shown, "https://h/x y/m.safetensors");
        assert_eq!(
            admitted("https://h/m/model.safetensors.index.json"),
            "https://h/m"
        );
        assert_eq!(admitted("s3://b/a?c"), "s3://b/a?c");
    }
}

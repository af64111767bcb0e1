//! Places in the source, asked about in one way: paths of the local file system, and addresses of objects in their place.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::statx::{Attributes, Source};

#[cfg(feature = "remote")]
use super::remote::{self, Address, Found, Object};

/// An entry of a folder of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
}

/// Whether any source of this process is an object.
pub fn has_objects() -> bool {
    #[cfg(feature = "remote")]
    return remote::has_objects();
    #[cfg(not(feature = "remote"))]
    false
}

/// How far ahead of its readers a source may be fetched, in bytes.
pub fn foresight_limit() -> u64 {
    #[cfg(feature = "remote")]
    return remote::cache().limit() / 2;
    #[cfg(not(feature = "remote"))]
    0
}

/// Whether a path is the address of an object or of a folder of a store.
pub fn is_remote(path: &Path) -> bool {
    #[cfg(feature = "remote")]
    return remote::is_remote(path);
    #[cfg(not(feature = "remote"))]
    path.to_str().is_some_and(|text| text.contains("://"))
}

/// Reads a path or a URL of the command line: what is secret in a URL is kept apart from the path that stands for it.
///
/// # Errors
/// When it begins as a URL does and is none that can be read.
pub fn admit(word: &Path) -> Result<PathBuf> {
    #[cfg(feature = "remote")]
    return remote::admit(word);
    #[cfg(not(feature = "remote"))]
    Ok(word.to_owned())
}

/// The path that leads there from any working directory.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match is_remote(path) {
        true => Ok(path.to_owned()),
        false => std::path::absolute(path),
    }
}

/// The path without links.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    match is_remote(path) {
        true => Ok(path.to_owned()),
        false => path.canonicalize(),
    }
}

/// The attributes of what `path` leads to. Objects can be read by all and were made when they were written.
pub fn attributes(path: &Path, source: Source) -> Result<Attributes> {
    match is_remote(path) {
        true => far::attributes(path),
        false => Attributes::at(path, source).map_err(|error| Error::io(path, error)),
    }
}

/// Whether there is anything, where that can be told.
pub fn exists(path: &Path) -> Result<bool> {
    match is_remote(path) {
        true => far::exists(path),
        false => Ok(path.try_exists().unwrap_or(true)),
    }
}

pub fn is_folder(path: &Path) -> bool {
    attributes(path, Source::Cache).is_ok_and(|found| found.is_folder())
}

pub fn is_file(path: &Path) -> bool {
    attributes(path, Source::Cache).is_ok_and(|found| found.is_file())
}

/// The entries of a folder of a store, sorted.
pub fn list(path: &Path) -> Result<Vec<Entry>> {
    far::list(path)
}

/// The attributes of an object in the version that was opened.
#[cfg(feature = "remote")]
pub(super) fn attributes_of(object: &Object) -> Attributes {
    far::made_of(libc::S_IFREG | 0o444, object.version().ok().as_ref())
}

#[cfg(not(feature = "remote"))]
mod far {
    use super::{Attributes, Entry, Error, Path, Result};

    fn refuse<T>(path: &Path) -> Result<T> {
        let reason = "cannot be read: this ckptfs was built without the feature remote";
        Err(Error::checkpoint(path, reason))
    }

    pub fn attributes(path: &Path) -> Result<Attributes> {
        refuse(path)
    }

    pub fn exists(path: &Path) -> Result<bool> {
        refuse(path)
    }

    pub fn list(path: &Path) -> Result<Vec<Entry>> {
        refuse(path)
    }
}

#[cfg(feature = "remote")]
mod far {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::time::SystemTime;

    use nix::unistd::{getegid, geteuid};

    use super::{Address, Attributes, Entry, Error, Found, Path, Result, io, remote};
    use crate::source::remote::Version;

    fn address(path: &Path) -> Result<Address> {
        let parsed = Address::parse(path)?;
        parsed.ok_or_else(|| Error::checkpoint(path, "is no URL; name one"))
    }

    pub fn attributes(path: &Path) -> Result<Attributes> {
        match remote::find(&address(path)?)? {
            Some(Found::Folder) => Ok(made_of(libc::S_IFDIR | 0o555, None)),
            Some(Found::File(version)) => Ok(made_of(libc::S_IFREG | 0o444, Some(&version))),
            None => Err(Error::io(path, io::ErrorKind::NotFound.into())),
        }
    }

    pub fn exists(path: &Path) -> Result<bool> {
        Ok(remote::find(&address(path)?)?.is_some())
    }

    pub fn list(path: &Path) -> Result<Vec<Entry>> {
        let listing = remote::list(&address(path)?)?;
        let entry = |name: &String, is_folder| Entry {
            name: name.clone(),
            is_folder,
        };
        let files = listing.files.keys().map(|name| entry(name, false));
        let folders = listing.folders.iter().map(|name| entry(name, true));
        let mut entries: Vec<Entry> = files.chain(folders).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Attributes of an object, whose inode changes with its version, or of a folder.
    pub fn made_of(mode: u32, version: Option<&Version>) -> Attributes {
        let mut hasher = DefaultHasher::new();
        let modified = version.map(|version| {
            (&version.etag, &version.generation, version.size).hash(&mut hasher);
            version.modified.duration_since(SystemTime::UNIX_EPOCH)
        });
        let since = modified
            .and_then(std::result::Result::ok)
            .unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let time = (seconds, i64::from(since.subsec_nanos()));
        Attributes {
            device: (0, 0),
            inode: hasher.finish(),
            size: version.map_or(0, |version| version.size),
            mode,
            links: 1,
            owner: (geteuid().as_raw(), getegid().as_raw()),
            modified: time,
            changed: time,
            born: Some(time),
        }
    }
}

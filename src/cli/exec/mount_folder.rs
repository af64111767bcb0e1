//! The private directory of a mount that lasts as long as a command.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// An empty directory inside one that only its owner may enter. Removed when dropped.
pub struct MountFolder {
    private: PathBuf,
    point: PathBuf,
}

impl MountFolder {
    /// The directory is named like the source: programs show that name as the model's.
    pub fn make(source: &Path) -> anyhow::Result<Self> {
        let private = private_directory().context("a temporary directory")?;
        let source = fs::canonicalize(source)?;
        let point = private.join(source.file_name().unwrap_or("checkpoint".as_ref()));
        let place = Self { private, point };
        fs::create_dir(&place.point).context("a temporary directory")?;
        Ok(place)
    }

    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for MountFolder {
    /// Never recursively: what is mounted here is not ours to remove.
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.point).and_then(|()| fs::remove_dir(&self.private));
        if let Err(error) = removed {
            tracing::warn!("{}: {error}; it is left behind", self.private.display());
        }
    }
}

/// A directory that did not exist before, so that nobody else can have prepared it.
fn private_directory() -> io::Result<PathBuf> {
    let process = std::process::id();
    for number in 0.. {
        let path = std::env::temp_dir().join(format!("ckptfs-{process}-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

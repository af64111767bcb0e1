//! Arguments that are a path or a URL, and the options of reading from stores.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::size;
use crate::error::{Error, Result};
use crate::source::place;

/// A path or a URL, whose query and password are kept apart from it.
pub fn source() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|word| match word.is_empty() {
        true => Err(io::Error::other("is empty; name a path or a URL")),
        false => place::admit(Path::new(&word)).map_err(io::Error::other),
    })
}

/// The folder for temporary files. A variable that is set to nothing counts as one that is not set.
pub fn temporary_folder() -> PathBuf {
    let folder = std::env::temp_dir();
    match folder.as_os_str().is_empty() {
        true => PathBuf::from("/tmp"),
        false => folder,
    }
}

/// Refuses an option that shares extents or pages of local files, for a source in a store.
pub fn check_is_local(source: &Path, option: &str) -> Result<()> {
    match place::is_remote(source) {
        true => Err(Error::Usage(format!(
            "{option}: {} lies in a store, whose bytes the kernel cannot share; leave {option} out",
            source.display()
        ))),
        false => Ok(()),
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sources in stores (s3://, gs://, az://, https://, hf://)")]
pub struct StoreOptions {
    /// Memory for blocks of objects, fetched ahead of their readers
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "256MiB")]
    source_cache: u64,
    /// Repeat failing requests for so many seconds, after which the read fails
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    source_retry: u64,
}

impl StoreOptions {
    /// Makes them hold for the process.
    pub fn apply(&self) {
        #[cfg(feature = "remote")]
        {
            use crate::source::remote;
            remote::cache().set_limit(self.source_cache);
            remote::set_budget(self.source_retry);
        }
    }
}

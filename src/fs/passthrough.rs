//! Files that the kernel reads from the source itself, at the source's own speed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{BackingId, ReplyOpen};

use crate::error::Result;
use crate::output::VirtualFile;
use crate::read::passthrough_source;
use crate::source::SourceFile;

/// The decision at the first open of each file: the kernel does not allow a mixture.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    wanted: bool,
    offered: AtomicBool,
    decided: Mutex<HashMap<u64, Option<Backing>>>,
}

/// A source file as the kernel knows it.
#[derive(Debug, Clone)]
pub(super) struct Backing {
    source: Arc<SourceFile>,
    pub id: Arc<BackingId>,
}

impl Passthrough {
    pub fn new(wanted: bool) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Says that the kernel offers it.
    pub fn offer(&self) {
        self.offered.store(true, Ordering::Relaxed);
    }

    /// Returns the source file that the kernel reads in place of `file`.
    ///
    /// # Errors
    /// When the source is no longer what it was.
    pub fn backing(
        &self,
        inode: u64,
        file: &VirtualFile,
        reply: &ReplyOpen,
    ) -> Result<Option<Backing>> {
        if !self.offered.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let known = self.decided(|decided| decided.get(&inode).cloned());
        let backing = match known {
            Some(backing) => backing,
            None => {
                let backing = self.decide(file, reply)?;
                self.decided(|decided| decided.entry(inode).or_insert(backing).clone())
            }
        };
        if let Some(backing) = &backing {
            backing.source.checked_handle()?;
        }
        Ok(backing)
    }

    fn decide(&self, file: &VirtualFile, reply: &ReplyOpen) -> Result<Option<Backing>> {
        let Some(source) = passthrough_source(file)?.filter(|source| !source.is_remote()) else {
            return Ok(None);
        };
        match reply.open_backing(&*source.checked_handle()?) {
            Ok(id) => {
                let path = source.path().display();
                tracing::info!("{}: the kernel reads {path} itself", file.path());
                Ok(Some(Backing {
                    source: source.clone(),
                    id: Arc::new(id),
                }))
            }
            Err(error) => {
                self.offered.store(false, Ordering::Relaxed);
                tracing::debug!("no passthrough: {error}");
                Ok(None)
            }
        }
    }

    fn decided<T>(&self, f: impl FnOnce(&mut HashMap<u64, Option<Backing>>) -> T) -> T {
        f(&mut self.decided.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

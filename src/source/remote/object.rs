//! An object: one version of it, read in ranges. An answer counts only if it is of that version and of the whole range.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectStore};

use super::failure::{Attempt, Failure};
use super::patience::Patience;
use super::version::{Pin, Version};

/// The slowest rate at which a range may come, in bytes a second: an answer that drips is one that does not come.
const SLOWEST: u64 = 64 << 10;

/// One version of an object.
#[derive(Debug)]
pub struct Object {
    store: Arc<dyn ObjectStore>,
    key: Key,
    shown: PathBuf,
    size: u64,
    modified: std::time::SystemTime,
    pin: Pin,
}

impl Object {
    pub fn new(store: Arc<dyn ObjectStore>, key: Key, shown: PathBuf, version: Version) -> Self {
        Self {
            store,
            key,
            shown,
            size: version.size,
            modified: version.modified,
            pin: Pin::new(version),
        }
    }

    pub fn path(&self) -> &Path {
        &self.shown
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn modified(&self) -> std::time::SystemTime {
        self.modified
    }

    /// # Errors
    /// When an answer was of another version.
    pub fn check(&self) -> Attempt<()> {
        self.pin.version().map(drop).map_err(Failure::Changed)
    }

    /// The version that is held now.
    pub fn version(&self) -> Attempt<Version> {
        self.pin.version().map_err(Failure::Changed)
    }

    /// All bytes of `range`. A failure that passes is endured, and what came before it is kept.
    pub async fn fetch(&self, range: Range<u64>) -> Attempt<Bytes> {
        let length = range.end.saturating_sub(range.start);
        if range.end > self.size {
            return Err(Failure::Changed("it is shorter".to_owned()));
        }
        let mut body = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        let mut patience = Patience::longer_by(Duration::from_secs(length / SLOWEST));
        while (body.len() as u64) < length {
            let before = body.len();
            let rest = range.start + before as u64..range.end;
            let outcome = self.attempt(rest, &mut body).await;
            if body.len() > before {
                patience.reward();
            }
            match outcome {
                Ok(()) => {}
                Err(failure) => {
                    if let Failure::Changed(what) = &failure {
                        self.pin.condemn(what);
                    }
                    patience.endure(failure).await?;
                }
            }
        }
        Ok(body.freeze())
    }

    /// Appends what one answer brings of `range`, and no more than that.
    async fn attempt(&self, range: Range<u64>, body: &mut BytesMut) -> Attempt<()> {
        let pinned = self.version()?;
        let options = GetOptions::new()
            .with_range(Some(range.clone()))
            .with_if_match(pinned.strong_etag());
        let answer = self.store.get_opts(&self.key, options).await;
        let answer = answer.map_err(|error| Failure::of(&error))?;
        self.pin
            .hold(&Version::of(&answer.meta))
            .map_err(Failure::Changed)?;
        if answer.range != range {
            return Err(Failure::Broken("an answer for another range".to_owned()));
        }
        let mut left = range.end - range.start;
        let mut stream = answer.into_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| Failure::of(&error))?;
            left = left
                .checked_sub(part.len() as u64)
                .ok_or_else(|| Failure::Broken("an answer that is too long".to_owned()))?;
            body.extend_from_slice(&part);
        }
        match left {
            0 => Ok(()),
            _ => Err(Failure::Broken("an answer that broke off".to_owned())),
        }
    }
}

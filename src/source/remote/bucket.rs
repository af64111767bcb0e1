//! Stores that this process has connections to, and what was listed in them lately.
//!
//! A listing is kept for a moment: opening a checkpoint looks at its folder many times and asks for it once, and a run on a
//! store costs one listing of its folder in each such moment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use object_store::ObjectStore;

use super::address::{Address, Scheme};
use super::connect;
use super::failure::{Attempt, Failure};
use super::hub::Hub;
use super::listing::{self, Listing};
use super::object::Object;
use super::runtime;
use super::secrets::{self, Secret};
use super::version::Version;
use crate::error::{Error, Result};

/// How old a listing may be.
pub const FRESH: Duration = Duration::from_secs(10);

/// Listings that are kept at most.
const KEPT: usize = 1024;

/// A store and its latest listings.
#[derive(Debug)]
pub struct Bucket {
    scheme: Scheme,
    store: Arc<dyn ObjectStore>,
    hub: Option<Hub>,
    listings: Mutex<HashMap<String, (Instant, Arc<Listing>)>>,
}

/// The thing that an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Folder,
    File(Version),
}

/// An object to read, or the file of the local hub cache that has its bytes.
#[derive(Debug)]
pub enum Opened {
    Object(Object),
    Cached(PathBuf),
}

type Connected = HashMap<(String, Secret), Arc<Bucket>>;

/// Returns the connection to the store of an address.
fn connected(address: &Address) -> Result<Arc<Bucket>> {
    static CONNECTED: LazyLock<Mutex<Connected>> = LazyLock::new(Mutex::default);
    let path = address.path();
    let key = (address.store.clone(), secrets::of(&path));
    let mut connected = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bucket) = connected.get(&key) {
        return Ok(bucket.clone());
    }
    let bucket =
        Bucket::open(address, &key.1).map_err(|failure| failure.at(Path::new(&address.store)))?;
    let bucket = Arc::new(bucket);
    connected.insert(key, bucket.clone());
    Ok(bucket)
}

/// Lists the folder at an address.
pub fn list(address: &Address) -> Result<Arc<Listing>> {
    let bucket = connected(address)?;
    bucket
        .list(&address.key)
        .map_err(|failure| failure.at(&address.path()))
}

/// Returns what lies at an address, if anything does.
pub fn find(address: &Address) -> Result<Option<Found>> {
    let bucket = connected(address)?;
    bucket
        .find(&address.key)
        .map_err(|failure| failure.at(&address.path()))
}

/// Opens the object at an address, in the version in which it lies there now or was listed a moment ago.
pub fn open(address: &Address) -> Result<Opened> {
    let path = address.path();
    let bucket = connected(address)?;
    let opened = bucket
        .opened(&address.key, &path)
        .map_err(|failure| failure.at(&path))?;
    opened.ok_or_else(|| Error::absent(&path, "name an object of the store"))
}

impl Bucket {
    fn open(address: &Address, secret: &Secret) -> Attempt<Self> {
        runtime::handle().map_err(|error| Failure::Unusable(error.to_string()))?;
        let named = address.store.split_once("://").map_or("", |(_, name)| name);
        let mut hub = None;
        let store = match address.scheme {
            Scheme::S3 => connect::s3(named)?,
            Scheme::Gcs => connect::gcs(named)?,
            Scheme::Azure => connect::azure(&address.store)?,
            Scheme::Http => connect::http(&address.store, secret)?,
            Scheme::Hub => hub.insert(Hub::open(named)?).store.clone(),
        };
        Ok(Self {
            scheme: address.scheme,
            store,
            hub,
            listings: Mutex::default(),
        })
    }

    fn list(&self, key: &str) -> Attempt<Arc<Listing>> {
        if let Some(known) = self.known(key) {
            return Ok(known);
        }
        let (store, wanted) = (self.store.clone(), key.to_owned());
        let listed = match (&self.hub, self.scheme) {
            (Some(hub), _) => hub.list(key),
            (None, Scheme::Http) => wait(listing::of_web_folder(store, wanted))?,
            (None, _) => wait(listing::of_bucket(store, wanted))?,
        };
        Ok(self.keep(key, listed))
    }

    fn known(&self, key: &str) -> Option<Arc<Listing>> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, listing) = listings.get(key)?;
        // Commits stay as they are, and what a web server was asked for one by one is asked for once.
        let stays = matches!(self.scheme, Scheme::Hub | Scheme::Http);
        (stays || at.elapsed() < FRESH).then(|| listing.clone())
    }

    fn keep(&self, key: &str, listed: Listing) -> Arc<Listing> {
        let listed = Arc::new(listed);
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.len() >= KEPT {
            listings.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if listings.len() < KEPT {
            listings.insert(key.to_owned(), (Instant::now(), listed.clone()));
        }
        listed
    }

    /// Looks first at what the folder above was listed with, then for a file by the name of one, else for a folder.
    fn find(&self, key: &str) -> Attempt<Option<Found>> {
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        if let Some(above) = self.known(folder).filter(|_| !name.is_empty()) {
            if let Some(version) = above.files.get(name) {
                return Ok(Some(Found::File(version.clone())));
            }
            // A web server was not asked for every name.
            if self.scheme != Scheme::Http {
                return Ok(above.folders.contains(name).then_some(Found::Folder));
            }
        }
        if is_files_name(name)
            && let Some(version) = self.version(key)?
        {
            return Ok(Some(Found::File(version)));
        }
        if !self.list(key)?.is_empty() {
            return Ok(Some(Found::Folder));
        }
        match name {
            "" => Ok(Some(Found::Folder)),
            _ => Ok(self.version(key)?.map(Found::File)),
        }
    }

    fn version(&self, key: &str) -> Attempt<Option<Version>> {
        let (store, key) = (self.store.clone(), key.to_owned());
        match (&self.hub, self.scheme) {
            (Some(hub), _) => Ok(hub.files.get(&key).cloned()),
            (None, Scheme::Http) => wait(listing::of_file(store, key)),
            (None, _) => wait(listing::of_object(store, key)),
        }
    }

    fn opened(&self, key: &str, path: &Path) -> Attempt<Option<Opened>> {
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let listed = self.known(folder);
        let listed = listed.and_then(|listed| listed.files.get(name).cloned());
        let version = match listed {
            Some(version) => Some(version),
            None => self.version(key)?,
        };
        let Some(version) = version else {
            return Ok(None);
        };
        let cached = self
            .hub
            .as_ref()
            .and_then(|hub| hub.cached(key, version.size));
        if let Some(cached) = cached {
            return Ok(Some(Opened::Cached(cached)));
        }
        let key = listing::parsed(key)?;
        let object = Object::new(self.store.clone(), key, path.to_owned(), version);
        Ok(Some(Opened::Object(object)))
    }
}

impl Found {
    pub fn modified(&self) -> SystemTime {
        match self {
            Self::File(version) => version.modified,
            Self::Folder => SystemTime::UNIX_EPOCH,
        }
    }
}

/// Whether a name ends as those of files of weights do: then it is asked for before a folder of that name is listed.
fn is_files_name(name: &str) -> bool {
    const ENDS: [&str; 7] = [
        ".safetensors",
        ".pt",
        ".pth",
        ".bin",
        ".ckpt",
        ".json",
        ".metadata",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

fn wait<T: Send + 'static>(work: impl Future<Output = Attempt<T>> + Send + 'static) -> Attempt<T> {
    runtime::wait(work).map_err(|error| Failure::Broken(error.to_string()))?
}

//! By what an object is known to be the one that was opened.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use object_store::ObjectMeta;

/// The version of an object as a listing or an answer tells it. Listings leave out generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub etag: Option<String>,
    pub generation: Option<String>,
    pub size: u64,
    pub modified: SystemTime,
}

impl Version {
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            etag: meta.e_tag.clone(),
            generation: meta.version.clone(),
            size: meta.size,
            modified: meta.last_modified.into(),
        }
    }

    /// The ETag for `If-Match`: in quotes, which Azure's listings leave out, and never a weak one.
    pub fn strong_etag(&self) -> Option<String> {
        let strong = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        strong.map(|etag| format!("\"{}\"", bare(etag)))
    }
}

/// The version against which every answer is held. What the first answer adds to a listing is held from then on, and the
/// first difference condemns the object for good.
#[derive(Debug)]
pub struct Pin(Mutex<Result<Version, String>>);

impl Pin {
    pub fn new(version: Version) -> Self {
        Self(Mutex::new(Ok(version)))
    }

    /// # Errors
    /// The difference, be it an earlier one.
    pub fn hold(&self, answer: &Version) -> Result<(), String> {
        let mut pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = pinned.as_mut().map_err(|what| what.clone())?;
        let difference = difference(version, answer);
        match difference {
            None => {
                version.etag = version.etag.take().or_else(|| answer.etag.clone());
                let generation = version.generation.take();
                version.generation = generation.or_else(|| answer.generation.clone());
                Ok(())
            }
            Some(what) => {
                *pinned = Err(what.clone());
                Err(what)
            }
        }
    }

    /// Notes that the store said the object is another one.
    pub fn condemn(&self, what: &str) {
        let mut pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.is_ok() {
            *pinned = Err(what.to_owned());
        }
    }

    /// The version that requests ask for.
    ///
    /// # Errors
    /// The difference that was found before.
    pub fn version(&self) -> Result<Version, String> {
        let pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.clone()
    }
}

fn difference(pinned: &Version, answer: &Version) -> Option<String> {
    let differ = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => bare(a) != bare(b),
        _ => false,
    };
    if pinned.size != answer.size {
        Some(format!("size {} was {}", answer.size, pinned.size))
    } else if differ(&pinned.etag, &answer.etag) {
        Some("ETag".to_owned())
    } else if differ(&pinned.generation, &answer.generation) {
        Some("generation".to_owned())
    } else if pinned.etag.is_none() && answer.etag.is_none() && seconds(pinned) != seconds(answer) {
        Some("modification time".to_owned())
    } else {
        None
    }
}

/// An ETag as all kinds of answers write it: Azure puts quotes around it everywhere but in listings.
fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// HTTP counts seconds, listings count fractions. A server that tells no time is not held by it.
fn seconds(version: &Version) -> Option<u64> {
    let since = version
        .modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn version(etag: Option<&str>, generation: Option<&str>, size: u64, second: u64) -> Version {
        Version {
            etag: etag.map(str::to_owned),
            generation: generation.map(str::to_owned),
            size,
            modified: SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1000 + 7),
        }
    }

    #[test]
    fn the_first_difference_condemns_for_good() {
        let same = version(Some("\"a\""), None, 5, 1);
        for (other, what) in [
            (version(Some("\"b\""), None, 5, 1), "ETag"),
            (version(Some("\"a\""), None, 6, 1), "size 6 was 5"),
        ] {
            let pin = Pin::new(version(Some("a"), None, 5, 1));
            assert_eq!(pin.hold(&same), Ok(()));
            assert_eq!(pin.hold(&other), Err(what.to_owned()));
            assert_eq!(pin.hold(&same), Err(what.to_owned()));
            assert!(pin.version().is_err());
        }
    }

    #[test]
    fn what_the_first_answer_adds_is_held() {
        let pin = Pin::new(version(None, None, 5, 1));
        assert_eq!(pin.hold(&version(Some("\"a\""), Some("7"), 5, 9)), Ok(()));
        assert_eq!(pin.hold(&version(Some("\"a\""), Some("7"), 5, 9)), Ok(()));
        assert!(pin.hold(&version(Some("\"a\""), Some("8"), 5, 9)).is_err());
        let pin = Pin::new(version(None, None, 5, 1));
        assert!(pin.hold(&version(None, None, 5, 2)).is_err());
    }
}

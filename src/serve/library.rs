//! The checkpoints that are served: one checkpoint, or the saves of a run, each opened when it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::output::{Fingerprint, VirtualFile, hex};
use crate::run::{LATEST, Run, Save};
use crate::tree::Tree;

/// Makes the files of one checkpoint.
pub type Open = dyn Fn(&Path) -> Result<Vec<VirtualFile>> + Send + Sync;

/// Saves that stay open.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Digits of a commit.
const COMMIT: usize = 40;

/// The revision that is asked for when none is named.
pub const MAIN: &str = "main";

/// A file of a snapshot.
#[derive(Debug, Clone)]
pub struct Item {
    pub file: Arc<VirtualFile>,
    /// In quotes. Equal as long as the file is made of the same bytes in the same way.
    pub etag: String,
}

/// The files of a checkpoint at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Forty digits, as of a commit.
    pub commit: String,
    pub files: BTreeMap<String, Item>,
    pub modified: SystemTime,
}

/// The checkpoints that are served.
pub enum Library {
    Checkpoint(Arc<Snapshot>),
    Run {
        run: Box<Run>,
        open: Box<Open>,
        opened: Mutex<LruCache<String, (Save, Arc<Snapshot>)>>,
    },
}

impl Library {
    /// # Errors
    /// When two files have one path.
    pub fn of(files: Vec<VirtualFile>) -> Result<Self> {
        Ok(Self::Checkpoint(Arc::new(Snapshot::of(files)?)))
    }

    /// The saves of a run, whose files `open` makes.
    pub fn of_run(run: Run, open: Box<Open>) -> Self {
        Self::Run {
            run: Box::new(run),
            open,
            opened: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// The names of saves that have ended, none for one checkpoint.
    pub fn saves(&self) -> Vec<String> {
        let Self::Run { run, .. } = self else {
            return Vec::new();
        };
        let mut names = run.names().unwrap_or_default();
        names.retain(|name| run.save(name).is_some_and(|save| save.has_ended));
        names
    }

    /// Whether it is a run.
    pub fn is_run(&self) -> bool {
        matches!(self, Self::Run { .. })
    }

    /// The snapshot that a revision names: `main`, a save, or a commit of one that is open. `None` where it names nothing.
    pub fn revision(&self, revision: &str) -> Result<Option<Arc<Snapshot>>> {
        match self {
            Self::Checkpoint(snapshot) => {
                let is_it = matches!(revision, MAIN | LATEST) || revision == snapshot.commit;
                Ok(is_it.then(|| snapshot.clone()))
            }
            Self::Run { run, .. } if matches!(revision, MAIN | LATEST) => match run.latest()? {
                Some(save) => self.save(&save.name),
                None => Ok(None),
            },
            Self::Run { opened, .. } => {
                let opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                let is_it = |(_, (_, snapshot)): &(&String, &(Save, Arc<Snapshot>))| {
                    snapshot.commit == revision
                };
                let known = opened
                    .iter()
                    .find(is_it)
                    .map(|(_, (_, known))| known.clone());
                drop(opened);
                known.map_or_else(|| self.save(revision), |known| Ok(Some(known)))
            }
        }
    }

    /// The snapshot of the save called `name`.
    pub fn save(&self, name: &str) -> Result<Option<Arc<Snapshot>>> {
        let Self::Run { run, open, opened } = self else {
            return Ok(None);
        };
        let Some(save) = run.save(name).filter(|save| save.has_ended) else {
            return Ok(None);
        };
        if let Some((known, snapshot)) = lock(opened).get(name)
            && known.is(&save)
        {
            return Ok(Some(snapshot.clone()));
        }
        if let Some(rewritten) = &save.rewritten {
            return Err(rewritten.error());
        }
        let part = save.model();
        let part = part.strip_prefix(&format!("{name}/")).map(str::to_owned);
        let place = run.place(&save, part.as_deref())?;
        let snapshot = Arc::new(Snapshot::of(open(&place)?)?);
        lock(opened).put(name.to_owned(), (save, snapshot.clone()));
        Ok(Some(snapshot))
    }
}

type Opened = LruCache<String, (Save, Arc<Snapshot>)>;

fn lock(opened: &Mutex<Opened>) -> std::sync::MutexGuard<'_, Opened> {
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshot {
    fn of(files: Vec<VirtualFile>) -> Result<Self> {
        let mut commit = Sha256::new();
        let mut items = BTreeMap::new();
        let mut modified = UNIX_EPOCH;
        for file in Tree::new(files)?.into_files() {
            let fingerprint = Fingerprint::of(&[(*file).clone()])?.to_string();
            commit.update(&fingerprint);
            let digits = hex(&Sha256::digest(&fingerprint));
            modified = modified.max(time(file.attributes().modified));
            let etag = format!("\"{digits}\"");
            items.insert(file.path().to_owned(), Item { file, etag });
        }
        let digits = hex(&commit.finalize());
        let commit = digits.get(..COMMIT).map(str::to_owned);
        let bug = || Error::Mapping("a sum has too few digits".to_owned());
        Ok(Self {
            commit: commit.ok_or_else(bug)?,
            files: items,
            modified,
        })
    }

    /// Files and folders right below `folder`, which has no slash at its end.
    pub fn folder<'s>(&'s self, folder: &str) -> (Vec<(&'s str, &'s Item)>, BTreeSet<&'s str>) {
        let start = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let (mut files, mut folders) = (Vec::new(), BTreeSet::new());
        for (path, item) in &self.files {
            let Some(rest) = path.strip_prefix(&start) else {
                continue;
            };
            match rest.find('/') {
                None => files.push((&**path, item)),
                Some(at) => {
                    folders.extend(path.get(..start.len() + at));
                }
            }
        }
        (files, folders)
    }
}

/// When the newest source of a file was written.
pub fn modified(item: &Item) -> SystemTime {
    time(item.file.attributes().modified)
}

/// A time since the epoch.
fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let since = Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

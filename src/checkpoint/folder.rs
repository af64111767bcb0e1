//! The folder of a checkpoint: the only way to open anything in it.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::de::DeserializeOwned;

use super::foreign;
use super::links::resolve;
use crate::error::{Error, INCOMPLETE, Result};
use crate::source::{Budget, Charge, SourceFile, place};
use crate::statx::{Attributes, Source};

/// Largest file of parameters.
const JSON_LIMIT: u64 = 4 << 20;

/// Memory that each byte of parameters may take as a value: an array of digits has one for every two.
const JSON_COST: u64 = 40;

/// Copies that a parser makes of a string: in its buffer, which doubles, and quoted in the message that refuses it.
const STRING_COST: u64 = 6;

/// Memory that each quote of an index may take: an entry has four of them, and two strings in a vector that doubles.
const QUOTE_COST: u64 = 50;

/// More than huggingface_hub's record of a download has.
const RECORD_LIMIT: u64 = 1024;

/// A folder inside a checkpoint. Names lead to regular files inside the checkpoint's root and nowhere else.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    path: PathBuf,
    /// In a Hugging Face cache, where the links of `snapshots/REVISION` lead: `blobs` of the same repository.
    blobs: Option<PathBuf>,
    budget: Budget,
}

/// Bounds the memory that a document of strings takes while it is read.
pub fn cost_of_strings(json: &[u8]) -> u64 {
    let quotes = json.iter().filter(|byte| **byte == b'"').count() as u64;
    2 * json.len() as u64 + QUOTE_COST * quotes + cost_of_longest(json)
}

/// Bounds the memory that a parser takes for the longest string of a document.
pub fn cost_of_longest(json: &[u8]) -> u64 {
    let strings = json.split(|byte| *byte == b'"');
    let longest = strings.map(<[u8]>::len).max().unwrap_or(0);
    match longest as u64 {
        short @ ..4096 => short,
        long => STRING_COST * long,
    }
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self> {
        let root = canonical(path)?;
        if !place::is_folder(&root) {
            let reason = "not a folder; name the folder that holds the files";
            return Err(Error::checkpoint(path, reason));
        }
        Ok(Self {
            blobs: hub_blobs(&root),
            path: root.clone(),
            root,
            budget: Budget::unlimited(),
        })
    }

    /// The same folder, the metadata of its files charged to `budget`.
    pub fn within(self, budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            ..self
        }
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of everything that is no folder, sorted. What turns out not to be a regular file is refused when opened.
    pub fn names(&self) -> Result<Vec<String>> {
        self.entries(false)
    }

    /// Names of the folders in this one, sorted.
    pub fn folders(&self) -> Result<Vec<String>> {
        self.entries(true)
    }

    pub fn subfolder(&self, relative: &str) -> Result<Self> {
        let path = self.locate(relative)?;
        if !place::is_folder(&path) {
            let reason = format!("not a folder: {INCOMPLETE}");
            return Err(Error::checkpoint(&path, reason));
        }
        Ok(Self {
            path,
            ..self.clone()
        })
    }

    /// Whether `relative` is a name that this folder may have and has.
    pub fn exists(&self, relative: &str) -> bool {
        is_inner(relative) && self.metadata(relative).is_ok()
    }

    pub fn has_folder(&self, name: &str) -> bool {
        self.metadata(name).is_ok_and(|found| found.is_folder())
    }

    /// Of what `relative` leads to, be it outside the checkpoint.
    pub fn metadata(&self, relative: &str) -> Result<Attributes> {
        let path = match self.is_remote() {
            true => self.path.join(relative),
            false => resolve(&self.path, Path::new(relative))?,
        };
        place::attributes(&path, Source::Cache)
    }

    /// Whether the folder is one of a store.
    fn is_remote(&self) -> bool {
        place::is_remote(&self.path)
    }

    pub fn open_file(&self, relative: &str) -> Result<Arc<SourceFile>> {
        SourceFile::open_within(&self.locate(relative)?, &self.budget)
    }

    /// Whether `name` is a file that huggingface_hub downloaded and that was not written since: a blob of a hub cache, or one of
    /// which `hf download --local-dir` keeps a record with the time (huggingface_hub 1.6, `_local_folder.py`).
    pub fn is_download(&self, name: &str) -> bool {
        let record = format!(".cache/huggingface/download/{name}.metadata");
        let is_recorded = || {
            let text = String::from_utf8(self.read_small(&record, RECORD_LIMIT).ok()?).ok()?;
            let recorded: f64 = text.lines().nth(2)?.trim().parse().ok()?;
            let written = self.metadata(name).ok()?.written();
            let written = written.duration_since(UNIX_EPOCH).ok()?;
            Some(written.as_secs_f64() <= recorded + 1.0)
        };
        let target = self.locate(name).ok();
        let is_blob = target.zip(self.blobs.as_ref());
        is_blob.is_some_and(|(target, blobs)| target.parent() == Some(blobs))
            || self.exists(&record) && is_recorded().unwrap_or(false)
    }

    /// Charges memory for what the metadata in a file tells of.
    pub fn charge(&self, name: &str, bytes: u64) -> Result<Charge> {
        self.budget.charge(&self.path.join(name), bytes)
    }

    /// How many bytes all files but `name` have together.
    pub fn bytes_beside(&self, name: &str) -> Result<u64> {
        let others = self.names()?.into_iter().filter(|other| other != name);
        let sizes = others.filter_map(|other| self.metadata(&other).ok());
        Ok(sizes.fold(0, |sum, file| sum.saturating_add(file.size)))
    }

    /// The whole of a file that has at most `limit` bytes.
    pub fn read_small(&self, relative: &str, limit: u64) -> Result<Vec<u8>> {
        self.read_charged(relative, limit).map(|(bytes, _)| bytes)
    }

    /// The same, with the charge for its bytes.
    pub fn read_charged(&self, relative: &str, limit: u64) -> Result<(Vec<u8>, Charge)> {
        let file = self.open_file(relative)?;
        match usize::try_from(file.size()) {
            Ok(size) if file.size() <= limit => {
                let charge = file.charge(file.size())?;
                let mut bytes = vec![0; size];
                file.read_exact_at(&mut bytes, 0)?;
                Ok((bytes, charge))
            }
            _ => Err(Error::malformed(
                file.path(),
                format!(
                    "has {} bytes, more than the {limit} that such a file may have",
                    file.size()
                ),
            )),
        }
    }

    /// The document in a file of parameters.
    pub fn json<T: DeserializeOwned>(&self, relative: &str) -> Result<T> {
        let cost = |bytes: &[u8]| JSON_COST * bytes.len() as u64;
        self.document(relative, JSON_LIMIT, cost)
    }

    /// The document in a file that has at most `limit` bytes, made of strings alone.
    pub fn json_of_strings<T: DeserializeOwned>(&self, relative: &str, limit: u64) -> Result<T> {
        self.document(relative, limit, cost_of_strings)
    }

    fn document<T: DeserializeOwned>(
        &self,
        relative: &str,
        limit: u64,
        cost: impl Fn(&[u8]) -> u64,
    ) -> Result<T> {
        let path = self.path.join(relative);
        let (bytes, mut charge) = self.read_charged(relative, limit)?;
        charge.cover_for(&path, cost(&bytes))?;
        serde_json::from_slice(&bytes).map_err(|error| foreign::no_json(&path, &bytes, &error))
    }

    /// A view that is mounted on a folder is none: who lists it may be the one who serves it.
    fn is_folder(&self, entry: &DirEntry) -> bool {
        match entry.file_type() {
            Ok(kind) if kind.is_symlink() || kind.is_dir() => {
                let target = resolve(&self.path, Path::new(&entry.file_name()));
                target.is_ok_and(|target| kind.is_dir() || target.is_dir())
            }
            _ => false,
        }
    }

    /// Names of the entries that are folders, or of those that are not.
    fn entries(&self, are_folders: bool) -> Result<Vec<String>> {
        if self.is_remote() {
            let mut entries = place::list(&self.path)?;
            entries.retain(|entry| entry.is_folder == are_folders);
            return Ok(entries.into_iter().map(|entry| entry.name).collect());
        }
        let failed = |error| Error::io(&self.path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if self.is_folder(&entry) == are_folders {
                // What is no UTF-8 gets a name that leads nowhere: it may be missed, but not passed over.
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Where `relative` leads.
    ///
    /// # Errors
    /// When that is outside the checkpoint, or nowhere.
    pub fn locate(&self, relative: &str) -> Result<PathBuf> {
        if !is_inner(relative) {
            return Err(Error::checkpoint(
                &self.path,
                format!(
                    "its index or metadata names the file {relative:?}, which is no plain path inside the checkpoint; put the real name there, or take another save"
                ),
            ));
        }
        let path = self.path.join(relative);
        if self.is_remote() {
            return Ok(path);
        }
        let target = resolve(&self.path, Path::new(relative))?;
        let is_blob = |blobs: &PathBuf| target.parent() == Some(blobs) && target.is_file();
        if target.starts_with(&self.root) || self.blobs.as_ref().is_some_and(is_blob) {
            return Ok(target);
        }
        Err(Error::checkpoint(
            &path,
            format!(
                "is a link to {}, outside the checkpoint; put the file itself here",
                target.display()
            ),
        ))
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    place::canonical(path).map_err(|error| Error::io(path, error))
}

/// Whether a path has names alone: no root, no `..`, nothing that another system reads as a root.
fn is_inner(relative: &str) -> bool {
    let drive = relative.as_bytes().get(1) == Some(&b':');
    !drive
        && !relative.contains(['\0', '\\'])
        && relative
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".."))
}

/// `REPO/blobs` for a folder at or below `REPO/snapshots/REVISION` (huggingface_hub, guide "Understand caching").
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root
        .ancestors()
        .skip(1)
        .find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?;
    let blobs = repository.join("blobs");
    let real = resolve(repository, Path::new("blobs")).ok()?;
    (real == blobs && real.is_dir()).then_some(blobs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn checkpoint() -> (tempfile::TempDir, Folder) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("repo/snapshots/rev");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("b.json"), "{\"a\": [1]}").unwrap();
        fs::write(root.join("a.bin"), "12345").unwrap();
        fs::write(outer.path().join("secret"), "s").unwrap();
        let folder = Folder::open(&root).unwrap();
        (outer, folder)
    }

    #[test]
    fn names_are_sorted_and_apart_from_folders() {
        let (_outer, folder) = checkpoint();
        assert_eq!(folder.names().unwrap(), ["a.bin", "b.json"]);
        assert_eq!(folder.folders().unwrap(), ["sub"]);
    }

    #[test]
    fn only_plain_paths_are_followed() {
        let (_outer, folder) = checkpoint();
        for path in [
            "",
            ".",
            "..",
            "../secret",
            "sub/../a.bin",
            "/etc/passwd",
            "C:\\x",
            "C:x",
            "a\0",
            "a//b",
            "sub/",
        ] {
            let error = folder.open_file(path).unwrap_err().to_string();
            assert!(error.contains("no plain path"), "{path:?}: {error}");
            assert!(!folder.exists(path));
        }
        assert_eq!(folder.open_file("a.bin").unwrap().size(), 5);
    }

    #[test]
    fn links_out_of_the_checkpoint_are_refused() {
        let (outer, folder) = checkpoint();
        symlink(outer.path().join("secret"), folder.path().join("out")).unwrap();
        symlink(outer.path(), folder.path().join("up")).unwrap();
        symlink("../a.bin", folder.path().join("sub/in")).unwrap();
        symlink("/", folder.path().join("slash")).unwrap();
        assert!(folder.open_file("out").is_err());
        assert!(folder.subfolder("slash").is_err());
        assert!(folder.open_file("up/secret").is_err());
        assert!(folder.subfolder("up").is_err());
        assert_eq!(
            folder
                .subfolder("sub")
                .unwrap()
                .open_file("in")
                .unwrap()
                .size(),
            5
        );
    }

    #[test]
    fn links_into_the_blobs_of_a_hub_cache_are_followed() {
        let (outer, folder) = checkpoint();
        fs::create_dir(outer.path().join("repo/blobs")).unwrap();
        fs::write(outer.path().join("repo/blobs/0123"), "blob").unwrap();
        symlink("../../blobs/0123", folder.path().join("model.safetensors")).unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        assert_eq!(folder.read_small("model.safetensors", 4).unwrap(), b"blob");
    }

    #[test]
    fn a_link_that_comes_after_the_look_leads_nowhere() {
        let (outer, folder) = checkpoint();
        let inside = |name: &str| folder.path().join(name);
        fs::write(inside("sub/secret"), "mine").unwrap();
        let sub = folder.subfolder("sub").unwrap();
        let places = [
            folder.locate("a.bin").unwrap(),
            sub.locate("secret").unwrap(),
        ];
        fs::remove_file(inside("a.bin")).unwrap();
        symlink(outer.path().join("secret"), inside("a.bin")).unwrap();
        fs::rename(inside("sub"), inside("moved")).unwrap();
        symlink(outer.path(), inside("sub")).unwrap();
        for place in places {
            assert_eq!(fs::read(&place).unwrap(), b"s");
            assert!(SourceFile::open(&place).is_err(), "{}", place.display());
        }
        assert!(sub.open_file("secret").is_err());
    }

    #[test]
    fn only_regular_files_of_the_right_size_are_read() {
        let (_outer, folder) = checkpoint();
        assert!(folder.open_file("sub").is_err());
        assert!(folder.read_small("a.bin", 4).is_err());
        assert!(
            folder
                .json::<serde_json::Value>("a.bin")
                .unwrap()
                .is_number()
        );
        assert!(folder.json::<Vec<u8>>("b.json").is_err());
    }
}

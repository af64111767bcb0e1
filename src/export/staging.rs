//! The temporary directory of an export: its files, and the journal of the pieces that are safe on disk.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::pieces::Piece;
use super::target::Target;
use super::{Progress, parallel};
use crate::error::{Error, Result};
use crate::output::VirtualFile;
use crate::read;

/// Bytes read and written at a time.
const BLOCK: usize = 4 << 20;

/// One process' hold on the temporary directory. It lies in a private directory until it gets its name.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    journal: File,
    done: HashSet<Piece>,
}

impl Staging {
    /// The directory, made where it is not there yet. Held by one process at a time.
    pub fn open(target: &Target) -> Result<Self> {
        let root = &target.staging;
        let failed = |error: io::Error| Error::unwritable(root, &error);
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_own(root)?,
            result => result.map_err(failed)?,
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let journal = options.open(root.join("journal")).map_err(failed)?;
        // SAFETY: flock takes numbers alone, and the descriptor is open.
        if unsafe { libc::flock(journal.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(Error::target(
                &target.path,
                "another export to it is under way",
            ));
        }
        let done = HashSet::new();
        Ok(Self {
            root: root.clone(),
            journal,
            done,
        })
    }

    /// Keeps what an interrupted export of this fingerprint left, and nothing else.
    pub fn resume(&mut self, fingerprint: &str) -> Result<()> {
        let mut bytes = Vec::new();
        self.journal
            .read_to_end(&mut bytes)
            .map_err(|error| self.fault(error))?;
        // A crash may leave anything in lines that were not yet on disk.
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once('\n') {
            Some((first, pieces)) if first == fingerprint => {
                self.done = pieces.split_inclusive('\n').filter_map(piece).collect();
                // A torn line must not run into the next.
                let end = if text.ends_with('\n') { "" } else { "\n" };
                self.journal
                    .write_all(end.as_bytes())
                    .map_err(|error| self.fault(error))
            }
            _ => self.start(fingerprint),
        }
    }

    fn start(&mut self, fingerprint: &str) -> Result<()> {
        let cleared = match fs::remove_dir_all(self.files()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        cleared
            .and_then(|()| self.journal.set_len(0))
            .and_then(|()| writeln!(self.journal, "{fingerprint}"))
            .and_then(|()| self.journal.sync_all())
            .map_err(|error| self.fault(error))
    }

    /// Makes every file in its size, readable to no more users than in the view. Pieces of a lost file are not done.
    pub fn make(&mut self, files: &[VirtualFile]) -> Result<()> {
        let mut inodes = HashSet::new();
        for (number, file) in files.iter().enumerate() {
            let path = self.path(file);
            if !fs::metadata(&path).is_ok_and(|found| found.len() == file.size()) {
                self.done.retain(|piece| piece.file != number);
            }
            let made = directories(&path).and_then(|()| {
                let mode = u32::from(file.attributes().mode) | 0o600;
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(mode);
                let made = options.open(&path)?;
                made.set_len(file.size())?;
                Ok(made.metadata()?.ino())
            });
            let inode = made.map_err(|error| Error::unwritable(&path, &error))?;
            if !inodes.insert(inode) {
                let reason = "is another file of the view already: this filesystem does not tell capital letters from small ones";
                return Err(Error::target(&path, reason));
            }
        }
        Ok(())
    }

    /// Whether the piece is on disk since an earlier export.
    pub fn has(&self, piece: &Piece) -> bool {
        self.done.contains(piece)
    }

    /// Writes a piece, and remembers it once it is safe.
    pub fn write(&self, piece: &Piece, file: &VirtualFile, progress: &dyn Progress) -> Result<()> {
        let path = self.path(file);
        let failed = |error: io::Error| Error::unwritable(&path, &error);
        let target = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        let mut block = vec![0; BLOCK.min(piece.length() as usize)];
        for start in (piece.start..piece.end).step_by(BLOCK) {
            let block = &mut block[..BLOCK.min((piece.end - start) as usize)];
            read::read_at(file, start, block)?;
            target.write_all_at(block, start).map_err(failed)?;
            progress.advance(block.len() as u64);
        }
        target.sync_data().map_err(failed)?;
        let line = format!("{} {} {}\n", piece.file, piece.start, piece.end);
        (&self.journal)
            .write_all(line.as_bytes())
            .map_err(|error| self.fault(error))
    }

    /// Takes the directory away, unless an earlier export left `done` in it.
    pub fn leave_nothing_new(&self, done: &[Piece]) {
        if done.is_empty()
            && let Err(error) = fs::remove_dir_all(&self.root)
        {
            tracing::warn!("{}: {error}; it is left behind", self.root.display());
        }
    }

    /// What was written stays, sizes and names included.
    pub fn sync(&self, files: &[VirtualFile]) -> Result<()> {
        parallel::try_each(parallel::usual_threads(), files, |file| {
            let path = self.path(file);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|error| Error::unwritable(&path, &error))
        })
    }

    /// Gives the finished directory its name.
    pub fn commit(self, target: &Target) -> Result<()> {
        let failed = |error: io::Error| Error::unwritable(&target.path, &error);
        sync_directories(&self.files()).map_err(failed)?;
        // From here on the journal tells of files that are elsewhere.
        self.journal.set_len(0).map_err(failed)?;
        fs::rename(self.files(), &target.path).map_err(failed)?;
        fs::remove_dir_all(&self.root).map_err(failed)?;
        File::open(&target.parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)
    }

    pub fn path(&self, file: &VirtualFile) -> PathBuf {
        self.files().join(file.path())
    }

    /// The directory that becomes the target.
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn fault(&self, error: io::Error) -> Error {
        Error::unwritable(&self.root, &error)
    }
}

/// Refuses a directory that someone else may have prepared: with links in it, an export would write where they lead.
fn check_own(root: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::unwritable(root, &error);
    let metadata = fs::symlink_metadata(root).map_err(failed)?;
    // SAFETY: geteuid takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    match metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(Error::target(
            root,
            "is in the way and was not left by an export of yours; remove it, or name another destination",
        )),
    }
}

/// A whole line of the journal; a torn one at its end tells nothing.
fn piece(line: &str) -> Option<Piece> {
    let mut numbers = line.strip_suffix('\n')?.split(' ');
    let piece = Piece {
        file: numbers.next()?.parse().ok()?,
        start: numbers.next()?.parse().ok()?,
        end: numbers.next()?.parse().ok()?,
    };
    numbers.next().is_none().then_some(piece)
}

fn directories(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_lines_of_the_journal_tell_nothing() {
        let whole = Piece {
            file: 1,
            start: 2,
            end: 30,
        };
        assert_eq!(piece("1 2 30\n"), Some(whole));
        for line in ["1 2 30", "1 2\n", "1 2 x\n", "1 2 3 4\n", "\n", ""] {
            assert_eq!(piece(line), None, "{line:?}");
        }
    }

    #[test]
    fn names_that_are_one_file_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let target = Target::check(&parent.path().join("out"), Path::new("/usr")).unwrap();
        let mut staging = Staging::open(&target).unwrap();
        // What a filesystem makes of two names that it takes for one.
        fs::create_dir(staging.files()).unwrap();
        fs::write(staging.files().join("a.npy"), "").unwrap();
        fs::hard_link(staging.files().join("a.npy"), staging.files().join("A.npy")).unwrap();
        let file = |name| crate::output::inline_file(name, vec![0; 9], None);
        assert!(staging.make(&[file("a.npy"), file("b.npy")]).is_ok());
        let error = staging.make(&[file("A.npy"), file("a.npy")]).unwrap_err();
        assert!(error.to_string().contains("capital letters"), "{error}");
    }
}

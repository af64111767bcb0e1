//! The temporary directory of an export: its files, and the journal of the pieces that are safe on disk.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

use super::options::Progress;
use super::pieces::Piece;
use super::target::Target;
use crate::destination::Directory;
use crate::error::{Error, Result};
use crate::output::{Fingerprint, Match, VirtualFile};
use crate::parallel;
use crate::read::Reader;

/// Bytes read and written at a time.
const BLOCK: usize = 4 << 20;

/// The directory that becomes the target.
const FILES: &str = "files";

const JOURNAL: &str = "journal";

/// A file that is there for a moment.
const PROBE: &str = "probe";

/// One process' hold on the temporary directory. Until it gets its name it lies in a directory of this user alone, which is held by
/// its descriptor: whatever comes under its path meanwhile is not written to.
#[derive(Debug)]
pub struct Staging {
    /// Where it was made, for messages.
    path: PathBuf,
    root: Directory,
    journal: Flock<File>,
    done: HashSet<Piece>,
    reader: Reader,
}

impl Staging {
    /// The directory, made where it is not there yet. Held by one process at a time.
    pub fn open(target: &Target) -> Result<Self> {
        let path = target.staging_path();
        let failed = |error: io::Error| Error::unwritable(&path, &error);
        let root = match target.parent.make(&target.staging) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                target.parent.enter(&target.staging)
            }
            made => made,
        };
        let is_no_directory =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP));
        let root = match root {
            Err(error) if is_no_directory(&error) => return Err(in_the_way(&path)),
            root => root.map_err(failed)?,
        };
        if !is_own(&root).map_err(failed)? {
            return Err(in_the_way(&path));
        }
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT;
        let journal = root.open_file(Path::new(JOURNAL), flags, 0o600);
        let journal = Flock::lock(journal.map_err(failed)?, FlockArg::LockExclusiveNonblock);
        let under_way = |_| Error::target(&target.path, "another export to it is under way");
        Ok(Self {
            journal: journal.map_err(under_way)?,
            path,
            root,
            done: HashSet::new(),
            reader: Reader::default(),
        })
    }

    /// Keeps what an interrupted export of the same view and sources left, and nothing else.
    pub fn resume(&mut self, fingerprint: &Fingerprint, files: &[VirtualFile]) -> Result<()> {
        let mut bytes = Vec::new();
        (&*self.journal)
            .read_to_end(&mut bytes)
            .map_err(|error| self.fault(error))?;
        // A crash may leave anything in lines that were not yet on disk.
        let text = String::from_utf8_lossy(&bytes);
        let (first, pieces) = text.split_once('\n').unwrap_or_default();
        match fingerprint.compare(first) {
            Match::Whole => {
                self.done = pieces.split_inclusive('\n').filter_map(piece).collect();
                if self.has_files(files) {
                    // A torn line must not run into the next.
                    let end = if text.ends_with('\n') { "" } else { "\n" };
                    return self.append(end);
                }
            }
            Match::ViewAlone => tracing::warn!(
                "{}: a source file was replaced, or its change time moved, since the export was interrupted; it starts anew",
                self.path.display()
            ),
            Match::None if first.is_empty() => {}
            Match::None => tracing::warn!(
                "{}: the view is not the one of the export that was interrupted (another config.json, source, option or version of ckptfs); it starts anew",
                self.path.display()
            ),
        }
        self.start(fingerprint)
    }

    fn start(&mut self, fingerprint: &Fingerprint) -> Result<()> {
        self.done.clear();
        self.remove(FILES)
            .and_then(|()| self.journal.set_len(0))
            .and_then(|()| writeln!(&*self.journal, "{fingerprint}"))
            .and_then(|()| self.journal.sync_all())
            .map_err(|error| self.fault(error))
    }

    /// Whether every file that pieces were written to is there, in its size.
    fn has_files(&self, files: &[VirtualFile]) -> bool {
        let written: HashSet<usize> = self.done.iter().map(|piece| piece.file).collect();
        written.into_iter().all(|number| {
            let file = files.get(number);
            file.is_some_and(|file| {
                let found = self.open_file(file, OFlag::O_RDONLY);
                found
                    .and_then(|found| found.metadata())
                    .is_ok_and(|found| found.len() == file.size())
            })
        })
    }

    /// Makes every file in its size, readable to no more users than in the view.
    pub fn make(&self, files: &[VirtualFile]) -> Result<()> {
        let mut inodes = HashSet::new();
        for file in files {
            let path = self.path(file);
            let inode = self.make_file(file);
            let inode = inode.map_err(|error| Error::unwritable(&path, &error))?;
            if !inodes.insert(inode) {
                let reason = "is another file of the view already: this filesystem does not tell capital letters from small ones";
                return Err(Error::target(&path, reason));
            }
        }
        Ok(())
    }

    /// Returns the number of its inode.
    fn make_file(&self, file: &VirtualFile) -> io::Result<u64> {
        let below = below(file);
        self.root.make_folders_of(&below)?;
        let mode = u32::from(file.attributes().mode) | 0o600;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        let made = self.root.open_file(&below, flags, mode)?;
        made.set_len(file.size())?;
        Ok(made.metadata()?.ino())
    }

    /// Whether the piece is on disk since an earlier export.
    pub fn has(&self, piece: &Piece) -> bool {
        self.done.contains(piece)
    }

    /// Writes a piece, and remembers it once it is safe.
    pub fn write(&self, piece: &Piece, file: &VirtualFile, progress: &dyn Progress) -> Result<()> {
        let failed = |error: io::Error| Error::unwritable(&self.path(file), &error);
        let target = self.open_file(file, OFlag::O_WRONLY).map_err(failed)?;
        let mut block = vec![0; BLOCK.min(piece.length() as usize)];
        for start in (piece.start..piece.end).step_by(BLOCK) {
            let block = &mut block[..BLOCK.min((piece.end - start) as usize)];
            self.reader.read_at(file, start, block)?;
            target.write_all_at(block, start).map_err(failed)?;
            progress.advance(block.len() as u64);
        }
        target.sync_data().map_err(failed)?;
        self.append(&format!("{} {} {}\n", piece.file, piece.start, piece.end))
    }

    fn append(&self, line: &str) -> Result<()> {
        (&*self.journal)
            .write_all(line.as_bytes())
            .map_err(|error| self.fault(error))
    }

    /// Takes the directory away, unless an earlier export left `done` in it.
    pub fn leave_nothing_new(self, target: &Target, done: &[Piece]) {
        if done.is_empty() {
            self.leave(target);
        }
    }

    /// Makes all that was written durable, sizes and names included.
    pub fn sync(&self, files: &[VirtualFile]) -> Result<()> {
        parallel::try_each(parallel::usual_threads(), files, |file| {
            let synced = self
                .open_file(file, OFlag::O_RDONLY)
                .and_then(|file| file.sync_all());
            synced.map_err(|error| Error::unwritable(&self.path(file), &error))
        })
    }

    /// Gives the finished directory its name, which nothing may have by now.
    pub fn commit(self, target: &Target) -> Result<()> {
        let failed = |error: io::Error| Error::unwritable(&target.path, &error);
        let files = self.root.enter(OsStr::new(FILES)).map_err(failed)?;
        files.sync_all().map_err(failed)?;
        let renamed = self
            .root
            .rename_to(OsStr::new(FILES), &target.parent, &target.name);
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => target.is_taken(),
            _ => failed(error),
        })?;
        self.leave(target);
        target.parent.sync().map_err(failed)
    }

    fn leave(&self, target: &Target) {
        if let Err(error) = self.clear(target) {
            tracing::warn!("{}: {error}; it is left behind", self.path.display());
        }
    }

    /// Takes away all that lies in the directory, and the directory itself where it still has its name.
    fn clear(&self, target: &Target) -> io::Result<()> {
        for name in [FILES, PROBE, JOURNAL] {
            self.remove(name)?;
        }
        target.parent.remove_directory(&target.staging, &self.root)
    }

    /// Removes what there may be under `name`.
    fn remove(&self, name: &str) -> io::Result<()> {
        match self.root.remove_all(OsStr::new(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    pub fn open_file(&self, file: &VirtualFile, flags: OFlag) -> io::Result<File> {
        self.root.open_file(&below(file), flags, 0)
    }

    /// Opens a file that becomes one of the target's, emptied or made.
    pub fn open_beside(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        self.root
            .open_file(&Path::new(FILES).join(name), flags, 0o666)
    }

    /// Lets `try_it` write to a file that is removed again.
    pub fn probe<T>(&self, try_it: impl FnOnce(&File, &Path) -> Result<T>) -> Result<T> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        let probe = self.root.open_file(Path::new(PROBE), flags, 0o600);
        let result = try_it(&probe.map_err(|error| self.fault(error))?, &self.path);
        self.remove(PROBE).map_err(|error| self.fault(error))?;
        result
    }

    /// Unit in which its filesystem shares bytes.
    pub fn block(&self) -> Result<u64> {
        let found = self.root.stat().map_err(|error| self.fault(error))?;
        let block = u64::try_from(found.st_blksize).unwrap_or_default();
        Ok(block.max(4096).next_power_of_two())
    }

    /// Where a file was made, for messages.
    pub fn path(&self, file: &VirtualFile) -> PathBuf {
        self.path.join(below(file))
    }

    fn fault(&self, error: io::Error) -> Error {
        Error::unwritable(&self.path, &error)
    }
}

fn below(file: &VirtualFile) -> PathBuf {
    Path::new(FILES).join(file.path())
}

fn in_the_way(path: &Path) -> Error {
    let reason = "is in the way and was not left by an export of yours; remove it, or name another destination";
    Error::target(path, reason)
}

/// Whether a directory was made by an export of this user, and no other user can write to it.
fn is_own(root: &Directory) -> io::Result<bool> {
    let found = root.stat()?;
    let is_closed = found.st_mode & 0o022 == 0;
    let is_ours =
        is_closed && (found.st_uid == geteuid().as_raw() || found.st_uid == owner_of_new(root)?);
    let is_known = |name: &OsString| [FILES, JOURNAL, PROBE].iter().any(|known| name == known);
    Ok(is_ours && root.names()?.iter().all(is_known))
}

/// Whom the filesystem takes this user for: not root, where it comes from another machine.
fn owner_of_new(root: &Directory) -> io::Result<u32> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let probe = root.open_file(Path::new(PROBE), flags, 0o600)?;
    root.remove_all(OsStr::new(PROBE))?;
    Ok(probe.metadata()?.uid())
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

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
        let staging = Staging::open(&target).unwrap();
        // What a filesystem makes of two names that it takes for one.
        let files = staging.path.join(FILES);
        fs::create_dir(&files).unwrap();
        fs::write(files.join("a.npy"), "").unwrap();
        fs::hard_link(files.join("a.npy"), files.join("A.npy")).unwrap();
        let file = |name| crate::output::inline_file(name, vec![0; 9], None);
        assert!(staging.make(&[file("a.npy"), file("b.npy")]).is_ok());
        let error = staging.make(&[file("A.npy"), file("a.npy")]).unwrap_err();
        assert!(error.to_string().contains("capital letters"), "{error}");
    }

    #[test]
    fn a_directory_of_this_user_that_no_export_left_is_in_the_way() {
        let parent = tempfile::tempdir().unwrap();
        let target = Target::check(&parent.path().join("out"), Path::new("/usr")).unwrap();
        let staging = target.staging_path();
        fs::create_dir_all(staging.join("files")).unwrap();
        fs::write(staging.join("notes.txt"), "precious").unwrap();
        let error = Staging::open(&target).unwrap_err().to_string();
        assert!(error.contains("is in the way"), "{error}");
        fs::remove_dir_all(&staging).unwrap();
        symlink(parent.path(), &staging).unwrap();
        assert!(Staging::open(&target).is_err());
    }

    #[test]
    fn what_lies_under_the_path_by_now_is_neither_written_nor_removed() {
        let parent = tempfile::tempdir().unwrap();
        let target = Target::check(&parent.path().join("out"), Path::new("/usr")).unwrap();
        let staging = Staging::open(&target).unwrap();
        let victim = parent.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::rename(&staging.path, parent.path().join("mine")).unwrap();
        fs::create_dir_all(staging.path.join(FILES)).unwrap();
        symlink(&victim, staging.path.join(FILES).join("a")).unwrap();
        let file = crate::output::inline_file("a", vec![7; 9], None);
        staging.make(std::slice::from_ref(&file)).unwrap();
        let piece = Piece {
            file: 0,
            start: 0,
            end: 9,
        };
        struct Silent;
        impl Progress for Silent {
            fn begin(&self, _: super::super::options::Step, _: u64, _: u64) {}
            fn advance(&self, _: u64) {}
        }
        staging.write(&piece, &file, &Silent).unwrap();
        let planted = staging.path.join(FILES).join("a");
        staging.commit(&target).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(planted.is_symlink());
        assert_eq!(fs::read(target.path.join("a")).unwrap(), [7; 9]);
    }

    #[test]
    fn what_came_under_the_name_meanwhile_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let target = Target::check(&parent.path().join("out"), Path::new("/usr")).unwrap();
        let staging = Staging::open(&target).unwrap();
        let file = crate::output::inline_file("a", vec![7; 9], None);
        staging.make(&[file]).unwrap();
        fs::create_dir(&target.path).unwrap();
        let error = staging.commit(&target).unwrap_err().to_string();
        assert!(error.contains("nothing is overwritten"), "{error}");
        assert_eq!(fs::read_dir(&target.path).unwrap().count(), 0);
    }
}

//! Directories that are written to, held by descriptor: one that another user renames or replaces meanwhile changes nothing about
//! where bytes go, and no link below it is followed.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Links on one path, as for the kernel.
const MOST_LINKS: usize = 40;

/// Flags for a directory that is only passed through.
const PASSED: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A directory that is written to.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at a canonical path. A link that was put there since is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::walk(path, |_, _| false)
    }

    /// Opens the directory `path`. A link on the way is followed where no other user can have put it there.
    pub fn open_by_trusted_links(path: &Path) -> io::Result<Self> {
        Self::walk(&std::path::absolute(path)?, is_trusted)
    }

    fn walk(path: &Path, follows: impl Fn(&FileStat, &FileStat) -> bool) -> io::Result<Self> {
        let mut at = Self::root()?;
        let mut ahead: VecDeque<OsString> = path.components().map(name_of).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == "/" {
                at = Self::root()?;
                continue;
            }
            let found = at.look(&name)?;
            if !is_kind(&found, SFlag::S_IFLNK) {
                at = Self(openat(&at, &*name, PASSED, Mode::empty())?);
                continue;
            }
            links += 1;
            if links > MOST_LINKS || !follows(&fstat(&at)?, &found) {
                return Err(untrusted(&name));
            }
            let target = PathBuf::from(readlinkat(&at, &*name)?);
            for component in target.components().rev() {
                ahead.push_front(name_of(component));
            }
        }
        Ok(at)
    }

    fn root() -> io::Result<Self> {
        Ok(Self(open("/", PASSED, Mode::empty())?))
    }

    pub fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(self)?)
    }

    /// Returns the attributes of `name`, which may be a link.
    pub fn look(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(self, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Makes a directory of this user alone where there is none yet, and enters it.
    pub fn make(&self, name: &OsStr) -> io::Result<Self> {
        mkdirat(self, name, Mode::S_IRWXU)?;
        self.enter(name)
    }

    /// Opens a directory that lies directly in this one.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(openat(self, name, PASSED, Mode::empty())?))
    }

    /// Opens the file at a path below the directory, of which no part may be a link.
    pub fn open_file(&self, below: &Path, flags: OFlag, mode: u32) -> io::Result<File> {
        self.in_folder_of(below, |folder, name| {
            let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            Ok(openat(folder, name, flags, Mode::from_bits_truncate(mode))?.into())
        })
    }

    /// Makes the folders of a path below the directory that are not there yet.
    pub fn make_folders_of(&self, below: &Path) -> io::Result<()> {
        let mut at = self.enter(OsStr::new("."))?;
        for folder in below.parent().into_iter().flat_map(Path::components) {
            let name = plain(folder)?;
            match mkdirat(&at, name, Mode::from_bits_truncate(0o777)) {
                Err(Errno::EEXIST) | Ok(()) => at = at.enter(name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Calls `act` with the folder of a path below the directory, and the last name.
    fn in_folder_of<T>(
        &self,
        below: &Path,
        act: impl FnOnce(&Self, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut names = below
            .components()
            .map(plain)
            .collect::<io::Result<Vec<_>>>()?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = self.enter(OsStr::new("."))?;
        for name in names {
            at = at.enter(name)?;
        }
        act(&at, last)
    }

    /// The names in the directory.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut directory = Dir::openat(self, ".", LISTED, Mode::empty())?;
        let names = directory.iter().map(|entry| {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            Ok(name)
        });
        let is_other =
            |name: &io::Result<OsString>| !matches!(name, Ok(name) if name == "." || name == "..");
        names.filter(is_other).collect()
    }

    /// Removes what stands under `name` and all below it. Links are removed, not followed.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(self, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            result => return Ok(result?),
        }
        let inside = self.enter(name)?;
        for name in inside.names()? {
            inside.remove_all(&name)?;
        }
        Ok(unlinkat(self, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Moves the directory `name` to `new` in the directory `to`, where nothing may stand.
    pub fn rename_to(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        match rename_to_new(self, name, to, new) {
            // Filesystems that cannot rename so replace an empty directory: this user's, made in the same moment.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                mkdirat(to, new, Mode::S_IRWXU)?;
                Ok(nix::fcntl::renameat(self, name, to, new)?)
            }
            result => result,
        }
    }

    /// Removes the empty directory `name`, where that still is the one that is `held`.
    pub fn remove_directory(&self, name: &OsStr, held: &Self) -> io::Result<()> {
        let (found, own) = (self.look(name)?, held.stat()?);
        match (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
            true => Ok(unlinkat(self, name, UnlinkatFlags::RemoveDir)?),
            false => Err(io::Error::other("another one has its name by now")),
        }
    }

    /// Has the names in it on disk, where this user may list them.
    pub fn sync(&self) -> io::Result<()> {
        match openat(self, ".", LISTED, Mode::empty()) {
            Ok(directory) => File::from(directory).sync_all(),
            Err(Errno::EACCES) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the names in it and in all directories below on disk.
    pub fn sync_all(&self) -> io::Result<()> {
        for name in self.names()? {
            if is_kind(&self.look(&name)?, SFlag::S_IFDIR) {
                self.enter(&name)?.sync_all()?;
            }
        }
        self.sync()
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Flags for a directory whose names are read.
const LISTED: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

/// Opens a log to append to, made where it is not there yet. In a directory where another user can put links, none is followed,
/// and no file that has a second name is taken.
pub fn open_log(path: &Path) -> io::Result<File> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = Directory::open_by_trusted_links(&folder_of(path))?;
    // Readable too: a FIFO would wait for its other end.
    let flags =
        OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let is_trusted = folder.look(name).is_ok_and(|found| {
        folder
            .stat()
            .is_ok_and(|folder| is_trusted(&folder, &found))
    });
    let follow = if is_trusted {
        OFlag::empty()
    } else {
        OFlag::O_NOFOLLOW
    };
    let file: File = match openat(
        &folder,
        name,
        flags | follow,
        Mode::from_bits_truncate(0o666),
    ) {
        Err(Errno::ELOOP) => return Err(untrusted(name)),
        result => result?.into(),
    };
    let opened = fstat(&file)?;
    if !is_trusted && is_kind(&opened, SFlag::S_IFREG) && opened.st_nlink > 1 {
        return Err(io::Error::other(
            "has a second name, which another user may have given it; name another file",
        ));
    }
    Ok(file)
}

/// Makes a file that is not there yet.
pub fn create_new(path: &Path) -> io::Result<File> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = Directory::open_by_trusted_links(&folder_of(path))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    folder.open_file(Path::new(name), flags, 0o666)
}

fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| *folder != "");
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Whether only root, this user, or users that this user lets in can have put `link` into `folder`.
fn is_trusted(folder: &FileStat, link: &FileStat) -> bool {
    let user = geteuid().as_raw();
    let is_ours = |stat: &FileStat| [0, user].contains(&stat.st_uid);
    let mode = folder.st_mode;
    let is_closed = mode & 0o022 == 0 || user != 0 && folder.st_uid == user;
    let is_sticky = mode & libc::S_ISVTX != 0 && is_ours(link);
    is_ours(folder) && (is_closed || is_sticky)
}

fn untrusted(name: &OsStr) -> io::Error {
    let name = name.display();
    io::Error::other(format!(
        "{name} on its way is a link that another user may change; name the place that it leads to"
    ))
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

fn name_of(component: Component<'_>) -> OsString {
    component.as_os_str().to_owned()
}

/// A name that leads down.
fn plain(component: Component<'_>) -> io::Result<&OsStr> {
    match component {
        Component::Normal(name) => Ok(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn rename_to_new(from: &Directory, name: &OsStr, to: &Directory, new: &OsStr) -> io::Result<()> {
    let [name, new] = [name, new].map(|name| CString::new(name.as_bytes()));
    let (name, new) = (name?, new?);
    // SAFETY: both descriptors are open and both names end in a zero byte; all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.as_fd().as_raw_fd(),
            name.as_ptr(),
            to.as_fd().as_raw_fd(),
            new.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn is_root() -> bool {
        geteuid().is_root()
    }

    #[test]
    fn what_is_held_stays_when_its_path_leads_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("held")).unwrap();
        fs::create_dir(at("victim")).unwrap();
        fs::write(at("victim/file"), "precious").unwrap();
        let held = Directory::open(&at("held")).unwrap();
        fs::rename(at("held"), at("moved")).unwrap();
        symlink(at("victim"), at("held")).unwrap();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        held.open_file(Path::new("file"), flags, 0o600)
            .unwrap()
            .write_all(b"new")
            .unwrap();
        assert_eq!(fs::read(at("moved/file")).unwrap(), b"new");
        assert_eq!(fs::read(at("victim/file")).unwrap(), b"precious");
        assert!(Directory::open(&at("held")).is_err());
    }

    #[test]
    fn no_part_of_a_path_below_may_be_a_link_or_lead_up() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(at("held/folder")).unwrap();
        fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("held/link")).unwrap();
        symlink("..", at("held/up")).unwrap();
        let held = Directory::open(&at("held")).unwrap();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        for path in [
            "link",
            "up/victim",
            "../victim",
            "folder/../../victim",
            "/victim",
            "",
        ] {
            assert!(
                held.open_file(Path::new(path), flags, 0o600).is_err(),
                "{path}"
            );
        }
        held.make_folders_of(Path::new("up/x")).unwrap_err();
        held.make_folders_of(Path::new("a/b/x")).unwrap();
        held.open_file(Path::new("a/b/x"), flags, 0o600).unwrap();
        assert_eq!(fs::read(at("victim")).unwrap(), b"precious");
    }

    #[test]
    fn a_rename_replaces_nothing() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        let held = Directory::open(&at("")).unwrap();
        held.make(OsStr::new("new")).unwrap();
        fs::write(at("new/file"), "").unwrap();
        for name in ["empty", "full", "plain"] {
            match name {
                "plain" => fs::write(at(name), "").unwrap(),
                _ => fs::create_dir(at(name)).unwrap(),
            }
            let error = held
                .rename_to(OsStr::new("new"), &held, OsStr::new(name))
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
        held.rename_to(OsStr::new("new"), &held, OsStr::new("free"))
            .unwrap();
        assert!(at("free/file").is_file());
    }

    #[test]
    fn what_is_removed_takes_nothing_that_a_link_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(at("old/folder/deep")).unwrap();
        fs::create_dir(at("victim")).unwrap();
        fs::write(at("victim/file"), "precious").unwrap();
        symlink(at("victim"), at("old/folder/link")).unwrap();
        symlink(at("victim"), at("link")).unwrap();
        let held = Directory::open(&at("")).unwrap();
        held.remove_all(OsStr::new("old")).unwrap();
        held.remove_all(OsStr::new("link")).unwrap();
        assert!(!at("old").exists() && at("victim/file").is_file());
        let missing = held.remove_all(OsStr::new("old")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_of_this_user_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("folder")).unwrap();
        symlink("folder", at("link")).unwrap();
        symlink("folder/log", at("alias")).unwrap();
        open_log(&at("link/log"))
            .unwrap()
            .write_all(b"one ")
            .unwrap();
        open_log(&at("alias")).unwrap().write_all(b"two").unwrap();
        assert_eq!(fs::read(at("folder/log")).unwrap(), b"one two");
        create_new(&at("link/page")).unwrap();
        let error = create_new(&at("folder/page")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(open_log(Path::new("/dev/null")).is_ok());
    }

    #[test]
    fn links_of_another_user_are_not_followed() {
        if !is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("theirs")).unwrap();
        fs::create_dir(at("ours")).unwrap();
        fs::write(at("ours/log"), "precious").unwrap();
        symlink(at("ours"), at("theirs/link")).unwrap();
        symlink(at("ours/log"), at("theirs/log")).unwrap();
        fs::hard_link(at("ours/log"), at("theirs/second")).unwrap();
        let refuses = || {
            for path in ["theirs/link/log", "theirs/log", "theirs/second"] {
                let error = open_log(&at(path)).unwrap_err().to_string();
                assert!(error.contains("; name "), "{path}: {error}");
            }
            assert!(create_new(&at("theirs/link/page")).is_err());
            open_log(&at("theirs/own")).unwrap();
            open_log(&at("theirs/own")).unwrap();
            fs::remove_file(at("theirs/own")).unwrap();
        };
        chown(at("theirs"), Some(1001), Some(1001)).unwrap();
        refuses();
        chown(at("theirs"), Some(0), Some(1001)).unwrap();
        fs::set_permissions(at("theirs"), fs::Permissions::from_mode(0o775)).unwrap();
        refuses();
        assert_eq!(fs::read(at("ours/log")).unwrap(), b"precious");
    }
}

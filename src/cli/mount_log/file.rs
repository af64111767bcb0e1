//! The file that the lines of one mount are written to.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::folder;
use super::name::{ENDING, prefix};
use crate::destination::Directory;

/// Bytes after which a log begins anew: a mount that lives for months must not fill the disk.
const MOST: u64 = 4 << 20;

/// The log of one mount.
#[derive(Debug)]
pub struct MountLog {
    path: PathBuf,
    /// Held as long as the mount lives: a log that is not held may be removed.
    file: Flock<File>,
    size: u64,
}

impl MountLog {
    /// Makes the log of the mount on `point`, a canonical path, and removes old ones.
    pub fn create(point: &Path, folder: &Path) -> io::Result<Self> {
        let directory = Directory::open(folder)?;
        folder::prune(folder, &directory, point);
        let process = std::process::id();
        for number in 0..100 {
            let name = format!("{}{process}-{number}{ENDING}", prefix(point));
            let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
            match directory.open_file(Path::new(&name), flags, 0o600) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Self::of(file?, folder.join(name)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn of(file: File, path: PathBuf) -> io::Result<Self> {
        file.set_permissions(Permissions::from_mode(0o600))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let file = file.map_err(|(_, error)| error)?;
        Ok(Self {
            path,
            file,
            size: 0,
        })
    }

    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > MOST {
            self.file.set_len(0)?;
            self.size = 0;
        }
        self.size += line.len() as u64;
        (&*self.file).write_all(line)
    }
}

impl Drop for MountLog {
    /// A log without a line is of no use to its reader.
    fn drop(&mut self) {
        if self.size == 0 {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::{KEPT, logs, prune};
    use super::super::name::is_log_of;
    use super::*;

    #[test]
    fn a_log_without_a_line_is_removed_and_a_long_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let point = Path::new("/mnt");
        let empty = MountLog::create(point, &folder).unwrap().path.clone();
        assert!(!empty.exists());
        let mut log = MountLog::create(point, &folder).unwrap();
        log.write(&vec![b'x'; MOST as usize + 1]).unwrap();
        log.write(b"last\n").unwrap();
        let path = log.path.clone();
        drop(log);
        assert_eq!(std::fs::read(path).unwrap(), b"last\n");
    }

    #[test]
    fn of_a_mount_point_the_last_logs_and_those_in_use_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let point = Path::new("/mnt");
        let mut first = MountLog::create(point, &folder).unwrap();
        first.write(b"in use\n").unwrap();
        for _ in 0..KEPT + 4 {
            MountLog::create(point, &folder)
                .unwrap()
                .write(b"x\n")
                .unwrap();
        }
        MountLog::create(Path::new("/other"), &folder)
            .unwrap()
            .write(b"x\n")
            .unwrap();
        let held = Directory::open(&folder).unwrap();
        prune(&folder, &held, point);
        let logs = logs(&folder);
        let of_point = logs.iter().filter(|(_, name)| is_log_of(name, point));
        assert!((KEPT..=KEPT + 1).contains(&of_point.count()), "{logs:?}");
        assert!(first.path.exists());
    }
}

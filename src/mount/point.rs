//! Which directories a view may be mounted on.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::detach::{When, detach};
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::source::place;
use crate::text::quoted;

/// Time that a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest time that all questions about a mount point or a source may take.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for another mount on the same point, between its own check and its end.
const TURN: Duration = Duration::from_secs(2);

/// Keeps other programs of this kind from checking the directory `path` meanwhile. `None` where the filesystem or the
/// directory does not allow it, or another program holds the lock for long.
pub fn hold(path: &Path) -> Option<Flock<File>> {
    let path = path.to_owned();
    let take = move || {
        let mut options = OpenOptions::new();
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut directory = options.read(true).custom_flags(flags).open(path).ok()?;
        let end = Instant::now() + TURN;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Some(held),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < end => directory = back,
                Err(_) => return None,
            }
            thread::sleep(Duration::from_millis(2));
        }
    };
    answer(LONG_PATIENCE, take).ok().flatten()
}

/// The canonical path of `path` if it is an empty directory, no mount point, and apart from `source`. What a ckptfs that died
/// left on it is taken away.
pub fn check(path: &Path, source: &Path) -> Result<PathBuf> {
    absolute(path).map_err(|error| Error::mount(path, error.to_string()))?;
    let (asked, apart_from) = (path.to_owned(), source.to_owned());
    let point = answer(LONG_PATIENCE, move || free(&asked, &apart_from));
    point.unwrap_or_else(|error| Err(Error::mount(path, error.to_string())))
}

/// Refuses a source that does not answer, such as one in a view whose process is stopped.
pub fn check_source(source: &Path) -> Result<()> {
    if place::is_remote(source) {
        return Ok(());
    }
    try_open(source, LONG_PATIENCE).map_err(|error| Error::io(source, error))
}

/// Refuses a place to write to that does not answer.
pub fn check_target(target: &Path) -> Result<()> {
    try_open(target, LONG_PATIENCE).map_err(|error| Error::target(target, error.to_string()))
}

/// Whether something lies at `path`. A place that does not answer is an error.
pub fn exists(path: &Path) -> io::Result<bool> {
    Ok(metadata(path)?.is_some())
}

/// The metadata of `path`, links followed. A place that does not answer is an error.
pub fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    let path = path.to_owned();
    answer(LONG_PATIENCE, move || path.metadata().ok())
}

/// Whether the filesystem at `path` answers soon.
pub fn answers(path: &Path) -> bool {
    try_open(path, PATIENCE).is_ok()
}

/// Makes a path that holds in any working directory.
///
/// # Errors
/// When the path is relative and the working directory was removed: nothing can be found from there.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    place::absolute(path).map_err(|error| match path.is_relative() {
        true => {
            let reason =
                format!("the working directory cannot be used ({error}); cd to one that is there");
            io::Error::new(error.kind(), reason)
        }
        false => error,
    })
}

/// Ignores open errors; the first use of the path reports them.
fn try_open(path: &Path, patience: Duration) -> io::Result<()> {
    absolute(path)?;
    let path = path.to_owned();
    let open = move || {
        let mut options = OpenOptions::new();
        // A FIFO would wait for its other end.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(path).map(drop)
    };
    answer(patience, open).map(drop)
}

/// Returns the result of `ask`, unless it takes longer: a call to a filesystem whose process is stopped waits without end.
fn answer<T: Send + 'static>(
    patience: Duration,
    ask: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, answer) = mpsc::channel();
    let asking = move || sender.send(ask());
    thread::Builder::new().spawn(asking).map_err(|error| {
        let reason = format!("no thread can be started ({error}); allow more with: ulimit -u");
        io::Error::new(error.kind(), reason)
    })?;
    answer.recv_timeout(patience).map_err(|_| {
        let reason = "does not answer; let the process that serves it go on, or name another place";
        io::Error::new(io::ErrorKind::TimedOut, reason)
    })
}

fn free(path: &Path, source: &Path) -> Result<PathBuf> {
    if clear_dead(path)? {
        let point = path.display();
        tracing::warn!("{point}: a mount whose process died was left here and is taken away");
    }
    directory(path)?;
    let point = fs::canonicalize(path).map_err(|error| Error::mount(path, error.to_string()))?;
    match mountinfo::at(&point) {
        Some(entry) => Err(Error::mount(path, occupied(&point, &entry))),
        None => apart(&point, source).and_then(|()| empty(&point)),
    }?;
    Ok(point)
}

/// The canonical path of a mount point, which may be dead. Nothing is asked of the view itself: only a path that leads through one
/// whose process is stopped is not answered.
pub fn located(path: &Path) -> Result<PathBuf> {
    absolute(path).map_err(|error| Error::mount(path, error.to_string()))?;
    let asked = path.to_owned();
    let located = answer(LONG_PATIENCE, move || match fs::canonicalize(&asked) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = "there is no such directory; ckptfs status lists what is mounted";
            Err(Error::mount(&asked, reason))
        }
        _ => resolve(&asked),
    });
    located.unwrap_or_else(|error| Err(Error::mount(path, error.to_string())))
}

/// The canonical path of a mount point, which may be dead.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| Error::mount(path, error.to_string());
    fs::canonicalize(path).or_else(|error| {
        let absolute = std::path::absolute(path).map_err(failed)?;
        match (absolute.parent(), absolute.file_name()) {
            (Some(parent), Some(name)) if error.kind() != io::ErrorKind::NotFound => {
                let parent = fs::canonicalize(parent).map_err(failed)?;
                Ok(parent.join(name))
            }
            _ => Err(failed(error)),
        }
    })
}

/// Takes views away whose processes died, also of several that lie on each other. Returns whether there were any.
pub fn clear_dead(path: &Path) -> Result<bool> {
    let mut is_cleared = false;
    if path.is_symlink() {
        return Ok(is_cleared);
    }
    // What has no canonical path is refused by those who look further.
    while let Ok(point) = resolve(path)
        && let Some(entry) = mountinfo::at(&point)
        && entry.is_view()
        && !is_served(&point)
    {
        detach(&point, When::Lazily).map_err(|error| {
            let reason = format!(
                "{}, which may not be done here: {error}",
                dead(&point, &entry)
            );
            Error::mount(path, reason)
        })?;
        is_cleared = true;
    }
    Ok(is_cleared)
}

fn directory(path: &Path) -> Result<()> {
    let reason = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(metadata) if metadata.is_symlink() => {
            "is a symbolic link; name the directory that it leads to".to_owned()
        }
        Ok(_) => "is no directory; a view is mounted on an empty directory".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("does not exist; make it with: mkdir {}", quoted(path))
        }
        Err(error) => match resolve(path).ok().and_then(|point| mountinfo::at(&point)) {
            Some(entry) if is_dead(&error) => dead(path, &entry),
            Some(entry) if entry.is_view() => {
                let repair = repair(path, &entry);
                let user = match entry.owner().unwrap_or_default() {
                    0 => "root".to_owned(),
                    user => format!("user {user}"),
                };
                format!("a view of {user} is mounted here; as {user}: {repair}")
            }
            _ => error.to_string(),
        },
    };
    Err(Error::mount(path, reason))
}

fn occupied(point: &Path, entry: &mountinfo::Entry) -> String {
    if entry.kind.starts_with("fuse") && !is_served(point) {
        return dead(point, entry);
    }
    if entry.is_view() {
        let repair = repair(point, entry);
        return format!("a view is mounted here already; to unmount it: {repair}");
    }
    let kind = &entry.kind;
    format!("is the mount point of another filesystem ({kind}); name an empty directory inside it")
}

/// Whether a process still answers for a mount. One that denies access, or is stopped, is taken to have one.
pub fn is_served(point: &Path) -> bool {
    ask_for_process(point).unwrap_or(true)
}

/// Whether a mount has a process; `None` where it does not answer.
pub fn ask_for_process(point: &Path) -> Option<bool> {
    let point = point.to_owned();
    let ask = move || {
        let first = fs::read_dir(point).and_then(|mut names| names.next().transpose());
        !first.is_err_and(|error| is_dead(&error))
    };
    answer(PATIENCE, ask).ok()
}

fn dead(point: &Path, entry: &mountinfo::Entry) -> String {
    let repair = repair(point, entry);
    format!("a mount whose process died is left here; to remove it: {repair}")
}

fn repair(point: &Path, entry: &mountinfo::Entry) -> String {
    let command = match entry.is_view() {
        true => "ckptfs umount",
        false => "fusermount3 -u",
    };
    format!("{command} {}", quoted(point))
}

/// A question that waits while the process dies is answered by ECONNABORTED.
fn is_dead(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTCONN | libc::ECONNABORTED)
    )
}

fn apart(point: &Path, source: &Path) -> Result<()> {
    let source = place::canonical(source).map_err(|error| Error::io(source, error))?;
    let reason = if point == source {
        "is the source itself; name another directory"
    } else if point.starts_with(&source) {
        "lies inside the source; name a directory outside"
    } else if source.starts_with(point) {
        "the source lies inside it and would be hidden; name another directory"
    } else {
        return Ok(());
    };
    Err(Error::mount(point, reason))
}

fn empty(point: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::mount(point, error.to_string());
    match fs::read_dir(point).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(Error::mount(point, "is not empty; name an empty directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(point: &Path, source: &Path) -> String {
        check(point, source).unwrap_err().to_string()
    }

    #[test]
    fn only_empty_directories_apart_from_the_source() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("source/inside")).unwrap();
        fs::create_dir(at("point")).unwrap();
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink(at("point"), at("link")).unwrap();
        let source = at("source");
        assert_eq!(
            check(&at("point"), &source).unwrap(),
            at("point").canonicalize().unwrap()
        );
        assert!(refusal(&at("missing"), &source).contains("mkdir"));
        assert!(refusal(&at("file"), &source).contains("no directory"));
        assert!(refusal(&at("link"), &source).contains("symbolic link"));
        assert!(refusal(&at("source"), &source).contains("the source itself"));
        assert!(refusal(&at("source/inside"), &source).contains("inside the source"));
        assert!(refusal(root.path(), &source).contains("would be hidden"));
        assert!(refusal(root.path(), Path::new("/usr")).contains("not empty"));
        assert!(refusal(Path::new("/proc"), &source).contains("another filesystem (proc)"));
    }

    #[test]
    fn a_point_that_is_held_is_waited_for() {
        let point = tempfile::tempdir().unwrap();
        let first = hold(point.path()).unwrap();
        let (sender, turns) = mpsc::channel();
        thread::scope(|scope| {
            let second = sender.clone();
            scope.spawn(move || {
                let held = hold(point.path());
                second.send("second").unwrap();
                held
            });
            thread::sleep(Duration::from_millis(50));
            sender.send("first").unwrap();
            drop(first);
        });
        assert_eq!(turns.try_iter().collect::<Vec<_>>(), ["first", "second"]);
    }
}

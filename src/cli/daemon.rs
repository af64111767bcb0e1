//! `--daemon`: the same command line again in a process of its own, which this one waits for until the mount answers.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::Context;

use super::output;
use crate::destination::open_log;
use crate::error::Error;
use crate::mount::{When, unmount};

/// Set in the environment of the background process.
const BACKGROUND: &str = "CKPTFS_BACKGROUND";

/// Where the standard descriptors of a background process lead.
const NULL: &str = "/dev/null";

/// Status of a background process that died without saying why.
const DIED: u8 = 3;

pub fn is_background() -> bool {
    std::env::var_os(BACKGROUND).is_some()
}

/// Starts the background process. Its standard output is a pipe that carries the readiness line, and its standard error
/// stays ours until then: whatever stops it is said as without --daemon. What cannot be said to be mounted is not.
pub fn launch(mountpoint: &Path) -> anyhow::Result<ExitCode> {
    wait_until_ready(start(mountpoint)?, mountpoint)
}

/// Starts the background process of a server, which says where it is served until it lets go of its standard output.
#[cfg(feature = "remote")]
pub fn launch_server(source: &Path) -> anyhow::Result<ExitCode> {
    let mut child = start(source)?;
    let mut ready = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        io::Read::read_to_string(&mut pipe, &mut ready)?;
    }
    if ready.is_empty() {
        return ended(child);
    }
    output::announce(&ready).inspect_err(|_| {
        child.kill().ok();
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The status of a background process that was never ready.
fn ended(mut child: Child) -> anyhow::Result<ExitCode> {
    let status = child.wait()?.code();
    let code = status.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(
        code.filter(|code| *code != 0).unwrap_or(DIED),
    ))
}

fn start(place: &Path) -> anyhow::Result<Child> {
    let refused = |error: io::Error, hint: &str| {
        let reason = format!("no background process can be started ({error}); {hint}");
        Error::mount(place, reason)
    };
    let program = std::env::current_exe()
        .map_err(|error| refused(error, "mount /proc, or leave --daemon out"))?;
    let null = null()?;
    let child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(BACKGROUND, "1")
        .stdin(null)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| refused(error, "allow more with: ulimit -u"))?;
    Ok(child)
}

fn wait_until_ready(mut child: Child, mountpoint: &Path) -> anyhow::Result<ExitCode> {
    let mut ready = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut ready)?;
    }
    if ready.is_empty() {
        return ended(child);
    }
    output::announce(&ready).inspect_err(|_| {
        unmount(mountpoint, When::Lazily).ok();
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The background process, before it lets go of the terminal.
pub struct Background {
    null: File,
    log: Option<File>,
    /// Kept until the mount is ready: the command line may name them as /dev/fd/N.
    inherited: Vec<OwnedFd>,
}

impl Background {
    /// Leaves the terminal's session, so that neither Ctrl-C nor its end reaches the process.
    pub fn enter(log: Option<&Path>) -> anyhow::Result<Self> {
        let inherited = inherited_descriptors().context("the descriptors of the process")?;
        let open = |path: &Path| {
            crate::mount::check_target(path)?;
            open_log(path).map_err(|error| Error::unwritable(path, &error))
        };
        let background = Self {
            null: null()?,
            log: log.map(open).transpose()?,
            inherited,
        };
        // SAFETY: setsid takes nothing; a freshly spawned process leads no group, so that it cannot fail.
        unsafe { libc::setsid() };
        Ok(background)
    }

    /// Lets go of the terminal, of the working directory and of all that was inherited: locks on it are released, and readers
    /// of its pipes see their end.
    pub fn detach(self) -> anyhow::Result<()> {
        std::env::set_current_dir("/")?;
        let log = self.log.as_ref().unwrap_or(&self.null);
        replace(0, &self.null)?;
        replace(1, &self.null)?;
        replace(2, log)?;
        drop(self.inherited);
        Ok(())
    }
}

/// Opens the null device, and makes no file where it is missing.
fn null() -> Result<File, Error> {
    let null = File::options().read(true).write(true).open(NULL);
    null.map_err(|error| {
        let reason = format!("{error}; make it with: mknod -m 666 {NULL} c 1 3");
        Error::target(Path::new(NULL), reason)
    })
}

/// The descriptors above standard error that the parent process left open. All of the program's own are closed on exec.
fn inherited_descriptors() -> io::Result<Vec<OwnedFd>> {
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse().ok();
        if let Some(number) = number.filter(|number| is_inherited(*number)) {
            // SAFETY: the descriptor is open, and was so before the program began: nothing else owns it.
            inherited.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(inherited)
}

fn is_inherited(number: RawFd) -> bool {
    // SAFETY: fcntl takes numbers alone, and only asks.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    number > libc::STDERR_FILENO && flags != -1 && flags & libc::FD_CLOEXEC == 0
}

fn replace(descriptor: RawFd, by: &File) -> io::Result<()> {
    // SAFETY: dup2 onto a standard descriptor, which no File owns, keeps every other one as it is.
    match unsafe { libc::dup2(by.as_raw_fd(), descriptor) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

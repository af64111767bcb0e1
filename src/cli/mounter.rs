//! `ckptfs mounter`: the part of a mount that needs privileges, for a server that has none.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::thread;

use clap::Args;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{output, systemd};
use crate::error::Error;
use crate::mount::{StopSignals, When, absolute, check_target, hand_over, open_and_mount, unmount};

/// Mount with privileges, and hand the descriptor to a server without any: ckptfs mounter MNT -- ckptfs mount SOURCE {}
#[derive(Debug, Args)]
pub struct Arguments {
    /// An empty directory
    mountpoint: PathBuf,
    /// Hand the descriptor to the first process that connects to this socket, which is made: ckptfs mount SOURCE SOCKET
    #[arg(
        long,
        value_name = "SOCKET",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    socket: Option<PathBuf>,
    /// The device that the table of mounts shows
    #[arg(long, value_name = "NAME", default_value = "handed-on")]
    name: String,
    /// Let only the user of the mounter read
    #[arg(long)]
    own: bool,
    /// The server; {} in its arguments becomes /dev/fd/N
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let point = std::path::absolute(&arguments.mountpoint)?;
    let signals = StopSignals::take()?;
    let listener = arguments.socket.as_deref().map(listen).transpose()?;
    let descriptor = open_and_mount(&point, &arguments.name, !arguments.own)?;
    let unmounting = Unmounting(&point);
    output::announce(&format!("{} waits for its server\n", point.display()))?;
    systemd::ready();
    match (listener, &arguments.socket) {
        (Some(listener), Some(socket)) => {
            let handed = thread::spawn(move || hand_over(&listener, &descriptor));
            signals.wait();
            fs::remove_file(socket).ok();
            drop(handed);
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let child = start(&arguments.command, &descriptor);
            drop(descriptor);
            let code = serve(child?, signals)?;
            drop(unmounting);
            Ok(code)
        }
    }
}

/// The mount, taken away at the end: what serves it has ended, or will find that it is gone.
struct Unmounting<'p>(&'p Path);

impl Drop for Unmounting<'_> {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, When::Lazily) {
            tracing::warn!("{error}");
        }
    }
}

/// A socket that any user may connect to: its folder says who reaches it.
fn listen(socket: &Path) -> Result<UnixListener, Error> {
    let failed = |error: io::Error| Error::unwritable(socket, &error);
    check_target(&absolute(socket).map_err(failed)?)?;
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

fn start(words: &[OsString], descriptor: &OwnedFd) -> anyhow::Result<Child> {
    let path = format!("/dev/fd/{}", descriptor.as_raw_fd());
    // The server inherits this one descriptor.
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut words = words.iter().map(|word| match word.to_str() {
        Some(word) => OsString::from(word.replace("{}", &path)),
        None => word.clone(),
    });
    let mut command = Command::new(words.next().unwrap_or_default());
    let program = command.get_program().to_owned();
    let started = command.args(words).spawn();
    started.map_err(|error| anyhow::anyhow!("{}: {error}", program.display()))
}

/// Waits for the server, and passes a signal that ends the mounter on to it.
fn serve(mut child: Child, signals: StopSignals) -> anyhow::Result<ExitCode> {
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    thread::spawn(move || {
        signals.wait();
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).ok();
    });
    let code = child
        .wait()?
        .code()
        .and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

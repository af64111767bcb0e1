//! A mounted view: the threads that serve it and the ways in which it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};

use super::signals::StopSignals;
use super::unmount::{When, detach};
use super::{Options, read_ahead, requirements, table};
use crate::error::{Error, Result};
use crate::fs::{CheckpointFs, Counters};

/// How long the readers of a mount that is told to end may still be served.
const GRACE: Duration = Duration::from_secs(5);

/// What the name of a mount's device begins with.
pub const NAME_PREFIX: &str = "ckptfs#";

/// What happens to a mounted view.
#[derive(Debug)]
pub enum Event {
    Signal,
    /// Someone wants to know what was done so far.
    Question,
    /// Unmounted, by whomever, and the last reader gone.
    Ended(io::Result<()>),
}

/// A view that answers. Dropping it detaches it.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
    /// `major:minor` in the table of mounts, where that can be read.
    device: Option<String>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    counters: Arc<Counters>,
}

impl Mounted {
    pub(super) fn start(
        filesystem: CheckpointFs,
        point: PathBuf,
        options: &Options,
    ) -> Result<Self> {
        let refuse = |error: io::Error| Error::mount(&point, requirements::mount_fault(&error));
        let counters = filesystem.counters();
        let session = Session::new(filesystem, &point, &config(options)).map_err(refuse)?;
        let (sender, events) = mpsc::channel();
        let this = Self {
            device: table::at(&point).map(|entry| entry.device),
            sender: sender.clone(),
            events,
            counters,
            point,
        };
        thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || sender.send(Event::Ended(session.run())))
            .map_err(|error| this.fault(error.to_string()))?;
        this.answers()?;
        this.device
            .iter()
            .for_each(|device| read_ahead::raise(device));
        Ok(this)
    }

    /// Canonical path of the mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Serves until a signal comes or someone unmounts the view.
    pub fn wait_for_signal(self, signals: StopSignals) -> Result<()> {
        signals.forward(self.sender.clone());
        match self.event(Duration::MAX) {
            Some(Event::Ended(result)) => self.ended(result),
            _ => self.unmount(),
        }
    }

    /// Unmounts; where it is in use, hides it and serves its readers until they are gone, a signal comes or the grace
    /// is over.
    pub fn unmount(self) -> Result<()> {
        if self.is_there() {
            self.detach()?;
        }
        match self.event(GRACE) {
            Some(Event::Ended(result)) => self.ended(result),
            _ => {
                tracing::warn!(
                    "{} was still in use when ckptfs ended; its readers get errors",
                    self.point.display()
                );
                Ok(())
            }
        }
    }

    /// The next event that ends something. Questions are answered.
    fn event(&self, patience: Duration) -> Option<Event> {
        loop {
            match self.events.recv_timeout(patience).ok()? {
                Event::Question => self.counters.log(),
                event => return Some(event),
            }
        }
    }

    fn detach(&self) -> Result<()> {
        let detached = detach(&self.point, When::Unused).or_else(|error| {
            if error.kind() == io::ErrorKind::ResourceBusy {
                tracing::warn!(
                    "{} is in use; served {GRACE:?} longer",
                    self.point.display()
                );
            }
            detach(&self.point, When::Lazily)
        });
        detached.map_err(|error| self.fault(error.to_string()))
    }

    /// The kernel may have cut the connection and left the mount. Where the mount is gone, it was unmounted, and what the
    /// kernel calls that does not matter.
    fn ended(&self, result: io::Result<()>) -> Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        self.detach()?;
        result.map_err(|error| self.fault(format!("the kernel's connection failed: {error}")))
    }

    /// Whether the mount point is still ours, not free or another's.
    fn is_there(&self) -> bool {
        let now = table::at(&self.point).map(|entry| entry.device);
        self.device.is_none() || now == self.device
    }

    fn answers(&self) -> Result<()> {
        match fs::metadata(&self.point) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault(self.cause().unwrap_or(error).to_string())),
        }
    }

    /// Why the session ended at once, if it did.
    fn cause(&self) -> Option<io::Error> {
        match self.event(GRACE) {
            Some(Event::Ended(result)) => result.err(),
            _ => None,
        }
    }

    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::mount(&self.point, reason)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_there() {
            detach(&self.point, When::Lazily).ok();
        }
    }
}

fn config(options: &Options) -> Config {
    let threads = options.threads();
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = threads > 1 && requirements::device_can_be_cloned();
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName(name(&options.source)),
        // Subtype would reach fusermount3 alone; this reaches mount(2) too.
        MountOption::CUSTOM("subtype=ckptfs".to_owned()),
    ];
    config
}

/// What `df` and `mount` show as the device. A comma would end the option.
fn name(source: &Path) -> String {
    let source = source.display().to_string();
    let unsafe_in_option = |char: char| char == ',' || char == '\\' || char.is_control();
    format!("{NAME_PREFIX}{}", source.replace(unsafe_in_option, "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_source_is_one_option() {
        assert_eq!(name(Path::new("/a,b\n/c")), "ckptfs#/a_b_/c");
    }
}

//! A mounted view: the threads that serve it and the ways in which it ends.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL};

use super::detach::{When, detach, detach_soon};
use super::options::Options;
use super::point::is_served;
use super::signals::{Event, StopSignals};
use super::{read_ahead, requirements};
use crate::error::{Error, Result};
use crate::fs::{CheckpointFs, Counters};
use crate::mountinfo::{self, Identity, NAME_PREFIX};

/// Longest time that the readers of a mount that is told to end are still served.
const GRACE: Duration = Duration::from_secs(5);

/// Most bytes of a request. A direct read of 1 MiB becomes two, which two threads answer at once, and a reply stays in its
/// processor's cache. Shorter ones come to the source so out of order that it is not read ahead.
pub(super) const MAX_READ: usize = 512 << 10;

/// Says so when the kernel's connection has ended.
#[derive(Debug)]
struct Farewell(Sender<Event>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send(Event::Ended).ok();
    }
}

/// A view that answers. Dropping it detaches it.
#[derive(Debug)]
pub struct Mounted {
    point: PathBuf,
    /// Unknown where the table of mounts cannot be read.
    identity: Option<Identity>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    counters: Arc<Counters>,
    has_ended: bool,
    /// Whether another process mounted it, which alone unmounts it.
    is_handed_in: bool,
}

/// Has the kernel let go of names in the top directory, on a thread of its own: the kernel may wait for requests that are
/// being answered. The thread ends with the filesystem.
fn forget(gone: Receiver<String>, notifier: Notifier) -> io::Result<()> {
    let top = INodeNo(crate::tree::ROOT);
    let forget = move || {
        for name in gone {
            // An error is a mount that has ended, or a kernel that knew nothing.
            notifier.inval_entry(top, name.as_ref()).ok();
        }
    };
    thread::Builder::new().spawn(forget).map(drop)
}

impl Mounted {
    pub(super) fn start(
        filesystem: CheckpointFs,
        gone: Option<Receiver<String>>,
        point: PathBuf,
        options: &Options,
    ) -> Result<Self> {
        let refuse = |error: io::Error| Error::mount(&point, requirements::mount_fault(&error));
        let counters = filesystem.counters();
        let (sender, events) = mpsc::channel();
        let filesystem = filesystem.keeping(Farewell(sender.clone()));
        let session = Session::new(filesystem, &point, &config(options)).map_err(refuse)?;
        let identity = mountinfo::identity(&point);
        if let Some(gone) = gone {
            forget(gone, session.notifier()).map_err(refuse)?;
        }
        // Dropping it would unmount what lies on the point by then, be it another's.
        mem::forget(session.spawn().map_err(refuse)?);
        let this = Self {
            identity,
            sender,
            events,
            counters,
            point,
            has_ended: false,
            is_handed_in: false,
        };
        if mountinfo::count(&this.point) > 1 {
            return Err(this.fault(
                "another view was mounted here at the same moment; name another directory",
            ));
        }
        fs::metadata(&this.point).map_err(|error| this.fault(error.to_string()))?;
        if let Some(identity) = &this.identity {
            read_ahead::raise(&identity.device, &options.source);
        }
        Ok(this)
    }

    /// Serves the mount of another process, whose descriptor this is.
    pub(super) fn start_on(
        descriptor: OwnedFd,
        filesystem: CheckpointFs,
        gone: Option<Receiver<String>>,
        point: &Path,
        options: &Options,
    ) -> Result<Self> {
        let refuse =
            |error: io::Error| Error::mount(point, format!("the mount cannot be served: {error}"));
        let counters = filesystem.counters();
        let (sender, events) = mpsc::channel();
        let filesystem = filesystem.keeping(Farewell(sender.clone()));
        // Who may read was decided by the mounter.
        let mut config = config(options);
        config.acl = SessionACL::All;
        // A clone needs the device, which this process may not open.
        config.clone_fd = false;
        let session = Session::from_fd(filesystem, descriptor, SessionACL::All, config);
        let session = session.map_err(refuse)?;
        if let Some(gone) = gone {
            forget(gone, session.notifier()).map_err(refuse)?;
        }
        mem::forget(session.spawn().map_err(refuse)?);
        Ok(Self {
            identity: None,
            sender,
            events,
            counters,
            point: point.to_owned(),
            has_ended: false,
            is_handed_in: true,
        })
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
            Some(Event::Ended) => self.ended(),
            _ => self.unmount(),
        }
    }

    /// Unmounts; where it is in use, hides it and serves its readers until they are gone, a signal comes or the grace
    /// is over.
    pub fn unmount(mut self) -> Result<()> {
        if let Some(Event::Ended) = self.event(Duration::ZERO) {
            return self.ended();
        }
        if self.is_handed_in {
            tracing::info!("its readers get errors from here on; the mounter unmounts it");
            self.has_ended = true;
            return Ok(());
        }
        if let Some(place) = self.place() {
            self.detach(&place)?;
        }
        self.has_ended = true;
        match self.event(GRACE) {
            Some(Event::Ended) => Ok(()),
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

    fn detach(&self, place: &Path) -> Result<()> {
        let detached = detach_soon(place, When::Unused).or_else(|error| {
            if error.kind() == io::ErrorKind::ResourceBusy {
                tracing::warn!(
                    "{} is in use; served {GRACE:?} longer",
                    self.point.display()
                );
            }
            detach(place, When::Lazily)
        });
        detached.map_err(|error| self.fault(error.to_string()))
    }

    /// The mount is gone, and its device may be another's already, unless the connection alone was cut: then it lies there
    /// dead.
    fn ended(mut self) -> Result<()> {
        self.has_ended = true;
        let is_certain = self.identity.as_ref().is_some_and(Identity::is_unique);
        match self.place() {
            Some(place) if is_certain || !is_served(&place) => self.detach(&place),
            _ => Ok(()),
        }
    }

    /// Where the view is mounted, if it still is.
    fn place(&self) -> Option<PathBuf> {
        if self.is_handed_in {
            return None;
        }
        match &self.identity {
            Some(identity) => mountinfo::place(identity, &self.point),
            None => Some(self.point.clone()),
        }
    }

    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::mount(&self.point, reason)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(place) = self.place().filter(|_| !self.has_ended) {
            detach(&place, When::Lazily).ok();
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
        MountOption::FSName(device_name(&options.source)),
        // Subtype would reach fusermount3 alone; this reaches mount(2) too.
        MountOption::CUSTOM("subtype=ckptfs".to_owned()),
        MountOption::CUSTOM(format!("max_read={MAX_READ}")),
    ];
    config
}

/// Returns the device name that `df` and `mount` show. A comma would end the option.
pub(super) fn device_name(source: &Path) -> String {
    let source = source.display().to_string();
    let unsafe_in_option = |char: char| char == ',' || char == '\\' || char.is_control();
    format!("{NAME_PREFIX}{}", source.replace(unsafe_in_option, "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_source_is_one_option() {
        assert_eq!(device_name(Path::new("/a,b\n/c")), "ckptfs#/a_b_/c");
    }
}

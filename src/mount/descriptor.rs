//! A FUSE descriptor that another process opened and mounted: this process serves it without any privilege.
//!
//! The mounter opens /dev/fuse, mounts with that descriptor, and hands it on: as `/dev/fd/N` to a process that it starts, or
//! over a Unix socket to one that runs already. The mount is the mounter's: it unmounts, and serving ends with that.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::unistd::{getegid, geteuid};

use super::point;
use super::session::{MAX_READ, device_name};
use crate::error::{Error, Result};

/// Major and minor number of /dev/fuse (Linux, admin-guide/devices.txt).
const DEVICE: (u32, u32) = (10, 229);

/// Where a descriptor comes from, if `point` names one: `/dev/fd/N`, or a socket that a mounter listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    Inherited(RawFd),
    Socket(PathBuf),
}

impl Descriptor {
    /// # Errors
    /// When `point` does not answer.
    pub fn named_by(point: &Path) -> Result<Option<Self>> {
        let number = ["/dev/fd", "/proc/self/fd"].iter().find_map(|folder| {
            let name = point.strip_prefix(folder).ok()?;
            name.to_str()?.parse().ok()
        });
        Ok(match number {
            Some(number) => Some(Self::Inherited(number)),
            None => is_socket(point)?.then(|| Self::Socket(point.to_owned())),
        })
    }

    /// Takes the descriptor over.
    ///
    /// # Errors
    /// When there is none, or it is not one of /dev/fuse.
    pub fn take(&self, point: &Path) -> Result<OwnedFd> {
        let failed = |error: io::Error| {
            Error::mount(
                point,
                format!("{error}; let a mounter hand in a descriptor of /dev/fuse"),
            )
        };
        let descriptor = match self {
            Self::Inherited(number) => inherited(*number),
            Self::Socket(path) => receive(path),
        };
        let descriptor = descriptor.map_err(failed)?;
        let found = fs::metadata(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        let device = found.map_err(failed)?.rdev();
        if (libc::major(device), libc::minor(device)) != DEVICE {
            let reason = "is no descriptor of /dev/fuse; let a mounter hand one in";
            return Err(Error::mount(point, reason));
        }
        Ok(descriptor)
    }
}

fn is_socket(path: &Path) -> Result<bool> {
    let found = point::metadata(path).map_err(|error| Error::mount(path, error.to_string()))?;
    Ok(found.is_some_and(|found| found.file_type().is_socket()))
}

fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    fs::metadata(format!("/proc/self/fd/{number}"))?;
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::other("is a standard stream"));
    }
    // SAFETY: the descriptor is open, and was so before the program began: nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Receives the descriptor that a mounter sends over the socket that it listens on.
fn receive(path: &Path) -> io::Result<OwnedFd> {
    let stream = UnixStream::connect(path)?;
    let mut byte = [0; 1];
    let mut space = cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let numbers = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
        _ => None,
    });
    let number = numbers.ok_or_else(|| io::Error::other("no descriptor came over the socket"))?;
    // SAFETY: the kernel made the descriptor for this message, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Mounts on `point` and returns the descriptor with which the mount is to be served. Needs the right to mount.
pub fn open_and_mount(point: &Path, source: &str, allow_other: bool) -> Result<OwnedFd> {
    let failed = |what: &str, error: io::Error| {
        Error::mount(
            point,
            format!(
                "{what}: {error}; run the mounter as root, or in a container with CAP_SYS_ADMIN and /dev/fuse"
            ),
        )
    };
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device: OwnedFd = device.map_err(|error| failed("/dev/fuse", error))?.into();
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let mut options = format!(
        "fd={},rootmode={:o},user_id={user},group_id={group},default_permissions,max_read={MAX_READ}",
        device.as_raw_fd(),
        libc::S_IFDIR
    );
    if allow_other {
        options += ",allow_other";
    }
    let flags = MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_RDONLY;
    let name = device_name(Path::new(source));
    let mounted = mount(
        Some(&*name),
        point,
        Some("fuse.ckptfs"),
        flags,
        Some(&*options),
    );
    mounted.map_err(|error| failed("mount", error.into()))?;
    Ok(device)
}

/// Sends the descriptor to the first process that connects.
pub fn hand_over(listener: &UnixListener, descriptor: &OwnedFd) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let numbers = [descriptor.as_fd().as_raw_fd()];
    let message = [ControlMessage::ScmRights(&numbers)];
    let slices = [IoSlice::new(&[0])];
    sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &slices,
        &message,
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_from_directories() {
        let named = |point: &str| Descriptor::named_by(Path::new(point)).unwrap();
        assert_eq!(named("/dev/fd/3"), Some(Descriptor::Inherited(3)));
        assert_eq!(named("/proc/self/fd/12"), Some(Descriptor::Inherited(12)));
        for point in ["/dev/fd", "/dev/fd/x", "/tmp", "/dev/fd/3/x"] {
            assert_eq!(named(point), None, "{point}");
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(null);
        let point = format!("/dev/fd/{number}");
        let error = Descriptor::Inherited(number)
            .take(Path::new(&point))
            .unwrap_err();
        assert!(
            error.to_string().contains("no descriptor of /dev/fuse"),
            "{error}"
        );
        assert!(
            Descriptor::Inherited(9999)
                .take(Path::new("/dev/fd/9999"))
                .is_err()
        );
    }
}

//! A view mounted on a directory: what must hold before, the session that serves it, and how it ends.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

mod descriptor;
mod detach;
mod options;
mod others;
mod point;
mod read_ahead;
mod requirements;
mod session;
mod signals;
mod status;
mod unmount;

pub use descriptor::{Descriptor, hand_over, open_and_mount};
pub use detach::When;
pub use options::Options;
pub use point::{absolute, answers, check_source, check_target, clear_dead, exists, located};
pub use requirements::affordable_cache;
pub use session::Mounted;
pub use signals::{StopSignals, is_ignored};
pub use status::{Mount, mounts, view_points};
pub use unmount::unmount;

use crate::error::Result;
use crate::fs::{CheckpointFs, Inodes, Open, RunTree, Tree};
use crate::output::VirtualFile;
use crate::run::Run;

/// The canonical path of `mount_point` where nothing stands against a mount on it: neither there nor in the system.
pub fn check(mount_point: &Path, options: &Options) -> Result<PathBuf> {
    if Descriptor::named_by(mount_point)?.is_some() {
        return Ok(mount_point.to_owned());
    }
    requirements::check(options.allow_other, options.threads())?;
    point::check(mount_point, &options.source)
}

/// Mounts `files` on the empty directory `mount_point`. The view answers when this returns.
pub fn mount(files: Vec<VirtualFile>, mount_point: &Path, options: &Options) -> Result<Mounted> {
    let files = match options.allow_other {
        true => others::limited(files)?,
        false => files,
    };
    serve(Box::new(Tree::new(files)?), None, mount_point, options)
}

/// Mounts a run. `open` makes the files of each of its checkpoints.
pub fn mount_run(
    run: Run,
    open: Box<Open>,
    mount_point: &Path,
    options: &Options,
) -> Result<Mounted> {
    let (sender, gone) = mpsc::channel();
    let tree = match options.allow_other {
        true => {
            let limited = move |path: &Path| others::limited(open(path)?);
            RunTree::new(run, Box::new(limited), sender).for_others()
        }
        false => RunTree::new(run, open, sender),
    };
    serve(Box::new(tree), Some(gone), mount_point, options)
}

/// The names that come from `gone` are those that the kernel should let go of.
fn serve(
    inodes: Box<dyn Inodes>,
    gone: Option<Receiver<String>>,
    mount_point: &Path,
    options: &Options,
) -> Result<Mounted> {
    if let Some(descriptor) = Descriptor::named_by(mount_point)? {
        let taken = descriptor.take(mount_point)?;
        let filesystem = CheckpointFs::new(inodes, options.reader.clone(), options.passthrough);
        return Mounted::start_on(taken, filesystem, gone, mount_point, options);
    }
    // Of two at the same moment, the second looks when the first is mounted.
    let _held = point::hold(mount_point);
    let point = check(mount_point, options)?;
    let filesystem = CheckpointFs::new(inodes, options.reader.clone(), options.passthrough);
    Mounted::start(filesystem, gone, point, options)
}

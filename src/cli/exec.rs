//! `ckptfs exec`.

mod child;
mod mount_folder;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::bail;
use clap::Args;

use super::inherited::Inherited;
use super::logging::Log;
use super::mount_log;
use super::{place, view};
use crate::mount::Options;
use child::Signals;
use mount_folder::MountFolder;
pub use mount_folder::clear_abandoned;

/// Placeholder for the path of the mount.
const PATH: &[u8] = b"{}";

/// Mount a checkpoint for the time of one command: ckptfs exec step-4000 -- vllm serve {}
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint: a directory or a file; RUN/latest is the latest save at the start
    #[arg(value_parser = place::source())]
    source: PathBuf,
    /// The command; {} in its arguments becomes the path of the mount
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    view: view::ViewOptions,
}

impl Arguments {
    pub fn view(&self) -> &view::ViewOptions {
        &self.view
    }
}

pub fn run(arguments: Arguments, inherited: &Inherited, log: &Log) -> anyhow::Result<ExitCode> {
    if !arguments.command.iter().any(|word| names_path(word)) {
        bail!(
            "the command names no {{}}; put it where the path of the mount belongs, as in -- ls {{}}"
        );
    }
    let source = view::single(&arguments.source)?;
    let view = view::open(&source, &arguments.view)?;
    let signals = Signals::take()?;
    let place = MountFolder::make(&source)?;
    let options = Options::new(&source);
    let mounted = crate::mount::mount(view.files, place.path(), &options)?;
    log.copy_to(mount_log::of(&mounted, &source), None);
    let mut command = command(&arguments.command, mounted.point());
    inherited.give_back(&mut command);
    let code = child::run(command, signals, log);
    // The command's own status says more than what hinders the unmounting.
    if let Err(error) = mounted.unmount() {
        tracing::warn!("{error}");
    }
    Ok(ExitCode::from(code?))
}

fn command(words: &[OsString], path: &Path) -> Command {
    let mut words = words.iter().map(|word| with_path(word, path));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn names_path(word: &OsStr) -> bool {
    word.as_bytes().windows(PATH.len()).any(|part| part == PATH)
}

fn with_path(word: &OsStr, path: &Path) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(PATH) {
            Some(after) => {
                replaced.extend(path.as_os_str().as_bytes());
                rest = after;
            }
            None => {
                replaced.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_braces_becomes_the_path() {
        let with = |word: &str| with_path(OsStr::new(word), Path::new("/m"));
        assert_eq!(with("{}"), "/m");
        assert_eq!(with("--model={}/x:{}"), "--model=/m/x:/m");
        assert_eq!(with("{ } {"), "{ } {");
        assert!(names_path(OsStr::new("a{}")) && !names_path(OsStr::new("{")));
    }
}

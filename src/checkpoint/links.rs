//! Where a path inside a checkpoint leads, found out without entering a mounted view: what serves it would wait for itself.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::mountinfo::{Device, is_view};

/// Most links in a row, as the kernel follows them.
const MOST_LINKS: usize = 40;

/// The path without links to which `path` leads from `start`, which has none itself.
///
/// # Errors
/// When that is nowhere, or in a view that does not hold `start` as well.
pub fn resolve(start: &Path, path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::io(&start.join(path), error);
    let mut at = start.to_owned();
    let mut rest = names(path.strip_prefix(start).unwrap_or(path));
    let mut links = 0;
    while let Some(name) = rest.pop() {
        match name.as_encoded_bytes() {
            b".." => drop(at.pop()),
            _ => at.push(name),
        }
        // Nothing can be mounted on a link.
        if let Some(target) = target(&at).map_err(failed)? {
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(io::Error::from_raw_os_error(libc::ELOOP)));
            }
            at.pop();
            rest.extend(names(&target));
        } else if is_other_view(&at, start) {
            let reason = "leads into a mounted view; put the file itself here";
            return Err(Error::checkpoint(&start.join(path), reason));
        }
    }
    Ok(at)
}

/// Whether `path` lies in a mounted view, and `start` not in the same.
fn is_other_view(path: &Path, start: &Path) -> bool {
    let device = Device::of(path);
    device != Device::of(start) && device.is_some_and(is_view)
}

/// The last first. The root is one of them.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    let names = names.filter(|name| *name != Component::CurDir);
    names.map(|name| name.as_os_str().to_owned()).collect()
}

/// Where the link at `path` leads, if it is one.
fn target(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink("b/../b/./file", root.join("a/inner")).unwrap();
        symlink(root.join("a"), root.join("whole")).unwrap();
        symlink("../whole/inner", root.join("a/outer")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        for path in [
            "a",
            "a/inner",
            "whole",
            "whole/b",
            "a/outer",
            "slash",
            "whole/../a",
        ] {
            let canonical = root.join(path).canonicalize().unwrap();
            assert_eq!(
                resolve(&root, Path::new(path)).unwrap(),
                canonical,
                "{path}"
            );
        }
        for path in ["circle", "a/missing", "a/inner/x"] {
            assert!(resolve(&root, Path::new(path)).is_err(), "{path}");
        }
    }
}

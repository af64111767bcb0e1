//! The memory limit of this process: the smallest limit that holds for it, whether it was set by ulimit or by a control group.
//!
//! A control group's limit holds for all groups below it, so every ancestor is asked: `memory.max` and `memory.high` of version 2,
//! `memory.limit_in_bytes` of version 1, whose `memory.stat` also tells the limits of ancestors that a container does not show.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::mountinfo::{self, Entry};

/// Limits in bytes of a group of version 2, as its files are called.
const V2: [&str; 2] = ["memory.max", "memory.high"];
const V1: [&str; 1] = ["memory.limit_in_bytes"];

/// The line of `memory.stat` in version 1 that takes account of all ancestors.
const HIERARCHICAL: &str = "hierarchical_memory_limit ";

/// Limit of the addresses of this process, which also counts what is mapped and never touched.
pub fn addresses() -> Option<u64> {
    limit(Resource::RLIMIT_AS)
}

/// The smallest limit of the memory of this process, in bytes.
pub fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = mountinfo::all().unwrap_or_default();
    let limits = [limit(Resource::RLIMIT_DATA), addresses()];
    limits
        .into_iter()
        .flatten()
        .chain(of_groups(&groups, &mounts))
        .min()
}

/// Memory that this process can have: the smallest limit, or all of the machine's.
pub fn obtainable_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let all = memory().into_iter().chain(total(&meminfo));
    all.min().unwrap_or(u64::MAX)
}

/// `MemTotal` of /proc/meminfo, which counts in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

fn limit(resource: Resource) -> Option<u64> {
    let soft = getrlimit(resource).ok()?.0;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// The limits of all groups that the lines of /proc/self/cgroup name.
fn of_groups(groups: &str, mounts: &[Entry]) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path, of version 2 without controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        let shows = |entry: &&Entry| match is_v2 {
            true => entry.kind == "cgroup2",
            false => {
                entry.kind == "cgroup" && entry.options.split(',').any(|name| name == "memory")
            }
        };
        for mount in mounts.iter().filter(shows) {
            limits.extend(of_hierarchy(
                mount,
                Path::new(path),
                if is_v2 { &V2 } else { &V1 },
            ));
        }
    }
    limits
}

/// The limits of the group `path` and of all above it, as far as `mount` shows them.
fn of_hierarchy(mount: &Entry, path: &Path, files: &[&str]) -> Vec<u64> {
    // A mount may show a part of the hierarchy, and a process may lie outside of it: then the part is all there is to see.
    let inside = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let leaf: PathBuf = mount.point.join(inside);
    let folders = leaf
        .ancestors()
        .take_while(|folder| folder.starts_with(&mount.point));
    let limits = folders.flat_map(|folder| files.iter().map(|file| folder.join(file)));
    let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse().ok();
    let stat = fs::read_to_string(leaf.join("memory.stat")).unwrap_or_default();
    let above = stat
        .lines()
        .find_map(|line| line.strip_prefix(HIERARCHICAL)?.parse().ok());
    limits.filter_map(read).chain(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount of a hierarchy whose files lie in a directory of the test.
    fn mounted(point: &Path, root: &str, kind: &str, options: &str) -> Entry {
        Entry {
            device: "0:1".to_owned(),
            root: root.into(),
            point: point.to_owned(),
            kind: kind.to_owned(),
            source: "cgroup".to_owned(),
            options: options.to_owned(),
        }
    }

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn every_ancestor_of_a_group_counts() {
        let v2 = tempfile::tempdir().unwrap();
        group(
            &v2.path().join("a/b"),
            &[("memory.max", "max\n"), ("memory.high", "900\n")],
        );
        group(
            &v2.path().join("a"),
            &[("memory.max", "800\n"), ("memory.high", "max\n")],
        );
        group(&v2.path().join("other"), &[("memory.max", "1\n")]);
        let mount = [mounted(v2.path(), "/", "cgroup2", "rw")];
        let smallest = |groups: &str, mounts: &[Entry]| of_groups(groups, mounts).into_iter().min();
        assert_eq!(smallest("0::/a/b\n", &mount), Some(800));
        assert_eq!(smallest("0::/a\n", &mount), Some(800));
        assert_eq!(smallest("0::/\n", &mount), None);
        assert_eq!(smallest("0::/gone\n", &mount), None);
        // A container that sees its own group alone, under the whole path or under none.
        let part = [mounted(
            &v2.path().join("a/b"),
            "/docker/b",
            "cgroup2",
            "rw",
        )];
        for groups in ["0::/docker/b\n", "0::/\n", "0::/../x\n"] {
            assert_eq!(smallest(groups, &part), Some(900), "{groups}");
        }
    }

    #[test]
    fn the_first_version_tells_limits_that_are_not_shown() {
        let v1 = tempfile::tempdir().unwrap();
        group(
            &v1.path().join("a"),
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "cache 5\nhierarchical_memory_limit 700\n"),
            ],
        );
        let mounts = [
            mounted(v1.path(), "/", "cgroup", "rw,memory"),
            mounted(&v1.path().join("cpu"), "/", "cgroup", "rw,cpu"),
        ];
        let groups = "3:cpu,cpuacct:/a\n2:name=systemd:/a\n1:memory:/a\n0::/\n";
        assert_eq!(of_groups(groups, &mounts).into_iter().min(), Some(700));
        assert!(of_groups("3:cpu:/a\n", &mounts).is_empty());
    }

    #[test]
    fn the_machine_bounds_what_can_be_had() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:  16 kB\n"), Some(16 << 10));
        assert!(obtainable_memory() > 1 << 20);
    }
}

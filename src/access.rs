//! Which users may read a file: as its own mode and ACL and those of every directory above it say, brought into the one owner, group
//! and mode that a file of a view can have.
//!
//! A caller is told apart by its user and its groups. Two files of one view, `a` of user 1 and group 9 with mode 0640 and `b` of user 2
//! and group 9 with mode 0640, are together read by members of group 9: user 1 is let into `b` as a member alone. No owner of the view's
//! file but root says so: root, group 9, 0440. Every combination of a user and groups that a mode or an ACL names is tried, so that no
//! mode lets a caller in whom one of the files keeps out.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bits of a mode.
pub const READ: u32 = 0o4;
pub const SEARCH: u32 = 0o1;

/// Groups of which all combinations are tried; of files with more, only what every caller may read is read by other users.
const MOST_GROUPS: usize = 8;

const ROOT: u32 = 0;

/// A file or directory that lets some callers in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    path: PathBuf,
    mode: u32,
    owner: (u32, bool),
    group: (u32, bool),
    /// Users and groups that an ACL names.
    users: Vec<(u32, bool)>,
    groups: Vec<(u32, bool)>,
    other: bool,
}

impl Guard {
    /// Of a file or directory without asking more of it than `needed` says: to read or list it, or to pass through.
    pub fn of_path(path: &Path, needed: u32) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: both names end in a zero byte, the memory is as long as is said, and all outlive the call.
        let acl = acl(|value, size| unsafe {
            libc::lgetxattr(name.as_ptr(), ACL.as_ptr(), value, size)
        })?;
        Ok(Self::new(path, &found, &acl, needed))
    }

    /// Of a file that is read.
    pub fn of_file(path: &Path, file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let number = file.as_raw_fd();
        // SAFETY: the descriptor is open, the name ends in a zero byte, the memory is as long as is said; all outlive the call.
        let acl = acl(|value, size| unsafe { libc::fgetxattr(number, ACL.as_ptr(), value, size) })?;
        Ok(Self::new(path, &found, &acl, READ))
    }

    /// Of a file that has this owner, group and mode.
    pub fn of_mode(path: &Path, (owner, group): (u32, u32), mode: u32) -> Self {
        let allows = |shift: u32| mode >> shift & READ == READ;
        Self {
            path: path.to_owned(),
            mode,
            owner: (owner, allows(6)),
            group: (group, allows(3)),
            users: Vec::new(),
            groups: Vec::new(),
            other: allows(0),
        }
    }

    fn new(path: &Path, found: &Metadata, acl: &[Entry], needed: u32) -> Self {
        let allows = |bits: u32| bits & needed == needed;
        let mode = found.mode();
        let mask = acl.iter().find(|entry| entry.tag == MASK);
        let mask = mask.map_or(0o7, |entry| entry.bits);
        let of = |tag: u16| acl.iter().filter(move |entry| entry.tag == tag);
        let named = |tag| {
            of(tag)
                .map(|entry| (entry.id, allows(entry.bits & mask)))
                .collect()
        };
        // With an ACL, the mode's bits of the group are the mask.
        let group = of(GROUP_OBJ)
            .next()
            .map_or(mode >> 3 & 0o7, |entry| entry.bits & mask);
        Self {
            path: path.to_owned(),
            mode: mode & 0o7777,
            owner: (found.uid(), allows(mode >> 6)),
            group: (found.gid(), allows(group)),
            users: named(USER),
            groups: named(GROUP),
            other: allows(mode),
        }
    }

    /// Whether a caller is let in, as acl(5) has it.
    fn admits(&self, caller: &Caller) -> bool {
        let is_user = |(user, _): &&(u32, bool)| *user == caller.user;
        if self.owner.0 == caller.user {
            return self.owner.1;
        }
        if let Some((_, is_allowed)) = self.users.iter().find(is_user) {
            return *is_allowed;
        }
        let groups = self.groups.iter().chain([&self.group]);
        let mut of_caller = groups
            .filter(|(group, _)| caller.groups.contains(group))
            .peekable();
        match of_caller.peek() {
            Some(_) => of_caller.any(|(_, is_allowed)| *is_allowed),
            None => self.other,
        }
    }

    fn admits_all(&self) -> bool {
        let named = self.users.iter().chain(&self.groups);
        let mut all = named.chain([&self.owner, &self.group]);
        self.other && all.all(|(_, is_allowed)| *is_allowed)
    }

    fn same_rules(&self, other: &Self) -> bool {
        let rules = |guard: &Self| (guard.owner, guard.group, guard.other);
        rules(self) == rules(other) && self.users == other.users && self.groups == other.groups
    }
}

/// A user and the groups of one process.
#[derive(Debug, Clone)]
struct Caller {
    user: u32,
    groups: Vec<u32>,
}

/// Several guards of which each must let a caller in. Those that let everyone in are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guards(Vec<Guard>);

impl Guards {
    pub fn add(&mut self, guard: Guard) {
        if !guard.admits_all() && !self.0.iter().any(|other| other.same_rules(&guard)) {
            self.0.push(guard);
        }
    }

    pub fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|guard| self.add(guard.clone()));
    }

    fn admit(&self, caller: &Caller) -> bool {
        self.0.iter().all(|guard| guard.admits(caller))
    }

    /// The first that keep other users out, for a message.
    fn keepers(&self) -> String {
        let keepers = self.0.iter().take(2).map(|guard| {
            let (path, mode, owner) = (guard.path.display(), guard.mode, guard.owner.0);
            format!("{path} has mode {mode:04o} and belongs to user {owner}")
        });
        keepers.collect::<Vec<_>>().join(", ")
    }
}

/// The guards of all directories above a file or folder at a canonical path.
pub fn above(path: &Path) -> io::Result<Guards> {
    let mut guards = Guards::default();
    for folder in path.ancestors().skip(1) {
        guards.add(Guard::of_path(folder, SEARCH)?);
    }
    Ok(guards)
}

/// The owner, the group and the mode of a directory that shows the folder or file at a canonical path, as those above it leave
/// them.
pub fn folder(path: &Path) -> io::Result<(u32, u32, u16)> {
    let (found, above) = (fs::symlink_metadata(path)?, above(path)?);
    let guarded = |needed| {
        let mut guards = above.clone();
        guards.add(Guard::of_path(path, needed)?);
        io::Result::Ok(guards)
    };
    let enter = if found.is_dir() { SEARCH } else { READ };
    let both = [guarded(READ)?, guarded(enter)?];
    let readers = settle(&both, (found.uid(), found.gid()));
    let mut modes = readers.files.iter().map(|file| file.mode);
    let (list, enter) = (modes.next().unwrap_or(0), modes.next().unwrap_or(0));
    Ok((readers.owner, readers.group, list | enter >> 2))
}

/// The owner and group of all files of a view, and what each file's mode lets in.
#[derive(Debug, PartialEq, Eq)]
pub struct Readers {
    pub owner: u32,
    pub group: u32,
    pub files: Vec<FileReaders>,
}

/// The users who may read one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReaders {
    /// Permission bits, readable ones only.
    pub mode: u16,
    /// Why none but root and the owner of the mount reads it, where that is so.
    pub closed: Option<String>,
    /// Whether some callers read the sources, and none but root this file.
    pub is_lost: bool,
}

/// The owner, group and modes that let in as many of those whom `files` let in as can be, and no other caller. `preferred` are an
/// owner and a group that are taken where they do as well as others.
pub fn settle(files: &[Guards], preferred: (u32, u32)) -> Readers {
    let groups: Vec<u32> = [preferred.1].into_iter().chain(groups(files)).collect();
    if groups.len() > MOST_GROUPS {
        return closed(files, preferred);
    }
    let callers = callers(&users(files, preferred.0), &groups);
    let admitted: Vec<Vec<bool>> = files
        .iter()
        .map(|guards| callers.iter().map(|caller| guards.admit(caller)).collect())
        .collect();
    let guards = || files.iter().flat_map(|guards| &guards.0);
    let owners = [preferred.0, ROOT]
        .into_iter()
        .chain(guards().map(|guard| guard.owner.0));
    let mut best: Option<(usize, Readers)> = None;
    for owner in owners {
        for group in &groups {
            let modes = admitted
                .iter()
                .map(|admitted| mode(owner, *group, &callers, admitted));
            let modes: Vec<(u16, usize)> = modes.collect();
            let count = modes.iter().map(|(_, count)| count).sum();
            if best.as_ref().is_none_or(|(most, _)| count > *most) {
                let each = files.iter().zip(&admitted).zip(&modes);
                let files = each.map(|((guards, admitted), (mode, count))| {
                    let is_open = admitted.contains(&true);
                    FileReaders {
                        mode: *mode,
                        closed: (*count == 0).then(|| guards.keepers()),
                        is_lost: is_open && *count == 0,
                    }
                });
                let files = files.collect();
                best = Some((
                    count,
                    Readers {
                        owner,
                        group: *group,
                        files,
                    },
                ));
            }
        }
    }
    best.map_or_else(|| closed(files, preferred), |(_, readers)| readers)
}

/// Files of too many groups are read by whom all let in, or not at all.
fn closed(files: &[Guards], (owner, group): (u32, u32)) -> Readers {
    let files = files.iter().map(|guards| match guards.0.is_empty() {
        true => FileReaders {
            mode: 0o444,
            closed: None,
            is_lost: false,
        },
        false => FileReaders {
            mode: 0,
            closed: Some(guards.keepers()),
            is_lost: true,
        },
    });
    Readers {
        owner,
        group,
        files: files.collect(),
    }
}

/// The bits of a mode that let in admitted callers alone, and how many those are.
fn mode(owner: u32, group: u32, callers: &[Caller], admitted: &[bool]) -> (u16, usize) {
    let class = |caller: &Caller| match caller {
        caller if caller.user == owner => 0,
        caller if caller.groups.contains(&group) => 1,
        _ => 2,
    };
    let mut bits = [true; 3];
    for (caller, is_admitted) in callers.iter().zip(admitted) {
        if let Some(bit) = bits.get_mut(class(caller)) {
            *bit &= is_admitted;
        }
    }
    let mode = [0o400, 0o040, 0o004].into_iter().zip(bits);
    let mode = mode.filter(|(_, is_set)| *is_set).map(|(bit, _)| bit).sum();
    let is_in = |caller: &&Caller| bits.get(class(caller)) == Some(&true);
    (mode, callers.iter().filter(is_in).count())
}

/// Every kind of caller that the guards tell apart. Root is let in anyway.
fn callers(users: &BTreeSet<u32>, groups: &[u32]) -> Vec<Caller> {
    let sets = subsets(groups);
    let of_user = |user: &u32| {
        let user = *user;
        sets.iter().map(move |groups| Caller {
            user,
            groups: groups.clone(),
        })
    };
    users.iter().flat_map(of_user).collect()
}

fn subsets(groups: &[u32]) -> Vec<Vec<u32>> {
    let all = 0..1_usize << groups.len();
    let chosen = |set: usize| {
        let each = groups.iter().enumerate();
        each.filter(move |(bit, _)| set >> bit & 1 == 1)
            .map(|(_, group)| *group)
    };
    all.map(|set| chosen(set).collect()).collect()
}

fn groups(files: &[Guards]) -> BTreeSet<u32> {
    let guards = files.iter().flat_map(|guards| &guards.0);
    let named = |guard: &Guard| {
        guard
            .groups
            .iter()
            .map(|(group, _)| *group)
            .collect::<Vec<_>>()
    };
    guards
        .flat_map(|guard| named(guard).into_iter().chain([guard.group.0]))
        .collect()
}

/// The users that are named, and one that is not.
fn users(files: &[Guards], owner: u32) -> BTreeSet<u32> {
    let guards = files.iter().flat_map(|guards| &guards.0);
    let named = |guard: &Guard| {
        guard
            .users
            .iter()
            .map(|(user, _)| *user)
            .collect::<Vec<_>>()
    };
    let mut users: BTreeSet<u32> = guards
        .flat_map(|guard| named(guard).into_iter().chain([guard.owner.0]))
        .collect();
    users.insert(owner);
    users.remove(&ROOT);
    let stranger = (1..).find(|user| !users.contains(user));
    users.extend(stranger);
    users
}

/// One entry of an ACL.
struct Entry {
    tag: u16,
    bits: u32,
    id: u32,
}

/// The attribute that holds an ACL, and its format: a version, then entries of a tag, bits and a number.
const ACL: &CStr = c"system.posix_acl_access";
const HEADER: usize = 4;
const ENTRY: usize = 8;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// Reads an ACL. Empty where there is none, or the filesystem has none.
fn acl(get: impl Fn(*mut libc::c_void, usize) -> isize) -> io::Result<Vec<Entry>> {
    // The kernel keeps no longer attribute.
    let mut value = vec![0; 64 << 10];
    let length = get(value.as_mut_ptr().cast(), value.len());
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(Vec::new()),
            _ => Err(error),
        };
    };
    let entries = value
        .get(HEADER..length)
        .unwrap_or_default()
        .chunks_exact(ENTRY);
    Ok(entries.filter_map(entry).collect())
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let (tag, rest) = bytes.split_first_chunk()?;
    let (bits, id) = rest.split_first_chunk()?;
    Some(Entry {
        tag: u16::from_le_bytes(*tag),
        bits: u16::from_le_bytes(*bits).into(),
        id: u32::from_le_bytes(id.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guards(of: &[((u32, u32), u32)]) -> Guards {
        let mut guards = Guards::default();
        for (owner, mode) in of {
            guards.add(Guard::of_mode(Path::new("/x"), *owner, *mode));
        }
        guards
    }

    fn settled(of: &[((u32, u32), u32)]) -> (u32, u32, u16) {
        let preferred = of.first().unwrap().0;
        let readers = settle(&[guards(of)], preferred);
        (readers.owner, readers.group, readers.files[0].mode)
    }

    #[test]
    fn one_owner_keeps_the_mode() {
        assert_eq!(settled(&[((1, 9), 0o644)]), (1, 9, 0o444));
        assert_eq!(settled(&[((1, 9), 0o640), ((0, 0), 0o755)]), (1, 9, 0o440));
        assert_eq!(settled(&[((1, 9), 0o600), ((1, 9), 0o644)]), (1, 9, 0o400));
        assert_eq!(settled(&[((0, 0), 0o600)]).2, 0o400);
        // A group that is kept out of what all others read.
        assert_eq!(settled(&[((1, 9), 0o604)]), (1, 9, 0o404));
    }

    #[test]
    fn files_of_two_owners_are_read_by_whom_both_let_in() {
        assert_eq!(settled(&[((1, 8), 0o644), ((2, 9), 0o644)]).2, 0o444);
        let (owner, group, mode) = settled(&[((1, 9), 0o640), ((2, 9), 0o640)]);
        assert_eq!((owner, group, mode & 0o077), (0, 9, 0o040));
        let readers = settle(&[guards(&[((1, 8), 0o600), ((2, 9), 0o600)])], (1, 8));
        assert_eq!(readers.files[0].mode & 0o044, 0);
        assert!(readers.owner != 1 && readers.owner != 2 || readers.files[0].mode == 0);
        assert!(!readers.files[0].is_lost);
        let closed = readers.files[0].closed.as_deref().unwrap();
        assert!(closed.contains("mode 0600"), "{closed}");
    }

    #[test]
    fn two_groups_that_must_both_be_had_are_no_groups_file() {
        let readers = settle(&[guards(&[((1, 8), 0o640), ((2, 9), 0o640)])], (1, 8));
        assert_eq!(readers.files[0].mode & 0o044, 0);
        assert!(readers.files[0].is_lost);
    }

    #[test]
    fn an_acl_counts_as_acl_5_has_it() {
        let mut guard = Guard::of_mode(Path::new("/x"), (1, 9), 0o604);
        guard.users = vec![(5, true), (6, false)];
        guard.groups = vec![(7, true), (8, false)];
        let admits = |user, groups: &[u32]| {
            guard.admits(&Caller {
                user,
                groups: groups.to_vec(),
            })
        };
        assert!(admits(1, &[9]) && admits(5, &[9]) && !admits(6, &[7]));
        assert!(!admits(2, &[9]) && !admits(2, &[8]) && admits(2, &[7, 8]) && admits(2, &[]));
    }

    #[test]
    fn entries_of_the_kernel() {
        let bytes = [
            2, 0, 0, 0, 0x02, 0, 5, 0, 0xE9, 3, 0, 0, 0x10, 0, 7, 0, 0xFF, 0xFF, 0xFF, 0xFF,
        ];
        let get = |value: *mut libc::c_void, size: usize| {
            assert!(size >= bytes.len());
            // SAFETY: the memory is at least as long as what is copied to it.
            unsafe { value.cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
            bytes.len() as isize
        };
        let entries = acl(get).unwrap();
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (entry.tag, entry.bits, entry.id))
            .collect();
        assert_eq!(entries, [(USER, 5, 1001), (MASK, 7, u32::MAX)]);
    }

    fn any_guards() -> impl Strategy<Value = Vec<((u32, u32), u32)>> {
        let one = ((0u32..4, 0u32..4), 0u32..0o1000);
        proptest::collection::vec(one, 1..5)
    }

    proptest! {
        /// Whatever the files say, the mode of the view lets in no caller whom one of them keeps out.
        #[test]
        fn no_caller_is_let_in_whom_a_file_keeps_out(files in proptest::collection::vec(any_guards(), 1..4)) {
            let all: Vec<Guards> = files.iter().map(|file| guards(file)).collect();
            let readers = settle(&all, files[0][0].0);
            for user in 1..6 {
                for groups in subsets(&[0, 1, 2, 3, 4]) {
                    let caller = Caller { user, groups };
                    for (guards, file) in all.iter().zip(&readers.files) {
                        let owner = (readers.owner, readers.group);
                        let view = Guard::of_mode(Path::new("/v"), owner, file.mode.into());
                        prop_assert!(!view.admits(&caller) || guards.admit(&caller), "{caller:?} {readers:?}");
                    }
                }
            }
        }
    }
}

//! The zip archive of `torch.save`: a strict reader that finds where each stored member lies and reads no tensor.
//!
//! Format: PKWARE APPNOTE 6.3.10; torch 2.15.0 `torch/serialization.py` and `caffe2/serialize/inline_container.cc`.

mod directory;
mod window;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use self::directory::{Entry, Fields};
use self::window::Window;
use super::section::Section;
use crate::error::Result;
use crate::source::Charge;

/// Bytes of a local header before its name.
const LOCAL_HEADER: u64 = 30;

/// The member that tells the order of bytes; little without one.
const BYTE_ORDER: &str = "byteorder";

/// Bytes summed at a time.
const BLOCK: u64 = 1 << 20;

/// Most bytes of a member that is rather read over than jumped over on the way to the next local header.
const SMALL: u64 = 4 << 10;

/// A zip whose members are stored, disjoint and under one top folder.
#[derive(Debug)]
pub struct Archive {
    section: Section,
    members: HashMap<String, Member>,
    /// The folder of `data.pkl`, with a slash.
    root: String,
    /// For the members.
    _charge: Charge,
}

#[derive(Debug)]
struct Member {
    entry: Entry,
    /// Where the next member or the directory begins.
    end: u64,
    data: OnceLock<u64>,
}

impl Archive {
    pub fn open(section: Section) -> Result<Self> {
        let (directory, entries, charge) = directory::read(&section)?;
        let root = root(&section, &entries)?;
        let members = disjoint(&section, directory, entries)?;
        let archive = Self {
            section,
            members,
            root,
            _charge: charge,
        };
        archive.refuse_other_case(BYTE_ORDER)?;
        match archive.read(BYTE_ORDER, 16)?.as_deref() {
            None | Some(b"little") => Ok(archive),
            Some(order) => Err(archive.section.unserved(format!(
                "has {} byte order; save it again on a little-endian machine",
                order.escape_ascii()
            ))),
        }
    }

    pub fn section(&self) -> &Section {
        &self.section
    }

    /// Refuses a member that torch, which folds the case of names, takes for `name`.
    fn refuse_other_case(&self, name: &str) -> Result<()> {
        let name = format!("{}{name}", self.root);
        let is_other = |own: &&String| **own != name && own.eq_ignore_ascii_case(&name);
        match self.members.keys().find(is_other) {
            Some(other) => Err(self.refuse(other, "has a name in another case than torch writes")),
            None => Ok(()),
        }
    }

    /// Place in the file and size of a storage's bytes.
    pub fn storage(&self, key: &str) -> Result<(u64, u64)> {
        let name = format!("{}data/{key}", self.root);
        match self.members.get(&name) {
            Some(member) => Ok((
                self.section.start() + self.data(&name, member)?,
                member.entry.size,
            )),
            None => Err(self.section.refuse(format!("storage {key:?} is missing"))),
        }
    }

    /// Bytes of a member.
    pub fn size(&self, name: &str) -> Option<u64> {
        let member = self.members.get(&format!("{}{name}", self.root))?;
        Some(member.entry.size)
    }

    /// The bytes of a small member, checked against its checksum where the writer made one.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let name = format!("{}{name}", self.root);
        let Some(member) = self.members.get(&name) else {
            return Ok(None);
        };
        if member.entry.size > limit {
            let size = member.entry.size;
            return Err(self.refuse(&name, &format!("has {size} bytes, more than {limit}")));
        }
        let bytes = self
            .section
            .read(self.data(&name, member)?, member.entry.size)?;
        match member.entry.crc {
            0 => Ok(Some(bytes)),
            crc if crc == crc32fast::hash(&bytes) => Ok(Some(bytes)),
            _ => Err(self.refuse(&name, "does not match its checksum")),
        }
    }

    /// Checks every member against its checksum; whether there are any. torch can be told to write none.
    pub fn check_sums(&self) -> Result<bool> {
        let summed = || {
            self.members
                .iter()
                .filter(|(_, member)| member.entry.crc != 0)
        };
        for (name, member) in summed() {
            if self.sum(name, member)? != member.entry.crc {
                return Err(self.refuse(name, "does not match its checksum"));
            }
        }
        Ok(summed().next().is_some())
    }

    fn sum(&self, name: &str, member: &Member) -> Result<u32> {
        let (start, size) = (self.data(name, member)?, member.entry.size);
        let mut blocks = (0..size).step_by(BLOCK as usize);
        let mut sum = crc32fast::Hasher::new();
        blocks.try_for_each(|at| {
            sum.update(&self.section.read(start + at, BLOCK.min(size - at))?);
            Ok(())
        })?;
        Ok(sum.finalize())
    }

    /// Where a member's bytes start. The lengths that count are those of the local header, not of the directory.
    fn data(&self, name: &str, member: &Member) -> Result<u64> {
        if let Some(start) = member.data.get() {
            return Ok(*start);
        }
        match member.place(name, |at, count| self.section.read(at, count))? {
            Some(start) => Ok(*member.data.get_or_init(|| start)),
            None => Err(self.refuse(name, "contradicts its local header")),
        }
    }

    fn refuse(&self, name: &str, reason: &str) -> crate::error::Error {
        self.section.refuse(format!("zip member {name} {reason}"))
    }
}

impl Member {
    /// Where the bytes start, `None` if what stands around them contradicts the directory.
    fn place(
        &self,
        name: &str,
        mut read: impl FnMut(u64, u64) -> Result<Vec<u8>>,
    ) -> Result<Option<u64>> {
        let header = read(self.entry.header, LOCAL_HEADER + name.len() as u64)?;
        let length = check_local(&header, name, &self.entry);
        match length.and_then(|length| self.entry.header.checked_add(length)) {
            Some(start) if self.ends_well(start, read)? => Ok(Some(start)),
            _ => Ok(None),
        }
    }

    /// Whether between the data and the next member lies only what the format demands. Without this, a local header of
    /// another length would move the data by as much.
    fn ends_well(
        &self,
        start: u64,
        mut read: impl FnMut(u64, u64) -> Result<Vec<u8>>,
    ) -> Result<bool> {
        let end = start.checked_add(self.entry.size);
        let rest = end.and_then(|end| Some((end, self.end.checked_sub(end)?)));
        match (rest, self.entry.flags & directory::SIZES_FOLLOW != 0) {
            (Some((_, rest)), false) => Ok(rest == 0),
            (Some((end, rest @ (16 | 24))), true) => {
                Ok(is_descriptor(&read(end, rest)?, &self.entry))
            }
            _ => Ok(false),
        }
    }

    /// Looks at a small member on the way. Errors in members that are never read are ignored.
    fn pass(&self, name: &str, window: &mut Window<'_>) {
        if self.entry.size <= SMALL
            && let Ok(Some(start)) = self.place(name, |at, count| window.read(at, count))
        {
            self.data.get_or_init(|| start);
        }
    }
}

/// Length of a local header that agrees with the directory. torch leaves its sizes zero and writes them behind the data.
fn check_local(header: &[u8], name: &str, entry: &Entry) -> Option<u64> {
    let mut fields = Fields::new(header);
    let signature = fields.bytes(4)?;
    let _version = fields.uint::<2>()?;
    let (flags, method) = (fields.uint::<2>()?, fields.uint::<2>()?);
    let _time = fields.uint::<4>()?;
    let crc = fields.uint::<4>()?;
    let sizes = [fields.uint::<4>()?, fields.uint::<4>()?];
    let (name_length, extra_length) = (fields.uint::<2>()?, fields.uint::<2>()?);
    let later = flags & directory::SIZES_FOLLOW != 0;
    let agrees =
        |size: u64| size == entry.size || size == u64::from(u32::MAX) || (later && size == 0);
    let same = signature == b"PK\x03\x04"
        && (flags, method) == (entry.flags, 0)
        && (crc == u64::from(entry.crc) || (later && crc == 0))
        && sizes.into_iter().all(agrees)
        && fields.bytes(name_length as usize)? == name.as_bytes();
    same.then_some(LOCAL_HEADER + name_length + extra_length)
}

/// The record behind the data of a member whose sizes stand there: a signature, checksum and twice the size. The format leaves the
/// signature open and every writer sets it; were it optional, data could begin four bytes late and take it along.
fn is_descriptor(bytes: &[u8], entry: &Entry) -> bool {
    let Some(bytes) = bytes.strip_prefix(b"PK\x07\x08") else {
        return false;
    };
    let mut fields = Fields::new(bytes);
    let crc = fields.uint::<4>();
    let sizes = match bytes.len() {
        12 => [fields.uint::<4>(), fields.uint::<4>()],
        _ => [fields.uint::<8>(), fields.uint::<8>()],
    };
    crc == Some(entry.crc.into()) && sizes == [Some(entry.size); 2]
}

/// Members by name, none of which can reach into the next.
fn disjoint(
    section: &Section,
    directory: u64,
    mut entries: Vec<Entry>,
) -> Result<HashMap<String, Member>> {
    entries.sort_by_key(|entry| entry.header);
    if entries.first().is_none_or(|entry| entry.header != 0) {
        return Err(section.refuse("no zip archive: something else comes before its first member"));
    }
    let starts = entries.iter().skip(1).map(|entry| entry.header);
    let ends: Vec<u64> = starts.chain([directory]).collect();
    let mut members = HashMap::with_capacity(entries.len());
    // torch finds a member whatever the case of its letters.
    let mut folded = HashSet::with_capacity(entries.len());
    let mut window = Window::new(section);
    for (mut entry, end) in entries.into_iter().zip(ends) {
        let name = std::mem::take(&mut entry.name);
        check_stored(section, &name, &entry, end)?;
        let data = OnceLock::new();
        let member = Member { entry, end, data };
        member.pass(&name, &mut window);
        let is_new = folded.insert(name.to_ascii_lowercase());
        if !is_new || members.insert(name.clone(), member).is_some() {
            return Err(section.refuse(format!("two zip members are named {name}")));
        }
    }
    Ok(members)
}

/// Refuses a member that is not stored as it is, before `end`.
fn check_stored(section: &Section, name: &str, entry: &Entry, end: u64) -> Result<()> {
    if entry.method != 0 {
        let method = directory::compression(entry.method);
        let reason =
            format!("zip member {name} is compressed ({method}); save it again with torch.save");
        return Err(section.unserved(reason));
    }
    let least = (LOCAL_HEADER + name.len() as u64).checked_add(entry.size);
    match least.and_then(|length| length.checked_add(entry.header)) {
        Some(own) if own <= end => Ok(()),
        _ => Err(section.refuse(format!("zip member {name} overlaps what follows it"))),
    }
}

/// The only folder with a `data.pkl`, with a slash.
fn root(section: &Section, entries: &[Entry]) -> Result<String> {
    let names = || entries.iter().map(|entry| entry.name.as_str());
    let roots = names().filter_map(|name| {
        name.strip_suffix("data.pkl")
            .filter(|root| root.ends_with('/'))
    });
    let root = match roots
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .as_slice()
    {
        [root] => (*root).to_owned(),
        [] => {
            return Err(section.unserved(
                "a zip archive without data.pkl: not written by torch.save; name the file that it wrote",
            ));
        }
        [one, other, ..] => {
            let reason = format!("holds two pickles, {one}data.pkl and {other}data.pkl");
            return Err(section.refuse(reason));
        }
    };
    let program = |name: &str| {
        name.strip_prefix(&*root)
            .is_some_and(|own| own == "constants.pkl" || own.starts_with("code/"))
    };
    match names().any(program) {
        true => {
            Err(section
                .unserved("is TorchScript, a program; save the state_dict of the model instead"))
        }
        false => Ok(root),
    }
}

#[cfg(test)]
mod tests;

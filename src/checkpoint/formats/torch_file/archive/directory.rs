//! The end records and the central directory of a zip, read in the one way in which they are consistent.

use super::super::section::Section;
use crate::error::Result;
use crate::source::Charge;

/// Most members: a storage each, and a checkpoint file has thousands.
const MEMBER_LIMIT: u64 = 500_000;
/// Most bytes of the directory.
const DIRECTORY_LIMIT: u64 = 64 << 20;
/// Memory that each byte of the directory takes: a member has 46 and its name, and is kept in a vector and in a map.
const MEMBER_COST: u64 = 8;
/// Bytes of the end record, of the zip64 locator and of the zip64 end record.
const END: u64 = 22;
const LOCATOR: u64 = 20;
const END64: u64 = 56;
/// Flag: sizes and checksum follow the data instead of standing in the local header.
pub const SIZES_FOLLOW: u64 = 1 << 3;
/// Flags that change nothing for stored members: compression hints, sizes that follow, UTF-8 names.
const PLAIN_FLAGS: u64 = 0b110 | SIZES_FOLLOW | 1 << 11;
/// Flags of encryption and patches.
const ENCRYPTED_FLAGS: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 13;

/// A member as the directory tells it.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub flags: u64,
    /// How it is compressed: 0 for stored.
    pub method: u64,
    pub crc: u32,
    /// Bytes that it takes in the file.
    pub size: u64,
    /// Where its local header starts.
    pub header: u64,
}

type Checked<T> = std::result::Result<T, String>;

/// Little-endian fields, read from front to back.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn uint<const N: usize>(&mut self) -> Option<u64> {
        let bytes = self.bytes(N)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    }
}

/// Where the directory starts, what it lists, and the charge for that.
pub fn read(section: &Section) -> Result<(u64, Vec<Entry>, Charge)> {
    let tail_start = section.length().saturating_sub(END + LOCATOR + END64);
    let tail = section.read(tail_start, section.length() - tail_start)?;
    let refuse = |reason: String| section.refuse(reason);
    let end = End::find(&tail, tail_start).map_err(refuse)?;
    if end.count > MEMBER_LIMIT || end.size > DIRECTORY_LIMIT {
        return Err(section.refuse(format!(
            "a zip directory of {} members, {} bytes",
            end.count, end.size
        )));
    }
    let charge = section.charge(end.size.saturating_mul(MEMBER_COST))?;
    let bytes = section.read(end.start, end.size)?;
    let mut fields = Fields::new(&bytes);
    let mut entries = Vec::new();
    for _ in 0..end.count {
        let entry = entry(&mut fields)
            .unwrap_or_else(|| Err("a zip directory that ends too early".to_owned()));
        entries.push(entry.map_err(refuse)?);
    }
    match fields.0 {
        [] => Ok((end.start, entries, charge)),
        _ => Err(section.refuse("a zip directory with bytes that belong to no member")),
    }
}

/// The directory as the end records describe it.
#[derive(Debug, PartialEq)]
struct End {
    count: u64,
    size: u64,
    start: u64,
}

impl End {
    /// Reads the last bytes of a zip, which start at `position`. Neither comments nor anything else may follow, so that
    /// no second end record can hide in them.
    fn find(tail: &[u8], position: u64) -> Checked<Self> {
        let cut = |length: u64| {
            (tail.len() as u64)
                .checked_sub(length)
                .map(|at| at as usize)
        };
        let record = cut(END).and_then(|at| tail.get(at..)).and_then(Self::read);
        let Some(short) = record else {
            return Err(
                "does not end as a zip archive does: an incomplete file, or bytes were added to it"
                    .to_owned(),
            );
        };
        let at = cut(END + LOCATOR).unwrap_or(0);
        let (before, rest) = tail.split_at_checked(at).unwrap_or((&[], tail));
        let (end, after) = match rest.strip_prefix(b"PK\x06\x07") {
            Some(locator) => {
                let start = before.len().saturating_sub(END64 as usize);
                let long = before.get(start..).and_then(Self::read64);
                let long = long.filter(|long| {
                    short.stands_for(long) && locates(locator, position + start as u64)
                });
                (
                    long.ok_or("its zip64 end records contradict each other")?,
                    position + start as u64,
                )
            }
            None => (short, position + tail.len() as u64 - END),
        };
        match end.start.checked_add(end.size) {
            Some(stop) if stop == after => Ok(end),
            _ => Err("its zip directory does not lie before its end record".to_owned()),
        }
    }

    fn read(record: &[u8]) -> Option<Self> {
        let mut fields = Fields(record.strip_prefix(b"PK\x05\x06")?);
        let disks = fields.uint::<4>()?;
        let (here, count) = (fields.uint::<2>()?, fields.uint::<2>()?);
        let (size, start) = (fields.uint::<4>()?, fields.uint::<4>()?);
        let comment = fields.uint::<2>()?;
        (disks == 0 && comment == 0 && here == count).then_some(Self { count, size, start })
    }

    fn read64(record: &[u8]) -> Option<Self> {
        let mut fields = Fields(record.strip_prefix(b"PK\x06\x06")?);
        let length = fields.uint::<8>()?;
        let _versions = fields.uint::<4>()?;
        let disks = fields.uint::<8>()?;
        let (here, count) = (fields.uint::<8>()?, fields.uint::<8>()?);
        let (size, start) = (fields.uint::<8>()?, fields.uint::<8>()?);
        (length == END64 - 12 && disks == 0 && here == count).then_some(Self { count, size, start })
    }

    /// Whether each field is that of the zip64 record, or the placeholder for it.
    fn stands_for(&self, long: &Self) -> bool {
        let same = |short: u64, long: u64, placeholder: u64| short == long || short == placeholder;
        same(self.count, long.count, u16::MAX.into())
            && same(self.size, long.size, u32::MAX.into())
            && same(self.start, long.start, u32::MAX.into())
    }
}

/// Whether a zip64 locator names `position` on the only disk.
fn locates(locator: &[u8], position: u64) -> bool {
    let mut fields = Fields(locator);
    let values = (fields.uint::<4>(), fields.uint::<8>(), fields.uint::<4>());
    values == (Some(0), Some(position), Some(1))
}

/// The next member of the directory. `None`: the directory ends inside it.
fn entry(fields: &mut Fields<'_>) -> Option<Checked<Entry>> {
    let signature = fields.bytes(4)?;
    let _versions = fields.uint::<4>()?;
    let (flags, method) = (fields.uint::<2>()?, fields.uint::<2>()?);
    let _time = fields.uint::<4>()?;
    let crc = fields.uint::<4>()? as u32;
    let (compressed, size) = (fields.uint::<4>()?, fields.uint::<4>()?);
    let lengths = [
        fields.uint::<2>()?,
        fields.uint::<2>()?,
        fields.uint::<2>()?,
    ];
    let disk = fields.uint::<2>()?;
    let _attributes = fields.bytes(6)?;
    let header = fields.uint::<4>()?;
    let [name, extra, _comment] = [
        fields.bytes(lengths[0] as usize)?,
        fields.bytes(lengths[1] as usize)?,
        fields.bytes(lengths[2] as usize)?,
    ];
    if signature != b"PK\x01\x02" {
        return Some(Err("a broken zip directory".to_owned()));
    }
    let sizes = Sizes {
        size,
        compressed,
        header,
        disk,
    }
    .widened(extra);
    Some(checked_name(name).and_then(|name| {
        let sizes = sizes.ok_or_else(|| format!("zip member {name} lacks its zip64 sizes"))?;
        check_flags(&name, flags, sizes.disk)?;
        if method == 0 && sizes.compressed != sizes.size {
            return Err(format!("zip member {name} is stored with two sizes"));
        }
        Ok(Entry {
            name,
            flags,
            method,
            crc,
            size: sizes.compressed,
            header: sizes.header,
        })
    }))
}

struct Sizes {
    size: u64,
    compressed: u64,
    header: u64,
    disk: u64,
}

impl Sizes {
    /// With the fields that overflow taken from the zip64 extra, which holds only those, in this order.
    fn widened(mut self, extra: &[u8]) -> Option<Self> {
        let mut long = Fields(zip64_extra(extra).unwrap_or(&[]));
        for field in [&mut self.size, &mut self.compressed, &mut self.header] {
            if *field == u64::from(u32::MAX) {
                *field = long.uint::<8>()?;
            }
        }
        if self.disk == u64::from(u16::MAX) {
            self.disk = long.uint::<4>()?;
        }
        Some(self)
    }
}

fn zip64_extra(extra: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(extra);
    loop {
        let (id, length) = (fields.uint::<2>()?, fields.uint::<2>()?);
        let body = fields.bytes(length as usize)?;
        if id == 1 {
            return Some(body);
        }
    }
}

fn checked_name(name: &[u8]) -> Checked<String> {
    let plain = |name: &&str| {
        let parts = name.strip_suffix('/').unwrap_or(name).split('/');
        !name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':')) && { parts }
            .all(|part| !matches!(part, "" | "." | ".."))
    };
    match std::str::from_utf8(name).ok().filter(plain) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("a zip member is named \"{}\"", name.escape_ascii())),
    }
}

fn check_flags(name: &str, flags: u64, disk: u64) -> Checked<()> {
    if flags & ENCRYPTED_FLAGS != 0 {
        return Err(format!("zip member {name} is encrypted"));
    }
    match flags & !PLAIN_FLAGS == 0 && disk == 0 {
        true => Ok(()),
        false => Err(format!(
            "zip member {name} has unknown flags 0x{flags:04x} or lies on another disk"
        )),
    }
}

/// Names of compression methods (APPNOTE 6.3.10, section 4.4.5).
pub fn compression(method: u64) -> String {
    match method {
        8 => "deflate".to_owned(),
        9 => "deflate64".to_owned(),
        12 => "bzip2".to_owned(),
        14 => "LZMA".to_owned(),
        93 => "zstd".to_owned(),
        95 => "xz".to_owned(),
        other => format!("method {other}"),
    }
}

//! Zip archives as `torch.save` writes them: stored members at multiples of 64 bytes, with holes for the data of tensors.
//!
//! Nothing that depends on the data is needed for their size. The sums of the data are 0, which torch itself writes under
//! `set_crc32_options(False)`; an export fills them in.

use std::ops::Range;

use crc32fast::hash;

/// Data starts at a multiple of this.
const ALIGNMENT: u64 = 64;

/// A size or offset from here on stands in a zip64 field.
const BIG: u64 = 0xFFFF_FFFF;

/// Names are UTF-8.
const FLAGS: u16 = 0x0800;

/// Where in a local and in a central header the sum of the data stands.
const LOCAL_SUM: u64 = 14;
const CENTRAL_SUM: u64 = 16;

/// A sum of data that is still 0, and the places of its four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub data: Range<u64>,
    pub fields: [u64; 2],
}

impl Checksum {
    /// The same sum of an archive that lies so many bytes further on.
    pub fn moved(&self, by: u64) -> Self {
        Self {
            data: self.data.start + by..self.data.end + by,
            fields: self.fields.map(|field| field + by),
        }
    }
}

/// An archive that grows.
#[derive(Debug)]
pub struct Zip {
    root: &'static str,
    parts: Vec<Vec<u8>>,
    out: Vec<u8>,
    /// Bytes in closed parts and holes.
    before: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    sum: u32,
    length: u64,
    start: u64,
    /// Where its data lies, if that is a hole.
    hole: Option<Range<u64>>,
}

/// A finished archive: the bytes between its holes, one part more than there are holes.
#[derive(Debug)]
pub struct Archive {
    pub parts: Vec<Vec<u8>>,
    pub checksums: Vec<Checksum>,
}

impl Zip {
    /// `root` is the folder in which the members lie.
    pub fn new(root: &'static str) -> Self {
        Self {
            root,
            parts: Vec::new(),
            out: Vec::new(),
            before: 0,
            entries: Vec::new(),
        }
    }

    /// Adds a member of these bytes.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.header(name, hash(bytes), bytes.len() as u64, false);
        self.out.extend_from_slice(bytes);
    }

    /// Adds a member of so many bytes that are not known yet.
    pub fn add_hole(&mut self, name: &str, length: u64) {
        self.header(name, 0, length, true);
        self.before = self.at() + length;
        self.parts.push(std::mem::take(&mut self.out));
    }

    /// The archive with its directory.
    pub fn close(mut self) -> Archive {
        let start = self.at();
        let mut checksums = Vec::new();
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            if let Some(data) = entry.hole.clone() {
                let fields = [entry.start + LOCAL_SUM, self.at() + CENTRAL_SUM];
                checksums.push(Checksum { data, fields });
            }
            self.central(entry);
        }
        let end = self.at();
        self.end(entries.len() as u64, start, end);
        self.parts.push(self.out);
        Archive {
            parts: self.parts,
            checksums,
        }
    }

    fn at(&self) -> u64 {
        self.before + self.out.len() as u64
    }

    fn header(&mut self, name: &str, sum: u32, length: u64, is_hole: bool) {
        let name = format!("{}/{name}", self.root);
        let start = self.at();
        let sizes = wide_fields(&[Some(length).filter(|length| *length >= BIG); 2]);
        let before = start + 30 + name.len() as u64 + sizes.len() as u64 + 4;
        let padding = before.next_multiple_of(ALIGNMENT) - before;
        self.out.extend_from_slice(b"PK\x03\x04");
        self.short(&[version(&sizes), FLAGS, 0, 0, 0]);
        self.long(&[sum, narrow(length), narrow(length)]);
        self.short(&[name.len() as u16, (sizes.len() as u64 + 4 + padding) as u16]);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(&sizes);
        self.out.extend_from_slice(b"FB");
        self.short(&[padding as u16]);
        self.out.resize(self.out.len() + padding as usize, b'Z');
        let data = self.at();
        self.entries.push(Entry {
            name,
            sum,
            length,
            start,
            hole: is_hole.then_some(data..data + length),
        });
    }

    fn central(&mut self, entry: &Entry) {
        let big = |value: u64| Some(value).filter(|value| *value >= BIG);
        let wide = wide_fields(&[big(entry.length), big(entry.length), big(entry.start)]);
        self.out.extend_from_slice(b"PK\x01\x02");
        self.short(&[0, version(&wide), FLAGS, 0, 0, 0]);
        self.long(&[entry.sum, narrow(entry.length), narrow(entry.length)]);
        self.short(&[entry.name.len() as u16, wide.len() as u16, 0, 0, 0]);
        self.long(&[0, narrow(entry.start)]);
        self.out.extend_from_slice(entry.name.as_bytes());
        self.out.extend_from_slice(&wide);
    }

    fn end(&mut self, count: u64, start: u64, end: u64) {
        let size = end - start;
        if count >= 0xFFFF || start >= BIG || size >= BIG {
            self.out.extend_from_slice(b"PK\x06\x06");
            self.wide(&[44]);
            self.short(&[45, 45]);
            self.long(&[0, 0]);
            self.wide(&[count, count, size, start]);
            self.out.extend_from_slice(b"PK\x06\x07");
            self.long(&[0]);
            self.wide(&[end]);
            self.long(&[1]);
        }
        let short_count = count.min(0xFFFF) as u16;
        self.out.extend_from_slice(b"PK\x05\x06");
        self.short(&[0, 0, short_count, short_count]);
        self.long(&[narrow(size), narrow(start)]);
        self.short(&[0]);
    }

    fn short(&mut self, values: &[u16]) {
        self.out
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn long(&mut self, values: &[u32]) {
        self.out
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn wide(&mut self, values: &[u64]) {
        self.out
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
}

/// The value of a field of 32 bits, which points to a wider one where it does not hold the value.
fn narrow(value: u64) -> u32 {
    value.min(BIG) as u32
}

/// The zip64 extra field of the values that need it; empty where none does.
fn wide_fields(values: &[Option<u64>]) -> Vec<u8> {
    let bytes: Vec<u8> = values
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    match bytes.len() as u16 {
        0 => bytes,
        length => [&[1, 0], &length.to_le_bytes()[..], &bytes].concat(),
    }
}

/// The version of the format that a reader needs, where that matters.
fn version(wide: &[u8]) -> u16 {
    if wide.is_empty() { 0 } else { 45 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_starts_at_multiples_of_64_and_the_sums_stand_where_they_are_said_to() {
        let mut zip = Zip::new("archive");
        zip.add("data.pkl", b"pickle");
        zip.add_hole("data/0", 5_000_000_000);
        zip.add_hole("data/1", 24);
        zip.add("version", b"3\n");
        let archive = zip.close();
        assert_eq!(archive.parts.len(), 3);
        for sum in &archive.checksums {
            assert_eq!(sum.data.start % ALIGNMENT, 0);
        }
        let [first, second] = &*archive.checksums else {
            panic!("{:?}", archive.checksums)
        };
        assert_eq!(first.data.start, archive.parts[0].len() as u64);
        let head = &archive.parts[0][first.fields[0] as usize - 14..];
        assert_eq!(&head[..4], b"PK\x03\x04");
        let tail = second.data.end;
        let central = &archive.parts[2][(second.fields[1] - tail) as usize - 16..];
        assert_eq!(&central[..4], b"PK\x01\x02");
        assert_eq!(&central[20..24], &24u32.to_le_bytes());
        // Its local header lies behind the large member.
        assert_eq!(&central[42..46], &[0xFF; 4]);
    }
}

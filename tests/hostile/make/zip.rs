//! Zip archives as torch writes them, every field of which can be bent.

use super::pickle::{Value, pickle};

/// A local header or an entry of the directory.
#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub compressed: u32,
    pub size: u32,
    pub extra: Vec<u8>,
}

#[derive(Clone)]
pub struct Member {
    pub local: Header,
    pub central: Header,
    pub data: Vec<u8>,
    /// The offset of the local header in the directory, if not the true one.
    pub place: Option<u32>,
}

#[derive(Clone, Default)]
pub struct Zip {
    pub front: Vec<u8>,
    pub members: Vec<Member>,
    pub comment: Vec<u8>,
    /// The count of members in the end record, if not the true one.
    pub count: Option<u16>,
}

impl Member {
    pub fn new(name: &str, data: &[u8]) -> Self {
        let header = Header {
            name: name.into(),
            flags: 0,
            method: 0,
            crc: crc32(data),
            compressed: data.len() as u32,
            size: data.len() as u32,
            extra: Vec::new(),
        };
        let (local, central) = (header.clone(), header);
        let (data, place) = (data.to_vec(), None);
        Self {
            local,
            central,
            data,
            place,
        }
    }

    /// Changes both headers alike.
    pub fn both(&mut self, change: impl Fn(&mut Header)) {
        change(&mut self.local);
        change(&mut self.central);
    }
}

impl Zip {
    /// Encodes `value` as `torch.save` does, with sixteen bytes in storage 0.
    pub fn torch(value: &[u8]) -> Self {
        Self::of_pickle(&pickle(value))
    }

    pub fn of_pickle(pickle: &[u8]) -> Self {
        Self::with(pickle, &[("0", &[7; 16])])
    }

    pub fn with(pickle: &[u8], storages: &[(&str, &[u8])]) -> Self {
        let mut members = vec![
            Member::new("archive/data.pkl", pickle),
            Member::new("archive/byteorder", b"little"),
        ];
        members.extend(
            storages
                .iter()
                .map(|(key, bytes)| Member::new(&format!("archive/data/{key}"), bytes)),
        );
        members.push(Member::new("archive/version", b"3\n"));
        Self {
            members,
            ..Self::default()
        }
    }

    pub fn bent(mut self, bend: impl FnOnce(&mut Self)) -> Self {
        bend(&mut self);
        self
    }

    pub fn member(&mut self, name: &str) -> &mut Member {
        let name = format!("archive/{name}");
        self.members
            .iter_mut()
            .find(|member| member.local.name == name.as_bytes())
            .unwrap()
    }

    pub fn add(&mut self, name: &str, data: &[u8]) {
        self.members.push(Member::new(name, data));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut bytes, mut directory) = (self.front.clone(), Vec::new());
        for member in &self.members {
            let place = member.place.unwrap_or(bytes.len() as u32);
            bytes.extend(member.local.local());
            bytes.extend(&member.data);
            directory.extend(member.central.central(place));
        }
        let (start, count) = (bytes.len() as u32, self.members.len() as u16);
        let end = end(
            self.count.unwrap_or(count),
            directory.len() as u32,
            start,
            &self.comment,
        );
        bytes.extend(directory);
        bytes.extend(end);
        bytes
    }
}

impl Header {
    fn fields(&self) -> Vec<u8> {
        let words = [self.flags, self.method, 0, 0]
            .map(u16::to_le_bytes)
            .concat();
        let sizes = [self.crc, self.compressed, self.size]
            .map(u32::to_le_bytes)
            .concat();
        let lengths = [self.name.len() as u16, self.extra.len() as u16].map(u16::to_le_bytes);
        [words, sizes, lengths.concat()].concat()
    }

    fn local(&self) -> Vec<u8> {
        [
            b"PK\x03\x04\x14\0",
            &*self.fields(),
            &self.name,
            &self.extra,
        ]
        .concat()
    }

    fn central(&self, place: u32) -> Vec<u8> {
        let tail = [&[0; 10][..], &place.to_le_bytes()].concat();
        [
            b"PK\x01\x02\x14\0\x14\0",
            &*self.fields(),
            &tail,
            &self.name,
            &self.extra,
        ]
        .concat()
    }
}

pub fn end(count: u16, size: u32, start: u32, comment: &[u8]) -> Vec<u8> {
    let counts = [0, 0, count, count].map(u16::to_le_bytes).concat();
    let places = [size, start].map(u32::to_le_bytes).concat();
    [
        b"PK\x05\x06",
        &*counts,
        &places,
        &(comment.len() as u16).to_le_bytes(),
        comment,
    ]
    .concat()
}

/// A whole file of `torch.save`.
pub fn torch(value: &Value) -> Vec<u8> {
    Zip::torch(value).bytes()
}

fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
    !bytes.iter().fold(!0, byte)
}

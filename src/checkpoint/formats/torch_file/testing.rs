//! Files of `torch.save` written by hand, for tests.

use std::io::Write;
use std::sync::Arc;

use crate::source::SourceFile;
use crc32fast::hash as crc32;

/// A file with these bytes. It lives as long as the first part.
pub fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Arc<SourceFile>) {
    let mut temporary = tempfile::NamedTempFile::new().unwrap();
    temporary.write_all(bytes).unwrap();
    let file = SourceFile::open(temporary.path()).unwrap();
    (temporary, file)
}

/// The description of a zip member, in the directory and in its own header.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub data: Vec<u8>,
    pub local_name: String,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub size: u32,
    /// Padding of the local header.
    pub padding: usize,
    /// Moves the place that the directory names.
    pub shift: u32,
    /// Extra field of the directory.
    pub extra: Vec<u8>,
}

impl Member {
    pub fn new(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            data: data.to_vec(),
            local_name: name.to_owned(),
            flags: 0x0808,
            method: 0,
            crc: crc32(data),
            size: data.len() as u32,
            padding: 5,
            shift: 0,
            extra: Vec::new(),
        }
    }

    fn local(&self) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04\0\0".to_vec();
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend((self.local_name.len() as u16).to_le_bytes());
        bytes.extend((self.padding as u16).to_le_bytes());
        bytes.extend(self.local_name.as_bytes());
        bytes.extend(vec![b'Z'; self.padding]);
        bytes.extend(&self.data);
        if self.flags & 8 != 0 {
            bytes.extend(b"PK\x07\x08");
            bytes.extend(self.crc.to_le_bytes());
            bytes.extend((self.data.len() as u32).to_le_bytes());
            bytes.extend((self.data.len() as u32).to_le_bytes());
        }
        bytes
    }

    fn central(&self, at: u32) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02\0\0\0\0".to_vec();
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend((self.name.len() as u16).to_le_bytes());
        bytes.extend((self.extra.len() as u16).to_le_bytes());
        bytes.extend([0; 10]);
        bytes.extend((at + self.shift).to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(&self.extra);
        bytes
    }
}

/// A zip as torch writes it, but without zip64 records.
pub fn zip(members: &[Member]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        directory.extend(member.central(bytes.len() as u32));
        bytes.extend(member.local());
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend((members.len() as u16).to_le_bytes());
    bytes.extend((members.len() as u16).to_le_bytes());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// A file of `torch.save` with this object and these storages.
pub fn saved(object: Vec<u8>, storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut members = vec![Member::new("archive/data.pkl", &pickle(object))];
    for (key, data) in storages {
        members.push(Member::new(&format!("archive/data/{key}"), data));
    }
    zip(&members)
}

pub fn pickle(object: Vec<u8>) -> Vec<u8> {
    [b"\x80\x02".to_vec(), object, b".".to_vec()].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

pub fn int(value: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &value.to_le_bytes()].concat()
}

pub fn none() -> Vec<u8> {
    b"N".to_vec()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

pub fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"](".to_vec(), items.concat(), b"e".to_vec()].concat()
}

pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .map(|(key, value)| (text(key), value.clone()));
    table(&entries.collect::<Vec<_>>())
}

pub fn table(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let items = entries
        .iter()
        .flat_map(|(key, value)| [key.clone(), value.clone()]);
    [
        b"}(".to_vec(),
        items.collect::<Vec<_>>().concat(),
        b"u".to_vec(),
    ]
    .concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn call(module: &str, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
    [global(module, name), tuple(args), b"R".to_vec()].concat()
}

/// An object with attributes.
pub fn object(module: &str, name: &str, state: Vec<u8>) -> Vec<u8> {
    [
        global(module, name),
        b")\x81".to_vec(),
        state,
        b"b".to_vec(),
    ]
    .concat()
}

pub fn sizes(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>())
}

pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let id = [
        text("storage"),
        global("torch", class),
        text(key),
        text("cpu"),
        int(count),
    ];
    [tuple(&id), b"Q".to_vec()].concat()
}

/// A call of `_rebuild_tensor_v2`.
pub fn rebuilt(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = call("collections", "OrderedDict", &[]);
    let args = [
        storage,
        int(offset),
        sizes(shape),
        sizes(strides),
        b"\x89".to_vec(),
        hooks,
    ];
    call("torch._utils", "_rebuild_tensor_v2", &args)
}

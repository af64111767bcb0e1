//! A checkpoint of `tests/data`, the file of it that is to be damaged, and where in that file weights lie.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ckptfs::error::Result;
use ckptfs::view::{Options, View};
use safetensors::SafeTensors;

use crate::make::zip::{Member, Zip};

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Type, shape and bytes of each tensor.
pub type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

pub struct Base {
    pub name: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// The file to damage, and its bytes that are weights.
    pub target: String,
    pub weights: Vec<Range<usize>>,
    config_from: bool,
    mapping: Option<String>,
    pub reference: Tensors,
}

impl Base {
    pub fn real(name: &str) -> Self {
        let mut files = BTreeMap::new();
        collect(&data(name).join("source"), "", &mut files);
        let config = data(name).join("config");
        if config.exists() {
            collect(&config, "config/", &mut files);
        }
        let config_from = config.exists();
        let reference = tensors(&fs::read(data(name).join("expected.safetensors")).unwrap());
        let (target, weights, mapping, name) = (String::new(), Vec::new(), None, name.to_owned());
        Self {
            name,
            files,
            target,
            weights,
            config_from,
            mapping,
            reference,
        }
    }

    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_owned(), bytes);
    }

    pub fn without(mut self, name: &str) -> Self {
        self.files.remove(name).unwrap();
        self
    }

    /// Nothing of the file is weights.
    pub fn of_all(self, name: &str) -> Self {
        self.of(name, Vec::new())
    }

    pub fn with_mapping(mut self, name: &str) -> Self {
        self.mapping = Some(name.to_owned());
        self.of_all(name)
    }

    pub fn of_safetensors(self, name: &str) -> Self {
        let bytes = &self.files[name];
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let weights = 8 + length..bytes.len();
        self.of(name, vec![weights])
    }

    pub fn of_zip(self, name: &str) -> Self {
        let members = members(&self.files[name]);
        let weights = members
            .into_iter()
            .filter(|(name, _)| name.contains("/data/"));
        let weights = weights.map(|(_, range)| range).collect();
        self.of(name, weights)
    }

    /// Storages of the legacy stream follow each other behind their counts, up to the end.
    pub fn of_legacy(self, name: &str) -> Self {
        let bytes = &self.files[name];
        let is_weight = |tensor: &[u8]| {
            bytes
                .windows(tensor.len())
                .position(|window| window == tensor)
        };
        let starts = self
            .reference
            .values()
            .filter(|(_, _, tensor)| tensor.len() >= 64);
        let weights = starts.filter_map(|(_, _, tensor)| Some((is_weight(tensor)?, tensor.len())));
        let weights = weights
            .map(|(start, length)| start..start + length)
            .collect();
        self.of(name, weights)
    }

    /// The zip is made anew without checksums, so that damage reaches the pickle, which is all that is damaged.
    pub fn of_pickle(mut self, name: &str) -> Self {
        let bytes = &self.files[name];
        let plain = |(name, range): (String, Range<usize>)| {
            let mut member = Member::new(&name, &bytes[range]);
            member.both(|header| header.crc = 0);
            member
        };
        let zip = Zip {
            members: members(bytes).into_iter().map(plain).collect(),
            ..Zip::default()
        };
        self.add(name, zip.bytes());
        let pickle =
            |(name, range): (String, Range<usize>)| name.ends_with("data.pkl").then_some(range);
        let bytes = &self.files[name];
        let pickle = members(bytes).into_iter().find_map(pickle).unwrap();
        let rest = vec![0..pickle.start, pickle.end..bytes.len()];
        self.of(name, rest)
    }

    fn of(mut self, name: &str, weights: Vec<Range<usize>>) -> Self {
        self.target = name.to_owned();
        self.weights = weights;
        self
    }

    pub fn write(&self, folder: &Path) {
        for (name, bytes) in &self.files {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    pub fn open(&self, folder: &Path) -> Result<View> {
        let options = Options {
            config_from: self.config_from.then(|| folder.join("config")),
            mapping: self.mapping.as_ref().map(|name| folder.join(name)),
            ..Options::default()
        };
        View::open(folder, &options)
    }
}

fn collect(folder: &Path, above: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{above}{}", path.file_name().unwrap().to_str().unwrap());
        match path.is_dir() {
            true => collect(&path, &format!("{name}/"), files),
            false => drop(files.insert(name, fs::read(path).unwrap())),
        }
    }
}

/// Reads a file by the format's own reader.
pub fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors = file.iter().map(|(name, tensor)| {
        let parts = (
            format!("{:?}", tensor.dtype()),
            tensor.shape().to_vec(),
            tensor.data().to_vec(),
        );
        (name.to_owned(), parts)
    });
    tensors.collect()
}

/// Names and places of a zip's members, as its directory tells them.
fn members(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let long = |at: usize| word(at) | word(at + 2) << 16;
    let end = bytes
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .unwrap();
    let (count, mut at) = (word(end + 10), long(end + 16));
    let mut next = || {
        let (size, local) = (long(at + 24), long(at + 42));
        let name = String::from_utf8(bytes[at + 46..at + 46 + word(at + 28)].to_vec()).unwrap();
        let start = local + 30 + word(local + 26) + word(local + 28);
        at += 46 + word(at + 28) + word(at + 30) + word(at + 32);
        (name, start..start + size)
    };
    (0..count).map(|_| next()).collect()
}

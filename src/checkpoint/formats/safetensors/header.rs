//! The JSON of a header. Duplicate keys are refused at every level, which serde's maps would not do.

use std::borrow::Cow;
use std::fmt;

use foldhash::{HashSet, HashSetExt};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::METADATA;
use crate::tensor::Dims;

/// Most numbers of a list that are read, of which a shape has fewer.
const MOST_ITEMS: usize = 64;

/// A header as written: nothing of it is checked against the file yet.
pub struct Raw<'a> {
    pub metadata: Vec<(String, String)>,
    pub tensors: Vec<(Cow<'a, str>, Entry<'a>)>,
}

pub struct Entry<'a> {
    pub dtype: Cow<'a, str>,
    pub shape: Dims,
    pub data_offsets: [u64; 2],
}

pub fn parse(json: &[u8]) -> serde_json::Result<Raw<'_>> {
    serde_json::from_slice(json)
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut metadata, mut tensors) = (None, Vec::new());
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                METADATA => once(&mut metadata, map.next_value::<Strings>()?.0, METADATA)?,
                _ => tensors.push((key, map.next_value()?)),
            }
        }
        check_unique(&tensors)?;
        Ok(Raw {
            metadata: metadata.unwrap_or_default(),
            tensors,
        })
    }
}

impl<'de> Deserialize<'de> for Entry<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

/// Written by hand because a derived struct would accept an array of its fields as well.
struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "dtype" => once(&mut dtype, map.next_value::<Text>()?.0, "dtype")?,
                "shape" => once(&mut shape, map.next_value::<List>()?.0, "shape")?,
                "data_offsets" => once(&mut data_offsets, map.next_value()?, "data_offsets")?,
                other => return Err(A::Error::custom(format_args!("unknown field {other:?}"))),
            }
        }
        Ok(Entry {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            data_offsets: data_offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }
}

/// Numbers, one for each dimension.
pub struct List(pub Dims);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    /// Two bytes of the text become eight in memory: only as many as a shape can have are kept.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Dims::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MOST_ITEMS {
                let reason =
                    format_args!("a shape has too many dimensions, more than {MOST_ITEMS}");
                return Err(A::Error::custom(reason));
            }
            list.push(item);
        }
        Ok(List(list))
    }
}

/// serde's maps would believe the last of two values under one key.
fn check_unique<K: AsRef<str>, V, E: Error>(entries: &[(K, V)]) -> Result<(), E> {
    let mut seen = HashSet::with_capacity(entries.len());
    let mut keys = entries.iter().map(|(key, _)| key.as_ref());
    match keys.find(|key| !seen.insert(*key)) {
        Some(key) => Err(twice(key)),
        None => Ok(()),
    }
}

fn twice<E: Error>(key: &str) -> E {
    E::custom(format_args!("{key:?} stands in it twice"))
}

fn once<T, E: Error>(field: &mut Option<T>, value: T, name: &'static str) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

/// A string, borrowed from the input unless it has escapes. serde's own `Cow` is always owned.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// A map of strings, in the order of the text.
pub struct Strings(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StringsVisitor)
    }
}

struct StringsVisitor;

impl<'de> Visitor<'de> for StringsVisitor {
    type Value = Strings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut strings = Vec::new();
        while let Some(entry) = map.next_entry()? {
            strings.push(entry);
        }
        check_unique(&strings)?;
        Ok(Strings(strings))
    }
}

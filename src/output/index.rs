//! `model.safetensors.index.json`, byte for byte as transformers writes it (5.23.0: Python's
//! `json.dumps(indent=2, sort_keys=True)` and a newline).

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

#[derive(Serialize)]
struct Index<'a> {
    metadata: Metadata,
    weight_map: &'a BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Metadata {
    total_parameters: u64,
    total_size: u64,
}

/// The index of tensors by file, with the number of parameters and the bytes of data in all files.
pub fn index(weight_map: &BTreeMap<&str, &str>, total_parameters: u64, total_size: u64) -> Vec<u8> {
    let index = Index {
        metadata: Metadata {
            total_parameters,
            total_size,
        },
        weight_map,
    };
    python_json(&index)
}

/// JSON as Python writes it with `indent=2`: everything beyond ASCII escaped, a newline at the end.
pub fn python_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter::default());
    // Writing maps with string keys to memory cannot fail.
    let _ = value.serialize(&mut serializer);
    bytes.push(b'\n');
    bytes
}

#[derive(Default)]
struct PythonFormatter<'a>(PrettyFormatter<'a>);

impl Formatter for PythonFormatter<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for character in text.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_what_python_writes() {
        let names = BTreeMap::from([("b", "f"), ("a\u{e9}\u{1f600}", "g\"")]);
        let want = "{\n  \"metadata\": {\n    \"total_parameters\": 3,\n    \"total_size\": 12\n  },\n  \"weight_map\": {\n    \"a\\u00e9\\ud83d\\ude00\": \"g\\\"\",\n    \"b\": \"f\"\n  }\n}\n";
        assert_eq!(String::from_utf8(index(&names, 3, 12)).unwrap(), want);
    }
}

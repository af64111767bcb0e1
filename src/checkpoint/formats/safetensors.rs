//! safetensors files: a header that names byte ranges, read at least as strictly as the format's own reader does.
//!
//! Format: safetensors 0.8.0, `safetensors/src/tensor.rs` and README.

pub mod header;

use std::ops::Range;
use std::sync::Arc;

use self::header::Entry;
pub use self::header::Strings;
use crate::checkpoint::folder::cost_of_longest;
use crate::checkpoint::foreign;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, Result};
use crate::source::{Charge, SourceFile};
use crate::tensor::{Dtype, Shape, SourceTensor, Tensor, contiguous};
use crate::text::beginning;

/// Most bytes of a header, as in safetensors 0.8.0, and of an index, which tells less of each tensor.
pub const HEADER_LIMIT: u64 = 100_000_000;
/// As much of a file as tells what else it is.
const FRONT: u64 = 32;
/// Most bytes of a tensor's name.
const NAME_LIMIT: usize = 4096;
/// Quotes of an entry: of its name, its three keys and its type.
const ENTRY_QUOTES: u64 = 10;
/// Memory that a header takes for each entry while it is checked, in vectors that double.
const PARSED: u64 = 700;
/// The key of a header that is no tensor.
const METADATA: &str = "__metadata__";

/// The contents of a file: tensors in the order of their bytes, each with its range in the file.
#[derive(Debug)]
pub struct Header {
    pub metadata: Vec<(String, String)>,
    pub tensors: Vec<Placed>,
}

/// A tensor's name, what it is, and its bytes in the file.
type Placed = (Arc<str>, Dtype, Shape, Range<u64>);

impl Header {
    pub fn read(file: &SourceFile) -> Result<Self> {
        let (json, mut charge) = header_bytes(file)?;
        let quotes = json.iter().filter(|byte| **byte == b'"').count() as u64;
        let entries = quotes / ENTRY_QUOTES + 1;
        let cost = json.len() as u64 + entries * PARSED + cost_of_longest(&json);
        charge.cover_for(file.path(), cost)?;
        let refuse = |reason: String| Error::malformed(file.path(), reason);
        let raw = header::parse(&json)
            .map_err(|error| refuse(format!("no safetensors header: {}", beginning(&error))))?;
        let data = 8 + json.len() as u64;
        let mut tensors: Vec<Placed> = Vec::with_capacity(raw.tensors.len());
        for (name, entry) in raw.tensors {
            let (dtype, shape) = check(&name, &entry)
                .map_err(|reason| named(Error::Mapping(reason), file.path(), &name))?;
            let [begin, end] = entry.data_offsets;
            tensors.push((name.into(), dtype, shape, begin..end));
        }
        tensors.sort_by_key(|tensor| (tensor.3.start, tensor.3.end));
        check_cover(&tensors, file.size() - data).map_err(refuse)?;
        for tensor in &mut tensors {
            tensor.3 = data + tensor.3.start..data + tensor.3.end;
        }
        let metadata = raw.metadata;
        charge.shrink(tensors.len() as u64 * SourceTensor::COST);
        file.keep(charge);
        Ok(Self { metadata, tensors })
    }

    /// The value of a key of `__metadata__`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let (_, value) = self.metadata.iter().find(|(name, _)| name == key)?;
        Some(value)
    }
}

/// Every tensor of a safetensors file, in the order of their bytes.
pub fn tensors(file: &Arc<SourceFile>) -> Result<Vec<(Arc<str>, Tensor)>> {
    let place = |(name, dtype, shape, range): Placed| {
        let layout = contiguous(range.start, &stored_shape(dtype, &shape, &range));
        Ok((name, Tensor::stored(file.clone(), dtype, shape, layout)?))
    };
    Header::read(file)?.tensors.into_iter().map(place).collect()
}

/// Why no tensor can be called `name` in a safetensors file.
pub fn name_fault(name: &str) -> Option<String> {
    let is_long = name.is_empty() || name.len() > NAME_LIMIT;
    // Most names are of letters and dots alone, which is seen without decoding them.
    let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_long || (!is_plain && name.contains(char::is_control)) {
        let fault = format!("a name must have 1 to {NAME_LIMIT} bytes and no control characters");
        return Some(fault);
    }
    (name == METADATA).then(|| format!("the name {METADATA} is taken by the format itself"))
}

/// The shape in which bytes lie in the file: elements of less than a byte are stored as bytes.
fn stored_shape(dtype: Dtype, shape: &Shape, range: &Range<u64>) -> Shape {
    match (dtype.bytes(), Shape::new(&[range.end - range.start])) {
        (None, Some(bytes)) => bytes,
        _ => shape.clone(),
    }
}

fn header_bytes(file: &SourceFile) -> Result<(Vec<u8>, Charge)> {
    let refuse = |reason: String| Err(Error::malformed(file.path(), reason));
    let size = file.size();
    if size < 8 {
        return refuse(format!("no safetensors file: it has {size} bytes"));
    }
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_LIMIT || length > size - 8 {
        let mut front = vec![0; FRONT.min(size) as usize];
        file.read_exact_at(&mut front, 0)?;
        if let Some(what) = foreign::kind(&front) {
            return Err(Error::checkpoint(file.path(), what));
        }
        return refuse(format!(
            "no safetensors file, or incomplete: a header of {length} bytes in a file of {size}"
        ));
    }
    let charge = file.charge(length)?;
    let mut json = vec![0; length as usize];
    file.read_exact_at(&mut json, 8)?;
    match json.trim_ascii_start().first() {
        Some(b'{') => Ok((json, charge)),
        _ => refuse("no safetensors file: its header does not start with {".to_owned()),
    }
}

fn check(name: &str, entry: &Entry) -> std::result::Result<(Dtype, Shape), String> {
    if let Some(fault) = name_fault(name) {
        return Err(fault);
    }
    let dtype = Dtype::from_safetensors(&entry.dtype)
        .ok_or_else(|| format!("unknown dtype {:?}", entry.dtype))?;
    let shape = Shape::new(&entry.shape).ok_or_else(|| {
        format!(
            "shape {:?} has too many dimensions or elements",
            entry.shape
        )
    })?;
    let [begin, end] = entry.data_offsets;
    let bits = shape.elements().checked_mul(dtype.bits());
    match end
        .checked_sub(begin)
        .and_then(|bytes| bytes.checked_mul(8))
    {
        held if held.is_some() && held == bits => Ok((dtype, shape)),
        _ => Err(format!(
            "bytes {begin}..{end} cannot hold shape {shape} of type {dtype}"
        )),
    }
}

/// The tensors must cover the data without hole or overlap, as safetensors 0.8.0 demands.
fn check_cover(tensors: &[Placed], data: u64) -> std::result::Result<(), String> {
    let mut covered = 0;
    for (name, _, _, range) in tensors {
        if range.start != covered {
            return Err(format!(
                "tensor {name} begins at byte {} of the data, where {covered} is expected",
                range.start
            ));
        }
        covered = range.end;
    }
    match covered.cmp(&data) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(format!("{} bytes follow the last tensor", data - covered)),
        std::cmp::Ordering::Greater => Err(format!(
            "incomplete: {data} bytes of data where the header promises {covered}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(header: &[u8], data: usize) -> (tempfile::NamedTempFile, Arc<SourceFile>) {
        let mut temporary = tempfile::NamedTempFile::new().unwrap();
        temporary
            .write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        temporary.write_all(header).unwrap();
        temporary.write_all(&vec![7; data]).unwrap();
        let file = SourceFile::open(temporary.path()).unwrap();
        (temporary, file)
    }

    fn refusal(header: &str, data: usize) -> String {
        Header::read(&file(header.as_bytes(), data).1)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_header_tells_where_each_tensor_lies() {
        let header = br#"{"__metadata__":{"format":"pt"},"b\u0041":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"a":{"shape":[2,1],"dtype":"BF16","data_offsets":[0,4]},"e":{"dtype":"I64","shape":[0,1152921504606846976],"data_offsets":[12,12]}}  "#;
        let (_temporary, file) = file(header, 12);
        let parsed = Header::read(&file).unwrap();
        let data = 8 + header.len() as u64;
        let places: Vec<_> = parsed
            .tensors
            .iter()
            .map(|t| (&*t.0, t.1, t.3.clone()))
            .collect();
        assert_eq!(
            places,
            [
                ("a", Dtype::BF16, data..data + 4),
                ("bA", Dtype::F32, data + 4..data + 12),
                ("e", Dtype::I64, data + 12..data + 12)
            ]
        );
        assert_eq!(parsed.metadata("format"), Some("pt"));
        assert_eq!(tensors(&file).unwrap()[1].1.shape().dims(), [2]);
    }

    #[test]
    fn types_smaller_than_a_byte_are_kept_as_bytes() {
        let (_temporary, file) = file(
            br#"{"a":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]}}"#,
            4,
        );
        assert_eq!(tensors(&file).unwrap()[0].1.bytes(), 4);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let one = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
        for (header, data) in [
            ("", 0),
            ("[]", 0),
            ("null", 0),
            ("{}x", 0),
            ("{\"a\":1}", 4),
            (r#"{"__metadata__":{"a":1}}"#, 0),
            (r#"{"__metadata__":null}"#, 0),
            (r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0),
            (r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
            (r#"{"a":["U8",[4],[0,4]]}"#, 4),
            (
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}}"#,
                4,
            ),
            (r#"{"a":{"dtype":"U8","shape":[4]}}"#, 4),
            (
                r#"{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
                4,
            ),
            (&format!("{{{one},{one}}}"), 4),
            (
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4.0]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,2,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#,
                4,
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551616]}}"#,
                4,
            ),
        ] {
            assert!(refusal(header, data).contains("no safetensors"), "{header}");
        }
    }

    #[test]
    fn tensors_that_do_not_fit_their_bytes_are_refused() {
        for (entry, data) in [
            (r#""dtype":"u8","shape":[4],"data_offsets":[0,4]"#, 4),
            (r#""dtype":"U9","shape":[4],"data_offsets":[0,4]"#, 4),
            (r#""dtype":"U8","shape":[5],"data_offsets":[0,4]"#, 4),
            (r#""dtype":"U8","shape":[4],"data_offsets":[4,0]"#, 4),
            (
                r#""dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]"#,
                0,
            ),
            (
                r#""dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]"#,
                1,
            ),
            (r#""dtype":"F4","shape":[3],"data_offsets":[0,2]"#, 2),
            (r#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#, 5),
            (r#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#, 3),
            (r#""dtype":"U8","shape":[3],"data_offsets":[1,4]"#, 4),
        ] {
            refusal(&format!("{{\"a\":{{{entry}}}}}"), data);
        }
        for name in ["", "a\\u0000", "a\\n}", &"x".repeat(4097)] {
            let entry = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
            assert!(refusal(&format!("{{\"{name}\":{entry}}}"), 4).contains("a name must"));
        }
    }

    #[test]
    fn two_names_cannot_share_bytes() {
        let entry = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
        assert!(
            refusal(&format!("{{\"a\":{entry},\"b\":{entry}}}"), 4).contains("begins at byte 0")
        );
    }

    #[test]
    fn a_header_longer_than_its_file_is_refused_before_it_is_read() {
        for length in [1u64, 100_000_001, 1 << 63, u64::MAX] {
            let mut temporary = tempfile::NamedTempFile::new().unwrap();
            temporary.write_all(&length.to_le_bytes()).unwrap();
            let file = SourceFile::open(temporary.path()).unwrap();
            assert!(Header::read(&file).is_err());
        }
    }
}

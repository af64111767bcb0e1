//! The header of a safetensors file, byte for byte as `safetensors.torch.save_file` writes it (safetensors 0.8.0).

use std::cmp::Reverse;

use crate::mapping::MappedTensor;

/// About what an entry has beside its name.
const ENTRY: usize = 80;

/// Puts tensors in the order that safetensors gives them: wider types first, then by name.
pub fn sort(tensors: &mut [&MappedTensor]) {
    tensors.sort_by(|a, b| {
        let key = |tensor: &MappedTensor| Reverse(tensor.tensor.dtype());
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// The length field and the JSON for tensors that lie one after the other in this order, padded to a multiple of 8.
pub fn header(tensors: &[&MappedTensor]) -> Vec<u8> {
    let size = tensors.iter().map(|tensor| tensor.name.len() + ENTRY);
    let mut json = String::with_capacity(size.sum());
    json.push_str("\0\0\0\0\0\0\0\0");
    json.push_str(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.tensor.bytes();
        json.push(',');
        push_quoted(&mut json, &tensor.name);
        json.push_str(r#":{"dtype":""#);
        json.push_str(tensor.tensor.dtype().name());
        json.push_str(r#"","shape":["#);
        for (i, size) in tensor.tensor.shape().dims().iter().enumerate() {
            json.push_str(if i > 0 { "," } else { "" });
            push_number(&mut json, *size);
        }
        json.push_str(r#"],"data_offsets":["#);
        push_number(&mut json, start);
        json.push(',');
        push_number(&mut json, end);
        json.push_str("]}");
        start = end;
    }
    json.push('}');
    let mut bytes = json.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The same header in `length` bytes, a multiple of 8 and no less than it has.
pub fn lengthened(header: &[u8], length: u64) -> Vec<u8> {
    let json = header.get(8..).unwrap_or_default();
    let mut longer = [&(length - 8).to_le_bytes(), json].concat();
    longer.resize(length as usize, b' ');
    longer
}

/// At most this many bytes of a header tell of one tensor.
pub fn entry_bound(tensor: &MappedTensor) -> u64 {
    6 * tensor.name.len() as u64 + 260
}

fn push_quoted(json: &mut String, text: &str) {
    match text
        .bytes()
        .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
    {
        true => json.extend(["\"", text, "\""]),
        false => json.push_str(&serde_json::Value::from(text).to_string()),
    }
}

fn push_number(json: &mut String, number: u64) {
    json.push_str(itoa::Buffer::new().format(number));
}

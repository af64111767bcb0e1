//! The header of a safetensors file, byte for byte as `safetensors.torch.save_file` writes it (safetensors 0.8.0).

use std::cmp::Reverse;

use crate::mapping::MappedTensor;

/// Puts tensors in the order that safetensors gives them: wider types first, then by name.
pub fn sort(tensors: &mut [&MappedTensor]) {
    tensors.sort_by(|a, b| {
        let key = |tensor: &MappedTensor| Reverse(tensor.tensor.dtype());
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// The length field and the JSON for tensors that lie one after the other in this order, padded to a multiple of 8.
pub fn header(tensors: &[&MappedTensor]) -> Vec<u8> {
    let mut json = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.tensor.bytes();
        let dims: Vec<String> = tensor
            .tensor
            .shape()
            .dims()
            .iter()
            .map(u64::to_string)
            .collect();
        json.push_str(&format!(
            r#",{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{start},{end}]}}"#,
            quoted(&tensor.name),
            tensor.tensor.dtype(),
            dims.join(",")
        ));
        start = end;
    }
    json.push('}');
    let padded = json.len().next_multiple_of(8);
    json.extend(std::iter::repeat_n(' ', padded - json.len()));
    [&(padded as u64).to_le_bytes(), json.as_bytes()].concat()
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

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

//! safetensors files from headers written by hand.

pub fn file(header: &str, data: usize) -> Vec<u8> {
    framed(header.len() as u64, header.as_bytes(), data)
}

/// A header that claims to have `length` bytes.
pub fn framed(length: u64, header: &[u8], data: usize) -> Vec<u8> {
    [&length.to_le_bytes(), header, &vec![7; data]].concat()
}

/// The file of one tensor named `name`, written as JSON, of `shape` and in `range`.
pub fn one(name: &str, dtype: &str, shape: &str, range: &str, data: usize) -> Vec<u8> {
    file(
        &format!("{{\"{name}\":{}}}", entry(dtype, shape, range)),
        data,
    )
}

pub fn entry(dtype: &str, shape: &str, range: &str) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{range}]}}"#)
}

/// Tensors of four bytes each, one after the other.
pub fn named(names: &[&str]) -> Vec<u8> {
    let entries = names.iter().enumerate().map(|(index, name)| {
        let range = format!("{},{}", 4 * index, 4 * index + 4);
        format!("\"{name}\":{}", entry("U8", "4", &range))
    });
    file(
        &format!("{{{}}}", entries.collect::<Vec<_>>().join(",")),
        4 * names.len(),
    )
}

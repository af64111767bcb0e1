//! The archive that `torch.save` writes: a pickle, and beside it the data of the storages that the pickle names.

use super::pickle::{Pickle, storage_class, strides};
use super::zip::{Archive, Zip};
use crate::tensor::Dtype;

/// An archive with room for storages of these sizes: `data/0`, `data/1` and so on.
pub fn archive(
    pickle: &[u8],
    byteorder: Option<&str>,
    sizes: impl IntoIterator<Item = u64>,
) -> Archive {
    let mut zip = Zip::new("archive");
    zip.add("data.pkl", pickle);
    if let Some(byteorder) = byteorder {
        zip.add("byteorder", byteorder.as_bytes());
    }
    for (key, size) in sizes.into_iter().enumerate() {
        zip.add_hole(&format!("data/{key}"), size);
    }
    zip.add("version", b"3\n");
    zip.close()
}

/// Writes a contiguous tensor that takes all of the storage of this number.
pub fn write_tensor(pickle: &mut Pickle<'_>, dtype: Dtype, dims: &[u64], storage: usize) {
    let class = storage_class(dtype);
    let rebuild = class.map_or("_rebuild_tensor_v3", |_| "_rebuild_tensor_v2");
    pickle
        .global("torch._utils", rebuild)
        .raw(b"((")
        .text("storage");
    match class {
        Some(class) => pickle.global("torch", class),
        None => pickle.global("torch.storage", "UntypedStorage"),
    };
    let elements: u64 = dims.iter().product();
    // A storage without a type counts bytes.
    let length = class.map_or(elements * dtype.bytes().unwrap_or(1), |_| elements);
    pickle
        .plain_text(&storage.to_string())
        .text("cpu")
        .number(length)
        .raw(b"tQ");
    pickle
        .number(0)
        .tuple(dims)
        .tuple(&strides(dims))
        .raw(b"\x89");
    pickle.global("collections", "OrderedDict").raw(b")R");
    if class.is_none() {
        pickle.global("torch", dtype.torch_name().unwrap_or_default());
    }
    pickle.raw(b"tR");
}

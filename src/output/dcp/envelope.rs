//! The bytes around the data of one item of a DCP: a `torch.save` archive of one tensor.

use std::sync::Arc;

use foldhash::HashMap;

use crate::output::file::Frame;
use crate::output::pickle::{Pickle, storage_class, strides};
use crate::output::zip::Zip;
use crate::tensor::{Dims, Dtype};

/// The envelopes of a DCP. Each depends on the type and shape of its chunk alone, so that few are distinct.
#[derive(Debug, Default)]
pub struct Envelopes {
    made: HashMap<(Dtype, Dims), Arc<Frame>>,
}

impl Envelopes {
    /// The envelope of a chunk of `bytes` bytes.
    pub fn of(&mut self, dtype: Dtype, sizes: &Dims, bytes: u64) -> Arc<Frame> {
        let key = (dtype, sizes.clone());
        let made = self.made.entry(key);
        made.or_insert_with(|| Arc::new(envelope(dtype, sizes, bytes)))
            .clone()
    }
}

fn envelope(dtype: Dtype, sizes: &[u64], bytes: u64) -> Frame {
    let mut zip = Zip::new("archive");
    zip.add("data.pkl", &tensor_pickle(dtype, sizes, bytes));
    zip.add_hole("data/0", bytes);
    zip.add("version", b"3\n");
    let mut archive = zip.close();
    let tail = archive.parts.pop().unwrap_or_default();
    let head = archive.parts.pop().unwrap_or_default();
    Frame {
        head: head.into(),
        tail: tail.into(),
        checksum: archive.checksums.pop(),
    }
}

/// The pickle that `torch.save` writes for a contiguous tensor of a storage of its own.
fn tensor_pickle(dtype: Dtype, sizes: &[u64], bytes: u64) -> Vec<u8> {
    let mut pickle = Pickle::new();
    let class = storage_class(dtype);
    let rebuild = class.map_or("_rebuild_tensor_v3", |_| "_rebuild_tensor_v2");
    pickle.plain_global("torch._utils", rebuild).raw(b"((");
    pickle.plain_text("storage");
    match class {
        Some(class) => pickle.plain_global("torch", class),
        None => pickle.plain_global("torch.storage", "UntypedStorage"),
    };
    let length = class.map_or(bytes, |_| bytes / dtype.bytes().unwrap_or(1));
    pickle
        .plain_text("0")
        .plain_text("cpu")
        .number(length)
        .raw(b"tQ");
    pickle
        .number(0)
        .tuple(sizes)
        .tuple(&strides(sizes))
        .raw(b"\x89");
    pickle.plain_global("collections", "OrderedDict").raw(b")R");
    if class.is_none() {
        pickle.plain_global("torch", dtype.torch_name().unwrap_or_default());
    }
    pickle.raw(b"tR");
    pickle.into_bytes()
}

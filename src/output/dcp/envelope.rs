//! The bytes around the data of one item of a DCP: a `torch.save` archive of one tensor.

use std::sync::Arc;

use foldhash::HashMap;

use crate::output::file::Frame;
use crate::output::pickle::Pickle;
use crate::output::torch_archive::{archive, write_tensor};
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
    let mut pickle = Pickle::without_memo();
    write_tensor(&mut pickle, dtype, sizes, 0);
    let mut archive = archive(&pickle.into_bytes(), None, [bytes]);
    let tail = archive.parts.pop().unwrap_or_default();
    let head = archive.parts.pop().unwrap_or_default();
    Frame {
        head: head.into(),
        tail: tail.into(),
        checksum: archive.checksums.pop(),
    }
}

//! A chunk in a `.distcp` file: a zip of `torch.save` that holds one tensor, opened when the chunk is first read.

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::formats::torch_file::TorchFile;
use crate::checkpoint::formats::torch_file::archive::Archive;
use crate::checkpoint::formats::torch_file::section::Section;
use crate::checkpoint::tensor_error::named;
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Locate, Shape, Strides};

#[derive(Debug)]
pub struct Chunk {
    pub name: Arc<str>,
    pub section: Section,
}

impl Chunk {
    fn layout(&self, dtype: Dtype, shape: &Shape) -> Result<Strides> {
        let tensor = TorchFile::in_section(self.section.clone())?.tensor()?;
        if (tensor.dtype(), tensor.shape()) != (dtype, shape) {
            return Err(Error::Mapping(format!(
                "a chunk of type {} and shape {}, where .metadata says {dtype} and {shape}",
                tensor.dtype(),
                tensor.shape(),
            )));
        }
        let mut layout = None;
        tensor.each_stored(&mut |stored| layout = stored.known_layout().cloned());
        layout.ok_or_else(|| Error::Mapping("a chunk without a place".to_owned()))
    }
}

impl Locate for Chunk {
    fn locate(&self, dtype: Dtype, shape: &Shape) -> Result<Strides> {
        self.layout(dtype, shape)
            .map_err(|error| named(error, self.section.path(), &self.name))
    }

    fn item(&self) -> Range<u64> {
        self.section.range()
    }

    fn check_sums(&self) -> Result<bool> {
        Archive::open(self.section.clone())
            .and_then(|archive| archive.check_sums())
            .map_err(|error| named(error, self.section.path(), &self.name))
    }
}

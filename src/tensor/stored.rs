//! Bytes in a file: where the elements of a stored array lie.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::dtype::Dtype;
use super::shape::{Dims, Shape, row_major, units};
use crate::error::{Error, Result};
use crate::source::SourceFile;

/// Largest output of an array that repeats elements (stride 0), so that four bytes cannot claim to be a terabyte.
const EXPANDED_LIMIT: u64 = 64 << 20;

/// Where an array's elements lie: the byte offset of element 0 and, for each dimension, the step in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strides {
    pub offset: u64,
    pub strides: Dims,
}

/// Finds a layout that only the file's own bytes tell, on the first read that needs it.
pub trait Locate: Debug + Send + Sync {
    /// The array must have this type and shape.
    fn locate(&self, dtype: Dtype, shape: &Shape) -> Result<Strides>;

    /// The bytes that hold the array and tell where it lies among them.
    fn item(&self) -> Range<u64>;

    /// Checks the sums that the file holds of the bytes around the array; whether it holds any.
    fn check_sums(&self) -> Result<bool> {
        Ok(false)
    }
}

/// An array of whole-byte elements in one file. Sub-byte types are stored as their bytes.
#[derive(Debug)]
pub struct Stored {
    file: Arc<SourceFile>,
    layout: OnceLock<Strides>,
    locate: Option<Box<dyn Locate>>,
}

impl Stored {
    /// An array at a known place, checked to lie inside the file.
    pub(super) fn new(
        file: Arc<SourceFile>,
        dtype: Dtype,
        shape: &Shape,
        layout: Strides,
    ) -> Result<Self> {
        let unit = unit_bytes(dtype);
        check(&file, unit, shape, &layout)?;
        Ok(Self {
            file,
            layout: OnceLock::from(layout),
            locate: None,
        })
    }

    /// An array whose place is found on first touch.
    pub(super) fn deferred(file: Arc<SourceFile>, locate: Box<dyn Locate>) -> Self {
        Self {
            file,
            layout: OnceLock::new(),
            locate: Some(locate),
        }
    }

    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// Whether the file's own bytes tell where the array lies.
    pub fn is_deferred(&self) -> bool {
        self.locate.is_some()
    }

    /// As [`Locate::check_sums`]; an array at a known place has none of its own.
    pub fn check_sums(&self) -> Result<bool> {
        let locate = self.locate.as_ref();
        locate.map_or(Ok(false), |locate| locate.check_sums())
    }

    /// The part of the file in which the array is found, where it has one of its own.
    pub fn item(&self) -> Option<Range<u64>> {
        self.locate.as_ref().map(|locate| locate.item())
    }

    /// The layout, if finding it costs no read.
    pub fn known_layout(&self) -> Option<&Strides> {
        self.layout.get()
    }

    /// The layout, found and checked against `shape`, in stored units, if it was not before.
    pub(super) fn layout(&self, dtype: Dtype, shape: &Shape) -> Result<&Strides> {
        if let (None, Some(locate)) = (self.layout.get(), &self.locate) {
            let layout = locate.locate(dtype, shape)?;
            let units = units(dtype, shape)?;
            check(&self.file, unit_bytes(dtype), &units, &layout)?;
            self.layout.get_or_init(|| layout);
        }
        self.layout
            .get()
            .ok_or_else(|| Error::malformed(self.file.path(), "the place of an array is unknown"))
    }
}

/// Bytes of one stored unit: an element, or a byte of a type smaller than one.
pub(super) fn unit_bytes(dtype: Dtype) -> u64 {
    dtype.bytes().unwrap_or(1)
}

fn check(file: &SourceFile, unit: u64, shape: &Shape, layout: &Strides) -> Result<()> {
    let refuse = |reason: String| Err(Error::malformed(file.path(), reason));
    if layout.strides.len() != shape.rank() {
        return refuse(format!(
            "strides {:?} do not fit shape {shape}",
            layout.strides
        ));
    }
    if shape.elements() == 0 {
        return Ok(());
    }
    let bytes = shape.elements().checked_mul(unit);
    if is_expanded(shape, &layout.strides) && bytes.is_none_or(|bytes| bytes > EXPANDED_LIMIT) {
        return refuse(format!(
            "an expanded array of shape {shape} with strides {:?} is larger than {EXPANDED_LIMIT} bytes",
            layout.strides
        ));
    }
    let end = shape
        .dims()
        .iter()
        .zip(&layout.strides)
        .try_fold(1u64, |last, (size, stride)| {
            last.checked_add((size - 1).checked_mul(*stride)?)
        })
        .and_then(|count| count.checked_mul(unit)?.checked_add(layout.offset));
    match end {
        Some(end) if end <= file.size() => Ok(()),
        _ => refuse(format!(
            "an array of shape {shape} at byte {} ends beyond the file's {} bytes",
            layout.offset,
            file.size()
        )),
    }
}

fn is_expanded(shape: &Shape, strides: &[u64]) -> bool {
    shape
        .dims()
        .iter()
        .zip(strides)
        .any(|(size, stride)| *size > 1 && *stride == 0)
}

/// The layout of an array written row by row from `offset` on.
pub fn contiguous(offset: u64, shape: &Shape) -> Strides {
    Strides {
        offset,
        strides: row_major(shape.dims()),
    }
}

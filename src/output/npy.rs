//! A `.npy` file for each tensor, as `numpy.save` writes it (numpy 2.4, `lib/format.py`), under the path of its module.

use super::file::{Attributes, Segment, VirtualFile};
use super::sources::sources;
use crate::mapping::MappedTensor;
use crate::tensor::{Dtype, Tensor};

/// Data starts at a multiple of this.
const ALIGNMENT: usize = 64;

/// Digits that numpy leaves room for, should the first dimension grow.
const GROWTH: usize = 21;

/// `model/norm/weight.npy` for `model.norm.weight`.
pub fn npy_files(tensors: &[MappedTensor]) -> Vec<VirtualFile> {
    tensors.iter().map(file).collect()
}

fn file(mapped: &MappedTensor) -> VirtualFile {
    let attributes = Attributes::of(sources([mapped]));
    let segments = vec![
        Segment::Inline(header(&mapped.tensor).into()),
        Segment::Tensor(mapped.tensor.clone()),
    ];
    let path = format!("{}.npy", mapped.name.replace('.', "/"));
    VirtualFile::new(path, attributes.unwrap_or_default(), segments)
}

/// Format 1.0: magic, length, a Python dictionary, blanks and a newline.
fn header(tensor: &Tensor) -> Vec<u8> {
    let (descriptor, dims) = match tensor.dtype().bytes() {
        Some(_) => (descriptor(tensor.dtype()), tensor.shape().dims().to_vec()),
        None => ("|u1", vec![tensor.bytes()]),
    };
    let shape = python_tuple(&dims);
    let mut text =
        format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': {shape}, }}");
    let room = dims
        .first()
        .map_or(0, |first| GROWTH - first.to_string().len());
    text.extend(std::iter::repeat_n(' ', room));
    let unpadded = 10 + text.len() + 1;
    let padding = ALIGNMENT - unpadded % ALIGNMENT;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    [
        b"\x93NUMPY\x01\x00",
        &(text.len() as u16).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

/// numpy's name of an element type. Types that numpy lacks appear as unsigned integers of the same width.
fn descriptor(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "|b1",
        Dtype::I8 => "|i1",
        Dtype::I16 => "<i2",
        Dtype::I32 => "<i4",
        Dtype::I64 => "<i8",
        Dtype::U16 | Dtype::BF16 => "<u2",
        Dtype::U32 => "<u4",
        Dtype::U64 => "<u8",
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::C64 => "<c8",
        Dtype::U8
        | Dtype::F4
        | Dtype::F6_E2M3
        | Dtype::F6_E3M2
        | Dtype::F8_E5M2
        | Dtype::F8_E4M3
        | Dtype::F8_E8M0
        | Dtype::F8_E4M3FNUZ
        | Dtype::F8_E5M2FNUZ => "|u1",
    }
}

fn python_tuple(dims: &[u64]) -> String {
    match dims {
        [only] => format!("({only},)"),
        _ => {
            let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
            format!("({})", dims.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_python_tuples() {
        assert_eq!(python_tuple(&[]), "()");
        assert_eq!(python_tuple(&[3]), "(3,)");
        assert_eq!(python_tuple(&[3, 0]), "(3, 0)");
    }
}

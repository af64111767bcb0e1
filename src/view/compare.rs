//! Looks into weights at mount time: are two tensors one, is one zero.

use crate::error::{Error, Result};
use crate::read::Reader;
use crate::tensor::{Dtype, Tensor};

/// Tensors up to this many bytes are compared whole.
const WHOLE: u64 = 64 << 20;

/// Bytes compared at a time.
const BLOCK: u64 = 64 << 10;

/// Blocks compared of larger tensors.
const SAMPLES: u64 = 1024;

/// Blocks compared of tensors in a store, of which each is a request.
const REMOTE_SAMPLES: u64 = 16;

/// The result of comparing two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    Different,
    /// Of one type and shape; nothing was read.
    Unread,
    /// Their samples are equal; the rest was not read.
    Sampled,
    Equal,
}

/// Compares two tensors that config.json says are one: no store is asked for gigabytes that are not shown.
pub fn compare_tied(a: &Tensor, b: &Tensor) -> Result<Equality> {
    if !is_remote(a) && !is_remote(b) {
        return compare(a, b);
    }
    Ok(match a.dtype() == b.dtype() && a.shape() == b.shape() {
        true if a.identity() == b.identity() => Equality::Equal,
        true => Equality::Unread,
        false => Equality::Different,
    })
}

fn is_remote(tensor: &Tensor) -> bool {
    let mut is_remote = false;
    tensor.each_stored(&mut |stored| is_remote |= stored.file().is_remote());
    is_remote
}

/// Compares the elements of two tensors. Of large ones blocks are compared that are evenly spread: tensors that were trained
/// apart differ in all of them, and reading gigabytes would make every mount slow.
pub fn compare(a: &Tensor, b: &Tensor) -> Result<Equality> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Ok(Equality::Different);
    }
    if a.identity() == b.identity() {
        return Ok(Equality::Equal);
    }
    let (mut left, mut right) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    let step = step(a.bytes(), is_remote(a) || is_remote(b));
    let reader = Reader::default();
    for start in (0..a.bytes()).step_by((BLOCK * step) as usize) {
        let length = BLOCK.min(a.bytes() - start) as usize;
        let (left, right) = (&mut left[..length], &mut right[..length]);
        reader.read_tensor_at(a, start, left)?;
        reader.read_tensor_at(b, start, right)?;
        if left != right {
            return Ok(Equality::Different);
        }
    }
    Ok(match step {
        1 => Equality::Equal,
        _ => Equality::Sampled,
    })
}

/// Whether every byte of a small tensor is zero.
pub fn is_zero(tensor: &Tensor) -> Result<bool> {
    let mut bytes = vec![0; tensor.bytes().min(WHOLE) as usize];
    Reader::default().read_tensor_at(tensor, 0, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Every how manieth block is compared.
fn step(bytes: u64, is_remote: bool) -> u64 {
    let blocks = bytes.div_ceil(BLOCK);
    match is_remote {
        true => blocks.div_ceil(REMOTE_SAMPLES).max(1),
        false if bytes <= WHOLE => 1,
        false => blocks / SAMPLES,
    }
}

/// The numbers of a small tensor of integers, such as a shape.
pub fn integers(tensor: &Tensor) -> Result<Vec<u64>> {
    const MOST: u64 = 64;
    let width = match tensor.dtype() {
        Dtype::I64 => 8,
        Dtype::I32 => 4,
        dtype => return Err(Error::Mapping(format!("a shape of type {dtype}"))),
    };
    if tensor.bytes() > MOST {
        return Err(Error::Mapping(format!(
            "a shape of {} bytes",
            tensor.bytes()
        )));
    }
    let mut bytes = vec![0; tensor.bytes() as usize];
    Reader::default().read_tensor_at(tensor, 0, &mut bytes)?;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    Ok(bytes.chunks_exact(width).map(number).collect())
}

//! A quantized weight of any scheme: its parts, and the floats that they stand for.

use super::blocks::Blocks;
use super::parts::{Parts, described};
use crate::error::{Error, Result};
use crate::tensor::{Code, Dtype, Global, Kernel, Scaled, Tensor, Zero};
use crate::view::compare::integers;

/// The size of a weight's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Told by the shapes of codes and scales, and by the config where they leave a choice.
    Shaped,
    /// That of the config, else this one.
    ConfiguredOr([u64; 2]),
    /// Prescribed by the format.
    Fixed([u64; 2]),
}

/// A quantized weight: its name in floats, and its parts.
pub struct Weight {
    pub name: String,
    pub codes: Tensor,
    pub code: Code,
    pub scale: Tensor,
    pub global: Option<(Tensor, Global)>,
    pub zero: Option<Tensor>,
    /// Rows and columns, where codes do not tell.
    pub shape: Option<Tensor>,
    /// Whether experts are shown as [experts, in, out].
    pub is_transposed: bool,
    pub block: Block,
    /// Names of all parts.
    pub parts: Vec<String>,
}

impl Weight {
    /// The weight `name` with the codes and the scales of these names; `None` without scales.
    pub fn new(parts: &Parts, name: &str, code: Code, codes: &str, scale: &str) -> Option<Self> {
        let mut weight = Self {
            name: name.to_owned(),
            codes: parts.sole(codes)?,
            code,
            scale: parts.sole(scale)?,
            global: None,
            zero: None,
            shape: None,
            is_transposed: false,
            block: Block::Shaped,
            parts: vec![codes.to_owned(), scale.to_owned()],
        };
        if let Some(module) = name.strip_suffix("weight") {
            weight.zero = weight.part(parts, format!("{module}weight_zero_point"));
        }
        Some(weight)
    }

    /// Takes a further part, where it is there.
    pub fn part(&mut self, parts: &Parts, name: String) -> Option<Tensor> {
        let tensor = parts.sole(&name)?;
        self.parts.push(name);
        Some(tensor)
    }

    /// Takes the number that stands over all scales, where it is there.
    pub fn add_global(&mut self, parts: &Parts, name: String, operation: Global) {
        let global = self.part(parts, name);
        self.global = global.map(|global| (global, operation));
    }

    /// The computed tensor of the weight.
    fn floats(&self, blocks: &Blocks, to: Dtype) -> Result<Tensor> {
        let (dims, code) = self.dims()?;
        let [height, width] = match dims[..] {
            [.., height, width] => [height, width],
            _ => return Err(Error::Mapping(format!("shape {dims:?} is no matrix's"))),
        };
        let outer: u64 = dims.iter().rev().skip(2).product();
        let rows = outer * height;
        let scale = self.scales(&dims)?;
        let block = self.block_of(blocks, outer, [height, width], &scale)?;
        let kernel = Kernel::Scaled(Scaled {
            code,
            block,
            global: self.global.as_ref().map_or(Global::None, |global| global.1),
            zero: self.zero.as_ref().map(|zero| zero_of(zero, code)),
        });
        let mut inputs = vec![self.codes_as_matrix(rows, width)?, scale];
        if let Some((global, _)) = &self.global {
            inputs.push(global.reshape(&[1, 1])?);
        }
        inputs.extend(self.zero.clone());
        let floats = Tensor::computed(kernel, to, &[rows, width], &inputs)?.reshape(&dims)?;
        match self.is_transposed {
            true => floats.transpose(),
            false => Ok(floats),
        }
    }

    /// Takes the weight's parts, of which the codes are the tensor of this name, and returns its floats.
    pub fn take_floats(
        &self,
        parts: &mut Parts,
        codes: &str,
        blocks: &Blocks,
        to: Dtype,
    ) -> Result<Tensor> {
        let refused = |error| match (error, parts.get(codes)) {
            (Error::Mapping(reason), Some(tensor)) => {
                let tensor = described(tensor);
                Error::Mapping(format!("{tensor}: {reason}; take a complete save"))
            }
            (error, _) => error,
        };
        let floats = self.floats(blocks, to).map_err(refused)?;
        for part in &self.parts {
            parts.take(part);
        }
        Ok(floats)
    }

    fn codes_as_matrix(&self, rows: u64, width: u64) -> Result<Tensor> {
        let (_, columns) = self.codes.sides();
        let columns = if self.is_transposed {
            width / 2
        } else {
            columns
        };
        self.codes.reshape(&[rows, columns])
    }

    /// The block of a weight of `outer` matrices of sides `of`. One scale for each expert stands over all of its rows.
    fn block_of(
        &self,
        blocks: &Blocks,
        outer: u64,
        of: [u64; 2],
        scale: &Tensor,
    ) -> Result<[u64; 2]> {
        let [height, width] = of;
        if scale.shape().elements() == 1 {
            return Ok([(outer * height).max(1), width.max(1)]);
        }
        let (rows, columns) = scale.sides();
        let scales = [rows / outer.max(1), columns];
        let fits = |[rows, columns]: &[u64; 2]| {
            scales == [height.div_ceil(*rows), width.div_ceil(*columns)]
        };
        let block = match self.block {
            Block::Fixed(block) => Some(block).filter(fits),
            Block::ConfiguredOr(usual) => Some(blocks.configured_or(usual)).filter(fits),
            Block::Shaped => blocks.block(of, scales),
        };
        let Some(block) = block else {
            return Err(Error::Mapping(format!(
                "shape {of:?} has scales of shape {}, which no blocks explain",
                self.scale.shape()
            )));
        };
        match height.is_multiple_of(block[0]) || outer == 1 {
            true => Ok(block),
            false => Err(Error::Mapping(format!(
                "experts of {height} rows in blocks of {} are not read",
                block[0]
            ))),
        }
    }

    /// The shape in floats, and the code, which for packed integers shapes tell.
    fn dims(&self) -> Result<(Vec<u64>, Code)> {
        let mut dims = self.codes.shape().dims().to_vec();
        if self.is_transposed {
            let [experts, rows, groups, bytes] = dims[..] else {
                return Err(Error::Mapping(format!(
                    "blocks of shape {dims:?} are unknown"
                )));
            };
            return Ok((vec![experts, rows, groups * bytes * 2], self.code));
        }
        let Some(columns) = dims.last_mut() else {
            return Err(Error::Mapping("is a single number".to_owned()));
        };
        match (&self.shape, self.code) {
            (Some(shape), _) => packed_dims(&integers(shape)?, &dims),
            (None, Code::E2M1) => {
                *columns *= 2;
                Ok((dims, self.code))
            }
            (None, Code::U4 | Code::U8) => Err(Error::Mapping("lacks its weight_shape".to_owned())),
            (None, _) => Ok((dims, self.code)),
        }
    }

    /// The scales as a matrix of all rows.
    fn scales(&self, dims: &[u64]) -> Result<Tensor> {
        let scale = &self.scale;
        let known = scale.dtype().is_castable()
            || matches!(scale.dtype(), Dtype::F8_E4M3 | Dtype::F8_E8M0 | Dtype::U8);
        if !known || scale.dtype() == Dtype::F64 {
            return Err(Error::Mapping(format!("its scales are {}", scale.dtype())));
        }
        let elements = scale.shape().elements();
        let rows: u64 = dims.iter().rev().skip(1).product();
        match scale.shape().rank() {
            0 | 1 if elements == 1 => scale.reshape(&[1, 1]),
            1 if elements == rows => scale.reshape(&[rows, 1]),
            rank if rank == dims.len() => {
                let (rows, columns) = scale.sides();
                scale.reshape(&[rows, columns])
            }
            _ => Err(Error::Mapping(format!(
                "shape {dims:?} has scales of shape {}",
                scale.shape()
            ))),
        }
    }
}

/// The shape and the code of integers that lie packed in words, of which weight_shape tells the rows and columns.
fn packed_dims(shape: &[u64], packed: &[u64]) -> Result<(Vec<u64>, Code)> {
    let code = [Code::U4, Code::U8].into_iter().find(|code| {
        let per_word = code.per_element(Dtype::I32);
        let words = shape.last().map(|width| width.div_ceil(per_word));
        words.as_ref() == packed.last()
    });
    let fits = shape.len() == packed.len() && shape.first() == packed.first();
    match code.filter(|_| fits) {
        Some(code) => Ok((shape.to_vec(), code)),
        None => Err(Error::Mapping(format!(
            "weight_shape is {shape:?}, the packed weight {packed:?}, which neither 4 nor 8 bits explain"
        ))),
    }
}

fn zero_of(zero: &Tensor, code: Code) -> Zero {
    match (zero.dtype(), code) {
        (Dtype::I32, Code::U8) => Zero::U8,
        (Dtype::I32, _) => Zero::U4,
        _ => Zero::I8,
    }
}

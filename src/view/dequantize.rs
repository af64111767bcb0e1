//! Quantized weights as the floats that they stand for. Tensors tell which are, not the lists of a config.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::compare::integers;
use crate::checkpoint::SourceTensor;
use crate::error::{Error, Result};
use crate::mapping::Config;
use crate::tensor::{Code, Dtype, Global, Kernel, Scaled, Tensor, Zero};

/// Parts that hold scales of activations and of the cache, which weights in floats do without.
const DROPPED: [&str; 5] = [
    "input_scale",
    "activation_scale",
    "input_global_scale",
    "k_scale",
    "v_scale",
];

/// Parts of formats that are not read.
const REFUSED: [(&str, &str); 10] = [
    ("weight_g_idx", "activation order (weight_g_idx)"),
    ("g_idx", "GPTQ"),
    ("qweight", "GPTQ or AWQ"),
    ("qzeros", "GPTQ or AWQ"),
    ("absmax", "bitsandbytes"),
    ("quant_map", "bitsandbytes"),
    ("nested_absmax", "bitsandbytes"),
    ("nested_quant_map", "bitsandbytes"),
    ("SCB", "bitsandbytes"),
    ("weight_format", "bitsandbytes"),
];

/// Formats that config.json names and that are not read.
const REFUSED_METHODS: [&str; 12] = [
    "gptq",
    "awq",
    "bitsandbytes",
    "aqlm",
    "quip",
    "quanto",
    "eetq",
    "higgs",
    "hqq",
    "vptq",
    "spqr",
    "torchao",
];

/// Files that speak of quantized weights alone.
pub const SIDE_FILE: &str = "hf_quant_config.json";

/// The file in which a tensor lies, for messages.
fn place(tensor: &SourceTensor) -> String {
    let mut place = String::new();
    for part in &tensor.parts {
        part.each_stored(&mut |stored| place = format!("{}: ", stored.file().path().display()));
    }
    format!("{place}{}", tensor.name)
}

fn refuse<T>(tensor: &SourceTensor, found: &str, hint: &str) -> Result<T> {
    Err(Error::Mapping(format!(
        "{}: {found}; {hint}",
        place(tensor)
    )))
}

/// The tensors with floats of type `to` in the place of quantized weights.
pub fn dequantize(
    tensors: Vec<SourceTensor>,
    config: &Config,
    to: Dtype,
) -> Result<Vec<SourceTensor>> {
    let hints = Hints::of(config)?;
    let mut parts = Parts::new(tensors)?;
    let mut floats = HashMap::new();
    for number in 0..parts.tensors.len() {
        if let Some(name) = parts.name(number)
            && let Some((own, tensor)) = parts.floats(&name, &hints, to)?
        {
            floats.insert(number, SourceTensor::whole(own, tensor));
        }
    }
    let count = floats.len();
    let rest = parts.tensors.into_iter().enumerate();
    let whole = rest.filter_map(|(number, rest)| floats.remove(&number).or(rest));
    let whole: Vec<SourceTensor> = whole.filter(|tensor| !is_dropped(tensor)).collect();
    whole.iter().try_for_each(check_plain)?;
    if count == 0 {
        return Err(Error::Mapping(
            "holds no quantized weights; leave --dequantize out".to_owned(),
        ));
    }
    Ok(whole)
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn is_dropped(tensor: &SourceTensor) -> bool {
    DROPPED.contains(&last(&tensor.name))
}

/// Refuses what is left of a format that is not read, or that nothing belongs to.
fn check_plain(tensor: &SourceTensor) -> Result<()> {
    let end = last(&tensor.name);
    if let Some((_, format)) = REFUSED.iter().find(|(part, _)| *part == end) {
        return refuse(
            tensor,
            &format!("is a part of {format}, which is not read"),
            "dequantize it with the library that wrote it",
        );
    }
    let dtype = tensor.parts.first().map(Tensor::dtype);
    let is_narrow = dtype.is_some_and(|dtype| dtype.bits() <= 8 && dtype != Dtype::Bool);
    let is_scale = end.contains("_scale")
        || ["scale", "weight_packed", "weight_shape"].contains(&end)
        || end.ends_with("_zero_point")
        || end.ends_with("_scales")
        || end.ends_with("_blocks");
    match (is_scale, is_narrow) {
        (true, _) => refuse(
            tensor,
            "belongs to no quantized weight",
            "take a complete save",
        ),
        (_, true) => refuse(
            tensor,
            &format!(
                "is {}, and no scale for it is there",
                dtype.map_or("", Dtype::name)
            ),
            "take a complete save",
        ),
        _ => Ok(()),
    }
}

/// What a config tells of blocks, which shapes alone do not.
struct Hints {
    blocks: Vec<[u64; 2]>,
    groups: Vec<u64>,
}

impl Hints {
    fn of(config: &Config) -> Result<Self> {
        let quantization = config
            .get("quantization_config")
            .or(config.get("compression_config"));
        let mut hints = Self {
            blocks: Vec::new(),
            groups: Vec::new(),
        };
        let Some(quantization) = quantization else {
            return Ok(hints);
        };
        let method = quantization.get("quant_method").and_then(Value::as_str);
        if let Some(method) = method.filter(|method| REFUSED_METHODS.contains(method)) {
            return Err(Error::Mapping(format!(
                "config.json: quant_method is {method}, whose weights are not read; dequantize them with the library that wrote them"
            )));
        }
        hints.add(quantization.get("weight_block_size"));
        hints.add_group(quantization.get("group_size"));
        let groups = quantization.get("config_groups").and_then(Value::as_object);
        for group in groups.into_iter().flat_map(|groups| groups.values()) {
            let weights = group.get("weights");
            hints.add(weights.and_then(|weights| weights.get("block_structure")));
            hints.add_group(weights.and_then(|weights| weights.get("group_size")));
        }
        Ok(hints)
    }

    fn add(&mut self, block: Option<&Value>) {
        let sides = block.and_then(Value::as_array);
        let sides: Vec<u64> = sides
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        if let [rows, columns] = sides[..]
            && rows > 0
            && columns > 0
        {
            self.blocks.push([rows, columns]);
        }
    }

    fn add_group(&mut self, size: Option<&Value>) {
        self.groups
            .extend(size.and_then(Value::as_u64).filter(|size| *size > 0));
    }

    /// The block of which `scales` has one number each, of a matrix of these sides.
    fn block(&self, of: [u64; 2], scales: [u64; 2]) -> Option<[u64; 2]> {
        let [rows, columns] = of;
        if scales == [1, 1] {
            return Some([rows.max(1), columns.max(1)]);
        }
        let mut blocks = self.blocks.iter().copied();
        let fits = |[height, width]: &[u64; 2]| {
            scales == [rows.div_ceil(*height), columns.div_ceil(*width)]
        };
        if let Some(block) = blocks.find(fits) {
            return Some(block);
        }
        let height = match scales[0] {
            high if high == rows => 1,
            1 => rows,
            _ => return None,
        };
        let mut groups = self.groups.iter().copied();
        let width = match scales[1] {
            1 => Some(columns),
            wide => groups
                .find(|group| columns.div_ceil(*group) == wide)
                .or_else(|| columns.is_multiple_of(wide).then(|| columns / wide)),
        };
        Some([height, width?])
    }
}

/// The tensors of a checkpoint by name, of which quantized weights take what belongs to them.
struct Parts {
    tensors: Vec<Option<SourceTensor>>,
    numbers: HashMap<Arc<str>, usize>,
}

impl Parts {
    fn new(tensors: Vec<SourceTensor>) -> Result<Self> {
        let names = tensors.iter().enumerate();
        let numbers = names.map(|(number, tensor)| (tensor.name.clone(), number));
        Ok(Self {
            numbers: numbers.collect(),
            tensors: tensors.into_iter().map(Some).collect(),
        })
    }

    fn name(&self, number: usize) -> Option<Arc<str>> {
        let tensor = self.tensors.get(number)?.as_ref()?;
        Some(tensor.name.clone())
    }

    fn get(&self, name: &str) -> Option<&SourceTensor> {
        self.tensors.get(*self.numbers.get(name)?)?.as_ref()
    }

    fn take(&mut self, name: &str) -> Option<SourceTensor> {
        let number = self.numbers.get(name)?;
        self.tensors.get_mut(*number)?.take()
    }

    /// A tensor that is whole.
    fn sole(&self, name: &str) -> Option<Tensor> {
        match &*self.get(name)?.parts {
            [tensor] => Some(tensor.clone()),
            _ => None,
        }
    }

    /// The floats of a quantized weight that begins with this tensor, and their name.
    fn floats(&mut self, name: &str, hints: &Hints, to: Dtype) -> Result<Option<(String, Tensor)>> {
        let Some(weight) = Weight::of(self, name) else {
            return Ok(None);
        };
        let refused = |error| match (error, self.get(name)) {
            (Error::Mapping(reason), Some(tensor)) => {
                Error::Mapping(format!("{}: {reason}; take a complete save", place(tensor)))
            }
            (error, _) => error,
        };
        let floats = weight.floats(hints, to).map_err(refused)?;
        for part in &weight.parts {
            self.take(part);
        }
        Ok(Some((weight.name, floats)))
    }
}

/// A quantized weight: its name in floats, and its parts.
struct Weight {
    name: String,
    codes: Tensor,
    code: Code,
    scale: Tensor,
    global: Option<(Tensor, Global)>,
    zero: Option<Tensor>,
    /// Rows and columns, where codes do not tell.
    shape: Option<Tensor>,
    /// Whether experts are shown as [experts, in, out].
    is_transposed: bool,
    /// A block that the format prescribes.
    block: Option<[u64; 2]>,
    /// Names of all parts.
    parts: Vec<String>,
}

impl Weight {
    /// The weight whose codes are the tensor of this name.
    fn of(parts: &Parts, name: &str) -> Option<Self> {
        let codes = parts.sole(name)?;
        let new = |own: &str, code, scale: &str| {
            let mut weight = Self {
                name: own.to_owned(),
                codes: codes.clone(),
                code,
                scale: parts.sole(scale)?,
                global: None,
                zero: None,
                shape: None,
                is_transposed: false,
                block: None,
                parts: vec![name.to_owned(), scale.to_owned()],
            };
            let module = own.strip_suffix("weight").unwrap_or_default();
            let zero = format!("{module}weight_zero_point");
            if !module.is_empty() || own == "weight" {
                weight.zero = weight.part(parts, zero);
            }
            Some(weight)
        };
        if let Some(own) = name.strip_suffix("_packed") {
            return Self::packed(parts, own, &codes, &new);
        }
        if let Some(own) = name.strip_suffix("_blocks") {
            let mut weight = new(own, Code::E2M1, &format!("{own}_scales"))?;
            weight.is_transposed = true;
            return Some(weight);
        }
        let stem = name.strip_suffix("weight").unwrap_or(name);
        let scales = [
            format!("{name}_scale_inv"),
            format!("{name}_scale"),
            format!("{stem}scale"),
        ];
        let scale = scales.iter().find(|scale| parts.get(scale).is_some())?;
        match codes.dtype() {
            Dtype::F8_E4M3 => {
                let mut weight = new(name, Code::E4M3, scale)?;
                if weight.scale.shape().elements() > 1 && !scale.ends_with("weight_scale") {
                    weight.block = Some([128, 128]);
                }
                Some(weight)
            }
            // Two FP4 codes in a byte, with scales that are powers of two.
            Dtype::I8 if *scale == scales[2] => {
                let mut weight = new(name, Code::E2M1, scale)?;
                weight.block = Some([1, 32]);
                Some(weight)
            }
            Dtype::I8 => new(name, Code::I8, scale),
            Dtype::U8 => {
                let mut weight = new(name, Code::E2M1, scale)?;
                weight.add_global(parts, format!("{name}_scale_2"), Global::Times);
                Some(weight)
            }
            _ => None,
        }
    }

    fn packed(
        parts: &Parts,
        own: &str,
        codes: &Tensor,
        new: &dyn Fn(&str, Code, &str) -> Option<Self>,
    ) -> Option<Self> {
        let scale = format!("{own}_scale");
        if codes.dtype() == Dtype::I32 {
            let mut weight = new(own, Code::U4, &scale)?;
            weight.shape = weight.part(parts, format!("{own}_shape"));
            return Some(weight);
        }
        let mut weight = new(own, Code::E2M1, &scale)?;
        weight.add_global(parts, format!("{own}_global_scale"), Global::Over);
        Some(weight)
    }

    /// A further part, where it is there.
    fn part(&mut self, parts: &Parts, name: String) -> Option<Tensor> {
        let tensor = parts.sole(&name)?;
        self.parts.push(name);
        Some(tensor)
    }

    fn add_global(&mut self, parts: &Parts, name: String, operation: Global) {
        let global = self.part(parts, name);
        self.global = global.map(|global| (global, operation));
    }

    fn floats(&self, hints: &Hints, to: Dtype) -> Result<Tensor> {
        let (dims, code) = self.dims()?;
        let [height, width] = match dims[..] {
            [.., height, width] => [height, width],
            _ => return Err(Error::Mapping(format!("shape {dims:?} is no matrix's"))),
        };
        let outer: u64 = dims.iter().rev().skip(2).product();
        let scale = self.scales(&dims)?;
        let (scale_rows, scale_columns) = scale.sides();
        let scales = [scale_rows / outer.max(1), scale_columns];
        let is_single = scale.shape().elements() == 1;
        let prescribed = self.block.map(|block| {
            let configured = hints.blocks.first().copied();
            if block == [128, 128] {
                configured.unwrap_or(block)
            } else {
                block
            }
        });
        let fits = |[rows, columns]: &[u64; 2]| {
            scales == [height.div_ceil(*rows), width.div_ceil(*columns)]
        };
        let block = match prescribed {
            _ if is_single => Some([outer * height, width]),
            Some(block) => Some(block).filter(fits),
            None => hints.block([height, width], scales),
        };
        let Some(block) = block else {
            return Err(Error::Mapping(format!(
                "shape {dims:?} has scales of shape {}, which no blocks explain",
                self.scale.shape()
            )));
        };
        let rows = outer * height;
        let kernel = |block| {
            Kernel::Scaled(Scaled {
                code,
                block,
                global: self
                    .global
                    .as_ref()
                    .map_or(Global::None, |(_, global)| *global),
                zero: self.zero.as_ref().map(|zero| zero_of(zero, code)),
            })
        };
        let whole = is_single || height.is_multiple_of(block[0]) || outer == 1;
        let codes = |tensor: &Tensor| {
            let (_, columns) = tensor.sides();
            let columns = match self.is_transposed {
                true => width / 2,
                false => columns,
            };
            tensor.reshape(&[rows, columns])
        };
        if !whole {
            return Err(Error::Mapping(format!(
                "experts of {height} rows in blocks of {} are not read",
                block[0]
            )));
        }
        // One scale for each expert stands over all of its rows.
        let mut inputs = vec![codes(&self.codes)?, scale];
        inputs.extend(
            self.global
                .as_ref()
                .map(|(global, _)| global.reshape(&[1, 1]))
                .transpose()?,
        );
        inputs.extend(self.zero.clone());
        let floats = Tensor::computed(kernel(block), to, &[rows, width], &inputs)?;
        let floats = floats.reshape(&dims)?;
        match self.is_transposed {
            true => floats.transpose(),
            false => Ok(floats),
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
            (Some(shape), _) => {
                let shape = integers(shape)?;
                let code = [Code::U4, Code::U8].into_iter().find(|code| {
                    let per_word = code.per_element(Dtype::I32);
                    shape
                        .last()
                        .is_some_and(|width| width.div_ceil(per_word) == *columns)
                });
                let fits = shape.len() == dims.len() && shape.first() == dims.first();
                match code.filter(|_| fits) {
                    Some(code) => Ok((shape, code)),
                    None => Err(Error::Mapping(format!(
                        "weight_shape is {shape:?}, the packed weight {dims:?}, which neither 4 nor 8 bits explain"
                    ))),
                }
            }
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

fn zero_of(zero: &Tensor, code: Code) -> Zero {
    match (zero.dtype(), code) {
        (Dtype::I32, Code::U8) => Zero::U8,
        (Dtype::I32, _) => Zero::U4,
        _ => Zero::I8,
    }
}

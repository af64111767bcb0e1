//! Tensors from the calls that rebuild them: which storage, from which element on, in which steps.
//!
//! Calls: torch 2.15.0 `torch/_utils.py`, `torch/_tensor.py`; older forms as far back as 0.4.

use std::sync::Arc;

use super::dtensor::Value;
use super::pickle::Object;
use super::{Storages, distributed};
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Layout, Shape, SourceFile, Tensor};

/// Most wrappers around a tensor: a parameter of a tensor that was moved to a device and back.
const WRAPPERS: usize = 8;

/// A function and the tuple of its arguments.
#[derive(Clone, Copy)]
struct Call<'a> {
    module: &'a str,
    name: &'a str,
    args: Object<'a>,
}

impl<'a> Call<'a> {
    fn of(object: Object<'a>) -> Option<Self> {
        Self::new(object.callable()?, object.args()?)
    }

    fn new(function: Object<'a>, args: Object<'a>) -> Option<Self> {
        let (module, name) = function.global()?;
        Some(Self { module, name, args })
    }
}

/// The tensor that `object` is, `None` if it is something else.
pub fn value(object: Object<'_>, storages: &Storages) -> Result<Option<Value>> {
    if object.class_name() == Some("ShardedTensor") {
        return distributed::sharded(object, storages).map(|value| Some(Value::Sharded(value)));
    }
    let Some(mut call) = Call::of(object) else {
        return Ok(None);
    };
    for _ in 0..WRAPPERS {
        let inner = match (call.module, call.name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                return plain(call, storages).map(|tensor| Some(Value::Plain(tensor)));
            }
            ("torch._tensor", "_rebuild_from_type_v2") if is_dtensor(call) => {
                return distributed::dtensor(call.args, storages)
                    .map(|value| Some(Value::Distributed(value)));
            }
            ("torch._tensor", "_rebuild_from_type_v2") => call
                .args
                .item(0)
                .zip(call.args.item(2))
                .and_then(|(function, args)| Call::new(function, args)),
            ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") => {
                check_moved(call)?;
                call.args.item(0).and_then(Call::of)
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter" | "Buffer") => {
                call.args.item(0).and_then(Call::of)
            }
            ("torch._utils" | "torch._tensor", name) if name.starts_with("_rebuild") => {
                return refuse(format!(
                    "is made by {}.{name}, which is not served",
                    call.module
                ));
            }
            _ => return Ok(None),
        };
        match inner {
            Some(inner) => call = inner,
            None => return refuse(format!("is made by {} from no tensor", call.name)),
        }
    }
    refuse("is wrapped too many times")
}

fn is_dtensor(call: Call<'_>) -> bool {
    call.args.item(1).and_then(Object::class_name) == Some("DTensor")
}

/// A tensor of an accelerator is stored as a CPU tensor, which may have another type.
fn check_moved(call: Call<'_>) -> Result<()> {
    let wanted = call.args.item(1).map(dtype).transpose()?;
    let inner = call.args.item(0).and_then(Object::args);
    let stored = match inner
        .and_then(|args| args.item(0))
        .map(Storage::of)
        .transpose()?
    {
        Some(Storage {
            dtype: Some(dtype), ..
        }) => Some(dtype),
        _ => inner.and_then(|args| args.item(6)).map(dtype).transpose()?,
    };
    match wanted == stored {
        true => Ok(()),
        false => refuse("is stored with another type than it had"),
    }
}

fn plain(call: Call<'_>, storages: &Storages) -> Result<Tensor> {
    let broken = || Error::Mapping(format!("a broken call of {}", call.name));
    let [storage, offset, size, stride] = [0, 1, 2, 3].map(|index| call.args.item(index));
    let storage = Storage::of(storage.ok_or_else(broken)?)?;
    let offset = offset.and_then(Object::as_u64).ok_or_else(broken)?;
    let size = size.and_then(Object::as_sizes).ok_or_else(broken)?;
    let stride = stride.and_then(Object::as_sizes).ok_or_else(broken)?;
    let (own, metadata) = match call.name {
        "_rebuild_tensor_v3" => (call.args.item(6).map(dtype).transpose()?, call.args.item(7)),
        _ => (storage.dtype, call.args.item(6)),
    };
    refuse_bits(metadata)?;
    let dtype = own.ok_or_else(|| Error::Mapping("its storage has no type".to_owned()))?;
    let shape = Shape::new(&size).ok_or_else(|| {
        Error::Mapping(format!(
            "shape {size:?} has too many dimensions or elements"
        ))
    })?;
    let place = storage.locate(storages)?;
    let view = View {
        offset,
        shape,
        stride: stride.into(),
    };
    view.tensor(storages.file().clone(), dtype, place)
}

/// Conjugate and negative views hold other numbers than their storage.
fn refuse_bits(metadata: Option<Object<'_>>) -> Result<()> {
    let set =
        metadata.and_then(|bits| bits.entries().find(|(_, bit)| bit.as_bool() != Some(false)));
    match set {
        Some((name, _)) => refuse(format!(
            "is a view with the {} bit set",
            name.as_str().unwrap_or("unknown")
        )),
        None => Ok(()),
    }
}

/// The type that a value such as `torch.bfloat16` names.
pub fn dtype(object: Object<'_>) -> Result<Dtype> {
    let name = object
        .global()
        .filter(|(module, _)| *module == "torch")
        .map(|(_, name)| name);
    match name.and_then(Dtype::from_torch) {
        Some(dtype) => Ok(dtype),
        None => refuse(format!(
            "has type {}, which safetensors lacks",
            name.unwrap_or("unknown").escape_debug()
        )),
    }
}

/// A range of bytes in a file.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    size: u64,
}

/// A storage as a persistent id names it: `("storage", class, key, location, count)`, and in the legacy stream a view
/// `(key, offset, count)` or None.
pub struct Storage<'a> {
    pub key: &'a str,
    /// `None` for a storage of bytes whose type the tensor tells.
    pub dtype: Option<Dtype>,
    location: &'a str,
    count: u64,
    view: Option<(u64, u64)>,
}

impl<'a> Storage<'a> {
    pub fn of(object: Object<'a>) -> Result<Self> {
        let Some(id) = object.persistent_id() else {
            return refuse("is made from no storage");
        };
        let text = |index| id.item(index).and_then(Object::as_str);
        let count = id.item(4).and_then(Object::as_u64);
        let (Some("storage"), Some(class), Some(key), Some(location), Some(count)) = (
            text(0),
            id.item(1).and_then(Object::class_name),
            text(2),
            text(3),
            count,
        ) else {
            return refuse("is made from a storage that is not one");
        };
        let dtype = storage_dtype(class)?;
        let view = id
            .item(5)
            .filter(|view| !view.is_none())
            .map(view)
            .transpose()?;
        Ok(Self {
            key,
            dtype,
            location,
            count,
            view,
        })
    }

    /// Bytes of an element of the storage.
    pub fn unit(&self) -> u64 {
        self.dtype.and_then(Dtype::bytes).unwrap_or(1)
    }

    /// Bytes of the storage, or of the view on one that it is.
    fn locate(&self, storages: &Storages) -> Result<Place> {
        if self.location == "meta" {
            return refuse("has no data: it was on the meta device when saved");
        }
        let (start, size) = storages.locate(self.key)?;
        let unit = self.unit();
        let (offset, count) = self.view.unwrap_or((0, self.count));
        let inner = offset.checked_mul(unit).zip(count.checked_mul(unit));
        let whole = self.view.is_some() || self.count.checked_mul(unit) == Some(size);
        match inner {
            Some((offset, bytes))
                if whole && offset.checked_add(bytes).is_some_and(|end| end <= size) =>
            {
                Ok(Place {
                    start: start + offset,
                    size: bytes,
                })
            }
            _ => refuse(format!(
                "claims {} elements of {unit} bytes in storage {:?}, which has {size} bytes",
                self.count, self.key
            )),
        }
    }
}

fn view(object: Object<'_>) -> Result<(u64, u64)> {
    match object
        .item(1)
        .and_then(Object::as_u64)
        .zip(object.item(2).and_then(Object::as_u64))
    {
        Some(view) => Ok(view),
        None => refuse("is made from a broken view of a storage"),
    }
}

/// Classes of `torch/storage.py`, of `torch` and, in old files, of `torch.cuda`.
fn storage_dtype(class: &str) -> Result<Option<Dtype>> {
    Ok(Some(match class {
        "UntypedStorage" | "_UntypedStorage" => return Ok(None),
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "ComplexFloatStorage" => Dtype::C64,
        other => {
            return refuse(format!(
                "has a storage of class {}, which safetensors lacks",
                other.escape_debug()
            ));
        }
    }))
}

/// What a tensor shows of a storage: offset and strides in elements.
struct View {
    offset: u64,
    shape: Shape,
    stride: Box<[u64]>,
}

impl View {
    fn tensor(self, file: Arc<SourceFile>, dtype: Dtype, place: Place) -> Result<Tensor> {
        let Some(unit) = dtype.bytes() else {
            return refuse(format!("has type {dtype}, which torch cannot save"));
        };
        let offset = self.offset.checked_mul(unit);
        let inside = self.shape.elements() == 0
            || self
                .end()
                .and_then(|end| end.checked_mul(unit))
                .is_some_and(|end| end <= place.size);
        match offset
            .and_then(|offset| place.start.checked_add(offset))
            .filter(|_| inside)
        {
            Some(start) => {
                let layout = Layout {
                    offset: start,
                    strides: self.stride,
                };
                Tensor::stored(file, dtype, self.shape, layout)
            }
            None => refuse(format!(
                "shape {} with strides {:?} from element {} on does not fit a storage of {} bytes",
                self.shape, self.stride, self.offset, place.size
            )),
        }
    }

    /// One more than the last element of the storage that the view shows.
    fn end(&self) -> Option<u64> {
        let steps = self.shape.dims().iter().zip(&self.stride);
        let last = { steps }.try_fold(self.offset, |last, (size, stride)| {
            last.checked_add(size.checked_sub(1)?.checked_mul(*stride)?)
        })?;
        last.checked_add(1)
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Mapping(reason.into()))
}

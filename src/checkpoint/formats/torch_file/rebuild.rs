//! Tensors from the calls that rebuild them: which storage, from which element on, in which steps.
//!
//! Calls: torch 2.15.0 `torch/_utils.py`, `torch/_tensor.py`; older forms as far back as 0.4.

use std::sync::Arc;

use super::dtensor::Value;
use super::pickle::Object;
use super::storage::{Place, Storage};
use super::{Storages, distributed};
use crate::error::{Error, Result};
use crate::source::SourceFile;
use crate::tensor::{Dims, Dtype, Shape, Strides, Tensor};

/// Most wrappers around a tensor: a parameter of a tensor that was moved to a device and back.
const WRAPPERS: usize = 8;

/// torchao's class of a weight that FSDP gathers in float8; it holds the weight itself, in high precision, and how to cast it.
const GATHERED_IN_FLOAT8: &str = "WeightWithDynamicFloat8CastTensor";

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

    /// The call that this one only wraps.
    fn wrapped(self) -> Result<Option<Self>> {
        let inner = match (self.module, self.name) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter" | "Buffer") => {
                self.args.item(0).and_then(Self::of)
            }
            ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") => {
                self.args.item(0).and_then(Self::of)
            }
            ("torch._tensor", "_rebuild_from_type_v2")
                if self.class() == Some(GATHERED_IN_FLOAT8) =>
            {
                let state = self.args.item(3);
                state
                    .and_then(|state| state.get("_tensor"))
                    .and_then(Self::of)
            }
            ("torch._tensor", "_rebuild_from_type_v2") if !self.is_distributed() => {
                let parts = self.args.item(0).zip(self.args.item(2));
                parts.and_then(|(function, args)| Self::new(function, args))
            }
            _ => return Ok(None),
        };
        match inner {
            Some(inner) => Ok(Some(inner)),
            None => refuse(format!("is made by {} from no tensor", self.name)),
        }
    }

    /// The class that `_rebuild_from_type_v2` is given.
    fn class(self) -> Option<&'a str> {
        self.args.item(1).and_then(Object::class_name)
    }

    fn is_distributed(self) -> bool {
        matches!(self.class(), Some("DTensor" | "ShardedTensor"))
    }

    fn value(self, storages: &Storages) -> Result<Option<Value>> {
        match (self.module, self.name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                plain(self, storages).map(|tensor| Some(Value::Plain(tensor)))
            }
            ("torch._tensor", "_rebuild_from_type_v2") if self.class() == Some("DTensor") => {
                distributed::dtensor(self.args, storages).map(|part| Some(Value::Distributed(part)))
            }
            ("torch._tensor", "_rebuild_from_type_v2") => {
                distributed::sharded(self.args, storages).map(|part| Some(Value::Sharded(part)))
            }
            ("torch._utils" | "torch._tensor", name) if name.starts_with("_rebuild") => {
                unserved(format!(
                    "is made by {}.{name}, which is not served; save a state_dict of plain tensors",
                    self.module
                ))
            }
            (module, name) if module.starts_with("torch") && name.ends_with("Tensor") => {
                unserved(format!(
                    "is made by {module}.{name}, which is not served; save a state_dict of plain tensors"
                ))
            }
            _ => Ok(None),
        }
    }

    /// The type to which a tensor of an accelerator, which is stored as one of the CPU, is cast.
    fn cast(self) -> Result<Option<Dtype>> {
        match (self.module, self.name) {
            ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor") => {
                self.args.item(1).map(dtype).transpose()
            }
            _ => Ok(None),
        }
    }
}

/// The tensor that `object` is, `None` if it is something else.
pub fn value(object: Object<'_>, storages: &Storages) -> Result<Option<Value>> {
    let Some(mut call) = Call::of(object) else {
        return Ok(None);
    };
    let mut casts = Vec::new();
    for _ in 0..WRAPPERS {
        casts.extend(call.cast()?);
        match call.wrapped()? {
            Some(inner) => call = inner,
            None => {
                let value = call.value(storages)?;
                return value.map(|value| check_type(value, &casts)).transpose();
            }
        }
    }
    refuse("is wrapped too many times")
}

/// Refuses a tensor that would have to be cast.
fn check_type(value: Value, casts: &[Dtype]) -> Result<Value> {
    let own = match &value {
        Value::Plain(tensor) => Some(tensor.dtype()),
        _ => None,
    };
    match casts.iter().all(|wanted| Some(*wanted) == own) {
        true => Ok(value),
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
        stride,
    };
    view.tensor(storages.file().clone(), dtype, place)
}

/// Conjugate and negative views hold other numbers than their storage. torch sets a bit that is named, whatever its value.
fn refuse_bits(metadata: Option<Object<'_>>) -> Result<()> {
    let Some(bits) = metadata.filter(|bits| !bits.is_none()) else {
        return Ok(());
    };
    if !bits.is_mapping() {
        return refuse("has metadata that is no dictionary");
    }
    match bits.entries().next() {
        Some((name, _)) => unserved(format!(
            "is a view with the {} bit set; save its resolve_conj().resolve_neg()",
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
        None => unserved(format!(
            "has type {}, which safetensors lacks; save it cast, or without it",
            name.unwrap_or("unknown").escape_debug()
        )),
    }
}

/// The part of a storage that a tensor shows: offset and strides in elements.
struct View {
    offset: u64,
    shape: Shape,
    stride: Dims,
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
                let layout = Strides {
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

fn unserved<T>(reason: String) -> Result<T> {
    Err(Error::Unserved(reason))
}

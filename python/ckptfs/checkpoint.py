"""Checkpoints without a mount: names lead to tensors, whose bytes are read when they are asked for.

    checkpoint = ckptfs.open("run/step-4000", config_from="~/hf", dtype="bf16")
    rows = checkpoint["model.embed_tokens.weight"][10:20].torch()

The method names of `safetensors.safe_open` do as well: `keys`, `get_tensor`, `get_slice`.
"""
import json
import warnings
from collections.abc import Mapping

from ._error import Error
from ._words import expanded, words

# safetensors' names of element types, and torch's.
_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}
# Those that NumPy lacks, by their names in ml_dtypes.
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}


def open(source, *options, **keywords):
    """Opens a checkpoint, or the latest save of a run, as `ckptfs mount` would show it.

    Keywords are the options that decide what is shown, as of `ckptfs inspect`: `dtype`, `config_from`, `merge`, `dequantize`, `entry`...

    Raises `ckptfs.Error` with one line that names the file, the reason and the remedy.
    """
    try:
        from ._native import View
    except ImportError as error:
        raise Error(f"the extension of ckptfs is not built ({error}); install it with: pip install ckptfs") from None
    view = View.open([expanded(source), *map(expanded, options), *words(keywords)])
    for text in view.warnings():
        warnings.warn(text, stacklevel=2)
    return Checkpoint(view)


class Checkpoint(Mapping):
    """The tensors of a checkpoint by name, in the order of the model."""

    def __init__(self, view):
        self._view = view
        self._names = view.names()

    def __getitem__(self, name):
        return Tensor(self._view.tensor(name))

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def __contains__(self, name):
        try:
            self._view.tensor(name)
        except (KeyError, TypeError):
            return False
        return True

    def __repr__(self):
        return f"<ckptfs.Checkpoint of {len(self)} tensors>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def get_tensor(self, name):
        """The tensor as `torch.Tensor`."""
        return self[name].torch()

    def get_slice(self, name):
        """The tensor, of which an index reads a part alone."""
        return self[name]

    def state_dict(self):
        """All tensors as `torch.Tensor`, read now."""
        return {name: tensor.torch() for name, tensor in self.items()}

    def files(self):
        """The files that a mount would show, by path."""
        return {path: File(self._view, path, size) for path, size in self._view.files()}

    def inspect(self):
        """The report of `ckptfs inspect --json`."""
        return json.loads(self._view.report())


class File:
    """A file that a mount would show."""

    def __init__(self, view, path, size):
        self._view = view
        self.path = path
        self.size = size

    def read(self, offset=0, size=None):
        """Its bytes from `offset` on, at most `size`."""
        wanted = self.size if size is None else size
        return self._view.read_file(self.path, offset, wanted)

    def __repr__(self):
        return f"<ckptfs.File {self.path}, {self.size} bytes>"


class Tensor:
    """A tensor, or a part of one, that is read by `numpy`, `torch` or `bytes`. An index reads nothing yet."""

    def __init__(self, native, dropped=()):
        self._native = native
        # Dimensions of length 1 that an integer took away.
        self._dropped = frozenset(dropped)

    @property
    def shape(self):
        return tuple(length for dim, length in enumerate(self._native.shape) if dim not in self._dropped)

    @property
    def dtype(self):
        """The element type by safetensors' name, such as `BF16`."""
        return self._native.dtype

    @property
    def nbytes(self):
        return self._native.nbytes

    @property
    def ndim(self):
        return len(self.shape)

    def get_shape(self):
        return list(self.shape)

    def get_dtype(self):
        return self.dtype

    def __len__(self):
        if not self.shape:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    def __repr__(self):
        return f"<ckptfs.Tensor {self.dtype} {list(self.shape)}>"

    def __getitem__(self, index):
        native, dropped = self._native, set(self._dropped)
        dims = [dim for dim in range(len(native.shape)) if dim not in dropped]
        for dim, each in zip(dims, _spelled_out(index, len(dims))):
            start, size, is_dropped = _range(each, native.shape[dim], dim)
            native = native.narrow(dim, start, size)
            dropped.update([dim] if is_dropped else [])
        return Tensor(native, dropped)

    def bytes(self):
        """The elements, row by row, little-endian."""
        return self._native.read()

    def numpy(self):
        """As `numpy.ndarray` over the bytes that were read. NumPy has bfloat16 and float8 where ml_dtypes is installed."""
        import numpy

        return numpy.frombuffer(self.bytes(), dtype=_numpy_dtype(self.dtype)).reshape(self.shape)

    def __array__(self, dtype=None, copy=None):
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def torch(self):
        """As `torch.Tensor` over the bytes that were read."""
        import torch

        name = _TORCH.get(self.dtype)
        dtype = getattr(torch, name, None) if name else None
        if dtype is None:
            raise Error(f"this torch has no element type for {self.dtype}; read its bytes()")
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=dtype)
        return torch.frombuffer(self.bytes(), dtype=dtype).reshape(self.shape)


def _numpy_dtype(name):
    import numpy

    if name not in _ML_DTYPES and name in _TORCH:
        return numpy.dtype(_TORCH[name])
    try:
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
    except (ImportError, KeyError, AttributeError):
        remedy = "call torch(), open with dtype=\"f32\", or install ml_dtypes"
        raise Error(f"NumPy has no element type for {name}; {remedy}") from None


def _spelled_out(index, count):
    """One index for each dimension that `index` speaks of."""
    parts = index if isinstance(index, tuple) else (index,)
    if parts.count(Ellipsis) > 1 or len(parts) - parts.count(Ellipsis) > count:
        raise IndexError(f"{len(parts)} indices for {count} dimensions")
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts = parts[:at] + (slice(None),) * (count - len(parts) + 1) + parts[at + 1 :]
    return parts


def _range(index, length, dim):
    """Start and size of a slice or an integer, and whether it takes its dimension away."""
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        if step != 1:
            raise IndexError(f"a slice of dimension {dim} has step {step}; read it with step 1")
        return start, max(stop - start, 0), False
    at = index.__index__()
    if not -length <= at < length:
        raise IndexError(f"index {at} is out of range for dimension {dim} of length {length}")
    return at % length, 1, True

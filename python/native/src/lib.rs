//! `ckptfs._native`: a view and its tensors without a mount. `python/ckptfs/checkpoint.py` gives them the manners of Python.
#![deny(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;

use ckptfs::cli::Opened;
use ckptfs::read::Reader;
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

create_exception!(
    ckptfs,
    Error,
    PyRuntimeError,
    "Refusal of ckptfs, in its own words."
);

fn error(error: impl std::fmt::Display) -> PyErr {
    Error::new_err(error.to_string())
}

/// An opened checkpoint. Its caches are its own and go with it.
#[pyclass(frozen, module = "ckptfs._native")]
struct View {
    opened: Opened,
    reader: Reader,
    /// Places of the tensors by name.
    places: HashMap<String, usize>,
}

/// A tensor that is read when it is asked for.
#[pyclass(frozen, module = "ckptfs._native")]
struct Tensor {
    tensor: ckptfs::tensor::Tensor,
    reader: Reader,
}

#[pymethods]
impl View {
    /// Opens the view that the words of a command line ask for.
    #[staticmethod]
    fn open(py: Python<'_>, words: Vec<OsString>) -> PyResult<Self> {
        let opened = py.detach(|| Opened::from_words(words)).map_err(error)?;
        let names = opened.view.tensors.iter().enumerate();
        let places = names
            .map(|(place, tensor)| (tensor.name.to_string(), place))
            .collect();
        let reader = Reader::default();
        Ok(Self {
            opened,
            reader,
            places,
        })
    }

    /// Names in the order of the model.
    fn names(&self) -> Vec<String> {
        let tensors = self.opened.view.tensors.iter();
        tensors.map(|tensor| tensor.name.to_string()).collect()
    }

    fn tensor(&self, name: &str) -> PyResult<Tensor> {
        let place = self.places.get(name);
        let mapped = place.and_then(|place| self.opened.view.tensors.get(*place));
        let mapped = mapped.ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        Ok(Tensor {
            tensor: mapped.tensor.clone(),
            reader: self.reader.clone(),
        })
    }

    /// Paths and sizes of the files that a mount would show.
    fn files(&self) -> Vec<(String, u64)> {
        let files = self.opened.view.files.iter();
        files
            .map(|file| (file.path().to_owned(), file.size()))
            .collect()
    }

    /// The bytes `offset .. offset + size` of a file, fewer only at its end.
    fn read_file<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        offset: u64,
        size: u64,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let mut files = self.opened.view.files.iter();
        let file = files
            .find(|file| file.path() == path)
            .ok_or_else(|| PyKeyError::new_err(path.to_owned()))?;
        let length = size.min(file.size().saturating_sub(offset));
        filled(py, length, |bytes| self.reader.read_at(file, offset, bytes))
    }

    /// The report of `ckptfs inspect --json`.
    fn report(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.opened.report()).map_err(error)
    }

    /// Warnings about the view.
    fn warnings(&self) -> Vec<String> {
        let notes = self.opened.view.notes.iter();
        notes
            .filter(|note| note.is_warning)
            .map(|note| note.text.clone())
            .collect()
    }
}

#[pymethods]
impl Tensor {
    #[getter]
    fn shape(&self) -> Vec<u64> {
        self.tensor.shape().dims().to_vec()
    }

    /// The element type by safetensors' name, such as `BF16`.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.tensor.dtype().name()
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.tensor.bytes()
    }

    /// The part `start .. start + size` of dimension `dim`; reads nothing.
    fn narrow(&self, dim: usize, start: u64, size: u64) -> PyResult<Self> {
        let tensor = self.tensor.narrow(dim, start, size).map_err(error)?;
        let reader = self.reader.clone();
        Ok(Self { tensor, reader })
    }

    /// All elements, row by row, little-endian.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        filled(py, self.tensor.bytes(), |bytes| {
            self.reader.read_tensor_at(&self.tensor, 0, bytes)
        })
    }
}

/// A buffer of Python, filled while other threads of Python run.
fn filled<'py, E: std::fmt::Display + Send>(
    py: Python<'py>,
    length: u64,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E> + Send,
) -> PyResult<Bound<'py, PyByteArray>> {
    let length = usize::try_from(length).map_err(error)?;
    PyByteArray::new_with(py, length, |bytes| py.detach(|| fill(bytes)).map_err(error))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<Error>())?;
    module.add("version", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<View>()?;
    module.add_class::<Tensor>()
}

//! What `inspect` says of a view, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::cli::size;
use crate::fs::one_line;
use crate::mapping::{Dropped, MappedTensor};
use crate::repo::VirtualFile;
use crate::tensor::Stored;
use crate::view::{Note, View};

#[derive(Debug, Serialize)]
pub struct Report {
    system: String,
    evidence: String,
    family: String,
    parameters: u64,
    bytes: u64,
    /// How many tensors have each element type.
    dtypes: BTreeMap<&'static str, usize>,
    files: Vec<FileReport>,
    pub tensors: Vec<TensorReport>,
    dropped: Vec<DroppedReport>,
    notes: Vec<NoteReport>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    path: String,
    size: u64,
}

#[derive(Debug, Serialize)]
pub struct TensorReport {
    pub name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    bytes: u64,
    /// Names in the checkpoint.
    sources: Vec<String>,
    operations: Vec<String>,
    stored: Vec<StoredReport>,
}

/// An array in a source file.
#[derive(Debug, Serialize)]
struct StoredReport {
    file: String,
    /// Unknown where finding it costs a read.
    offset: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DroppedReport {
    name: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct NoteReport {
    is_warning: bool,
    text: String,
}

impl Report {
    pub fn of(view: &View) -> Self {
        let tensors = || view.tensors.iter().map(|tensor| &tensor.tensor);
        let mut dtypes = BTreeMap::new();
        for tensor in tensors() {
            *dtypes.entry(tensor.dtype().name()).or_default() += 1;
        }
        Self {
            system: view.system.clone(),
            evidence: view.evidence.clone(),
            family: view.family.clone(),
            parameters: tensors().map(|tensor| tensor.shape().elements()).sum(),
            bytes: view.bytes(),
            dtypes,
            files: view.files.iter().map(FileReport::of).collect(),
            tensors: view.tensors.iter().map(TensorReport::of).collect(),
            dropped: view.dropped.iter().map(DroppedReport::of).collect(),
            notes: view.notes.iter().map(NoteReport::of).collect(),
        }
    }
}

impl FileReport {
    fn of(file: &VirtualFile) -> Self {
        Self {
            path: file.path().to_owned(),
            size: file.size(),
        }
    }
}

impl TensorReport {
    fn of(mapped: &MappedTensor) -> Self {
        let tensor = &mapped.tensor;
        let mut stored = Vec::new();
        tensor.each_stored(&mut |array| stored.push(StoredReport::of(array)));
        Self {
            name: mapped.name.clone(),
            dtype: tensor.dtype().name(),
            shape: tensor.shape().dims().to_vec(),
            bytes: tensor.bytes(),
            sources: mapped.sources.iter().map(|name| name.to_string()).collect(),
            operations: tensor.operations(),
            stored,
        }
    }
}

impl StoredReport {
    fn of(array: &Stored) -> Self {
        Self {
            file: array.file().path().display().to_string(),
            offset: array.known_layout().map(|layout| layout.offset),
        }
    }
}

impl DroppedReport {
    fn of(dropped: &Dropped) -> Self {
        Self {
            name: dropped.source.name.to_string(),
            why: dropped.why.clone(),
        }
    }
}

impl NoteReport {
    fn of(note: &Note) -> Self {
        Self {
            is_warning: note.is_warning,
            text: note.text.clone(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let dtypes: Vec<_> = self
            .dtypes
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let (count, bytes) = (self.tensors.len(), size::shown(self.bytes));
        line(f, "system", &format!("{} ({})", self.system, self.evidence))?;
        line(f, "family", &self.family)?;
        line(
            f,
            "tensors",
            &format!("{count}, {} parameters, {bytes}", self.parameters),
        )?;
        line(f, "dtypes", &dtypes.join(", "))?;
        for file in &self.files {
            line(
                f,
                "file",
                &format!("{} ({})", file.path, size::shown(file.size)),
            )?;
        }
        for dropped in &self.dropped {
            line(f, "left out", &format!("{}: {}", dropped.name, dropped.why))?;
        }
        self.notes.iter().try_for_each(|note| {
            let label = if note.is_warning { "warning" } else { "note" };
            line(f, label, &note.text)
        })
    }
}

impl Display for TensorReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "tensor", &self.name)?;
        line(f, "dtype", self.dtype)?;
        line(f, "shape", &format!("{:?}", self.shape))?;
        line(f, "bytes", &self.bytes.to_string())?;
        for source in &self.sources {
            line(f, "source", source)?;
        }
        for operation in &self.operations {
            line(f, "operation", operation)?;
        }
        for stored in &self.stored {
            let offset = stored
                .offset
                .map_or(String::new(), |offset| format!(" at {offset}"));
            line(f, "file", &format!("{}{offset}", stored.file))?;
        }
        Ok(())
    }
}

/// Whatever comes out of a checkpoint stays in its line.
fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<10} {}", one_line(text))
}

//! The report of `inspect` on a view: the fields of its JSON, which docs/inspect.md lists.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::Serialize;

use crate::checkpoint::Entry;
use crate::error::Result;
use crate::mapping::{Dropped, MappedTensor};
use crate::output::{FileRange, VirtualFile, file_ranges};
use crate::read::passthrough_source;
use crate::tensor::{Nest, Part, Stored, Tensor, pieces};
use crate::view::{Note, Tied, View};

#[derive(Debug, Serialize)]
pub struct Report {
    pub system: String,
    pub evidence: String,
    pub family: String,
    pub parameters: u64,
    pub bytes: u64,
    /// Counts of tensors by element type.
    pub dtypes: BTreeMap<&'static str, usize>,
    pub files: Vec<FileReport>,
    pub tensors: Vec<TensorReport>,
    pub tied: Vec<Tied>,
    pub entries: Vec<Entry>,
    pub dropped: Vec<DroppedReport>,
    pub notes: Vec<Note>,
}

#[derive(Debug, Serialize)]
pub struct FileReport {
    pub path: String,
    pub size: u64,
    /// The source file that holds the same bytes.
    pub same_as: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct TensorReport {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub bytes: u64,
    /// The file of the view that holds the tensor, and where in it.
    pub file: Option<String>,
    pub start: Option<u64>,
    /// Names in the checkpoint.
    pub sources: Vec<String>,
    pub operations: Vec<String>,
    /// The computations that its elements go through, innermost first; casts are operations alone.
    pub computed: Vec<ComputedReport>,
    pub stored: Vec<StoredReport>,
}

/// A formula, and the inputs that it calls `x0`, `x1` and so on.
#[derive(Debug, Serialize)]
pub struct ComputedReport {
    pub formula: String,
    pub law: &'static str,
    pub inputs: Vec<InputReport>,
}

#[derive(Debug, Serialize)]
pub struct InputReport {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub operations: Vec<String>,
    pub stored: Vec<StoredReport>,
}

/// An array in a source file.
#[derive(Debug, Serialize)]
pub struct StoredReport {
    pub file: String,
    /// Unknown where finding it costs a read.
    pub offset: Option<u64>,
    /// The bytes that hold the array and tell its offset, where they do.
    pub item: Option<ItemReport>,
}

#[derive(Debug, Serialize)]
pub struct ItemReport {
    pub start: u64,
    pub end: u64,
}

/// A tensor, and which bytes it is made of.
#[derive(Debug, Serialize)]
pub struct TensorDetail {
    #[serde(flatten)]
    pub tensor: TensorReport,
    pub ranges: Vec<RangeReport>,
}

/// `bytes` of those from `start` to `end` of a source file; all of them where there are as many.
#[derive(Debug, Serialize)]
pub struct RangeReport {
    pub file: String,
    pub start: u64,
    pub end: u64,
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct DroppedReport {
    pub name: String,
    pub why: String,
}

impl Report {
    /// # Errors
    /// Those of reading the beginning of a file that may be shown as it is.
    pub fn of(view: &View) -> Result<Self> {
        let file_ranges = file_ranges(&view.files);
        let tensors = || view.tensors.iter().map(|tensor| &tensor.tensor);
        let mut dtypes = BTreeMap::new();
        for tensor in tensors() {
            *dtypes.entry(tensor.dtype().name()).or_default() += 1;
        }
        let report = |mapped| TensorReport::of(mapped, &file_ranges);
        Ok(Self {
            system: view.system.clone(),
            evidence: view.evidence.clone(),
            family: view.family.clone(),
            parameters: tensors().map(|tensor| tensor.shape().elements()).sum(),
            bytes: view.bytes(),
            dtypes,
            files: view
                .files
                .iter()
                .map(FileReport::of)
                .collect::<Result<_>>()?,
            tensors: view.tensors.iter().map(report).collect(),
            tied: view.tied.clone(),
            entries: view.entries.clone(),
            dropped: view.dropped.iter().map(DroppedReport::of).collect(),
            notes: view.notes.clone(),
        })
    }
}

impl FileReport {
    fn of(file: &VirtualFile) -> Result<Self> {
        let same = passthrough_source(file)?;
        Ok(Self {
            path: file.path().to_owned(),
            size: file.size(),
            same_as: same.map(|source| source.path().display().to_string()),
        })
    }
}

impl TensorReport {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operations without their numbers.
    pub fn steps(&self) -> Vec<&str> {
        let word = |operation: &'_ String| operation.find(['(', '[']).unwrap_or(operation.len());
        let steps = self.operations.iter();
        steps.map(|step| &step[..word(step)]).collect()
    }

    /// The steps that the same tensor of every layer goes through: whether it was split among ranks depends on where
    /// their shares begin.
    pub fn own_steps(&self) -> Vec<&str> {
        let mut steps = self.steps();
        steps.retain(|step| *step != "assemble");
        steps
    }

    fn of(mapped: &MappedTensor, file_ranges: &HashMap<String, FileRange<'_>>) -> Self {
        let tensor = &mapped.tensor;
        let place = file_ranges.get(&*mapped.name);
        let mut stored = Vec::new();
        tensor.each_stored(&mut |array| stored.push(StoredReport::of(array)));
        Self {
            name: mapped.name.to_string(),
            dtype: tensor.dtype().name(),
            shape: tensor.shape().dims().to_vec(),
            bytes: tensor.bytes(),
            file: place.map(|place| place.file.to_owned()),
            start: place.map(|place| place.start),
            sources: mapped.sources.iter().map(|name| name.to_string()).collect(),
            operations: tensor.operations(),
            computed: ComputedReport::all(tensor),
            stored,
        }
    }
}

impl ComputedReport {
    fn all(tensor: &Tensor) -> Vec<Self> {
        let mut all = Vec::new();
        tensor.each_computed(&mut |tensor| all.extend(Self::of(tensor)));
        all
    }

    fn of(tensor: &Tensor) -> Option<Self> {
        let (kernel, inputs) = tensor.as_computed()?;
        Some(Self {
            law: kernel.law()?,
            formula: format!("{} {}", kernel.formula(), tensor.dtype()),
            inputs: inputs.iter().enumerate().map(InputReport::of).collect(),
        })
    }
}

impl InputReport {
    fn of((number, tensor): (usize, &Tensor)) -> Self {
        let mut stored = Vec::new();
        tensor.each_stored(&mut |array| stored.push(StoredReport::of(array)));
        Self {
            name: format!("x{number}"),
            dtype: tensor.dtype().name(),
            shape: tensor.shape().dims().to_vec(),
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
            item: array
                .item()
                .map(|Range { start, end }| ItemReport { start, end }),
        }
    }
}

impl TensorDetail {
    /// # Errors
    /// Those of reading where the tensor lies.
    pub fn of(view: &View, mapped: &MappedTensor) -> Result<Self> {
        let mut ranges = Vec::new();
        add_ranges(&mapped.tensor, &mut ranges)?;
        Ok(Self {
            tensor: TensorReport::of(mapped, &file_ranges(&view.files)),
            ranges,
        })
    }
}

/// The ranges of a tensor, and of a computed one those of its inputs, in their order.
fn add_ranges(tensor: &Tensor, ranges: &mut Vec<RangeReport>) -> Result<()> {
    let mut computed = None;
    pieces(tensor, 0..u64::MAX, &mut |piece| {
        match piece {
            Part::Stored(nest) => ranges.push(RangeReport::of(&nest)),
            Part::Computed(part) if computed == Some(part.tensor.identity()) => {}
            Part::Computed(part) => {
                computed = Some(part.tensor.identity());
                let (_, inputs) = part.tensor.as_computed().unzip();
                let mut inputs = inputs.unwrap_or_default().iter();
                inputs.try_for_each(|input| add_ranges(input, ranges))?;
            }
        }
        Ok(())
    })
}

impl RangeReport {
    fn of(nest: &Nest<'_>) -> Self {
        let elements: u64 = nest.loops().iter().map(|each| each.count).product();
        let last: u64 = nest
            .loops()
            .iter()
            .map(|each| (each.count - 1) * each.source)
            .sum();
        Self {
            file: nest.stored.file().path().display().to_string(),
            start: nest.source,
            end: nest.source + (last + 1) * nest.unit(),
            bytes: elements * nest.unit(),
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

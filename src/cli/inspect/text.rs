//! The text output of `inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use super::pattern::pattern;
use super::report::{InputReport, Report, StoredReport, TensorDetail, TensorReport};
use super::tree::{Kind, Node, tree};
use crate::cli::size;
use crate::text::one_line;

/// As many files are named.
const FILES: usize = 8;

/// Longer names push their own line's columns aside alone.
const WIDTH: usize = 60;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "system", &format!("{} ({})", self.system, self.evidence))?;
        line(f, "family", &self.family)?;
        line(f, "tensors", &self.totals())?;
        let files = self.files.iter();
        let files = files.map(|file| format!("{} ({})", file.path, size::shown(file.size)));
        line(f, "files", &listed(files.collect()))?;
        let unchanged = self.unchanged();
        if !unchanged.is_empty() {
            line(f, "unchanged", &listed(unchanged))?;
        }
        line(f, "read from", &self.source_files())?;
        table(f, &tree(&self.tensors))?;
        let remarks = self.remarks();
        let gap = if remarks.is_empty() { "" } else { "\n" };
        write!(f, "{gap}")?;
        remarks
            .iter()
            .try_for_each(|(label, text)| line(f, label, text))
    }
}

impl Report {
    fn totals(&self) -> String {
        let dtypes = self.dtypes.iter();
        let dtypes: Vec<_> = dtypes
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let (parameters, bytes) = (counted(self.parameters), size::shown(self.bytes));
        format!("{}, {parameters} parameters, {bytes}", dtypes.join(", "))
    }

    /// The files that equal a file of the source.
    fn unchanged(&self) -> Vec<String> {
        let files = self.files.iter();
        let files = files.filter(|file| file.same_as.is_some());
        files.map(|file| file.path.clone()).collect()
    }

    /// The folder, if they all lie in one, and the names in it.
    fn source_files(&self) -> String {
        let stored = self.tensors.iter().flat_map(|tensor| &tensor.stored);
        let files: BTreeSet<&Path> = stored.map(|array| Path::new(&array.file)).collect();
        let folders: BTreeSet<_> = files.iter().map(|file| file.parent()).collect();
        match (folders.len(), folders.first()) {
            (1, Some(Some(folder))) => {
                let names = files
                    .iter()
                    .filter_map(|file| file.strip_prefix(folder).ok());
                let names = names.map(|name| name.display().to_string()).collect();
                format!("{} in {}", listed(names), folder.display())
            }
            _ => listed(
                files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect(),
            ),
        }
    }

    /// Tied and omitted tensors, and notes.
    fn remarks(&self) -> Vec<(&str, String)> {
        let tied = self.tied.iter();
        let tied = tied.map(|tied| ("tied", format!("{} is {}", tied.name, tied.to)));
        let dropped = self.dropped().into_iter();
        let dropped =
            dropped.map(|(why, names)| ("left out", format!("{}: {why}", pattern(&names))));
        let notes = self.notes.iter();
        let notes = notes.filter(|note| note.is_warning || !note.text.contains(" is left out: "));
        let notes = notes.map(|note| match note.is_warning {
            true => ("warning", note.text.clone()),
            false => ("note", note.text.clone()),
        });
        let entries = self.entries.iter().map(|entry| match entry.is_shown {
            true => (
                "shown",
                format!("{} ({} tensors)", entry.name, entry.tensors),
            ),
            false => (
                "entry",
                format!("{} ({} tensors)", entry.name, entry.tensors),
            ),
        });
        tied.chain(entries).chain(dropped).chain(notes).collect()
    }

    /// The names that are left out for one reason.
    fn dropped(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for dropped in &self.dropped {
            let names = reasons.entry(&dropped.why).or_default();
            names.push(&dropped.name);
        }
        reasons
    }
}

/// A number of parameters as model cards have it: `70.6 B`. Below a million all digits.
fn counted(number: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M")];
    let value = number as f64;
    // 999,950 thousand are 1.0 B, not 1000.0 M.
    let unit = units.iter().find(|(unit, _)| value >= unit * 0.99995);
    match unit.filter(|_| number >= 1_000_000) {
        Some((unit, letter)) => format!("{:.1} {letter}", value / unit),
        None => number.to_string(),
    }
}

fn listed(names: Vec<String>) -> String {
    match names.len().saturating_sub(FILES) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..FILES].join(", ")),
    }
}

/// The tree as columns: name, type, shape, size, and where it comes from.
fn table(f: &mut Formatter<'_>, nodes: &[Node<'_>]) -> fmt::Result {
    let mut rows = Vec::new();
    nodes.iter().for_each(|node| add_rows(node, 0, &mut rows));
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.filter(|width| *width <= WIDTH).max().unwrap_or(0)
    };
    let [name, dtype, shape, size] = [0, 1, 2, 3].map(width);
    writeln!(f)?;
    for row in &rows {
        let [a, b, c, d, e] = row;
        let text = format!("{a:<name$}  {b:<dtype$}  {c:<shape$}  {d:>size$}  {e}");
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

fn add_rows(node: &Node<'_>, depth: usize, rows: &mut Vec<[String; 5]>) {
    let name = one_line(&format!("{:1$}{2}", "", 2 * depth, node.name));
    let size = size::shown(node.bytes);
    match &node.kind {
        Kind::Tensor { of, sources } => {
            let from = one_line(&origin(of, sources));
            let shape = format!("{:?}", of.shape);
            rows.push([name, of.dtype.to_owned(), shape, size, from]);
        }
        Kind::Module(children) => {
            let alike = match node.count {
                1 => String::new(),
                count => format!("{count} alike"),
            };
            rows.push([name, String::new(), String::new(), size, alike]);
            children
                .iter()
                .for_each(|child| add_rows(child, depth + 1, rows));
        }
    }
}

fn origin(of: &TensorReport, sources: &[&str]) -> String {
    let (names, steps) = (pattern(sources), of.steps().join(", "));
    match steps.is_empty() {
        true => names,
        false => format!("{names}: {steps}"),
    }
}

impl Display for TensorDetail {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tensor = &self.tensor;
        line(f, "tensor", &tensor.name)?;
        line(f, "dtype", tensor.dtype)?;
        line(f, "shape", &format!("{:?}", tensor.shape))?;
        if let (Some(file), Some(start)) = (&tensor.file, tensor.start) {
            let end = start + tensor.bytes;
            line(f, "shown in", &format!("{file} {start}..{end}"))?;
        }
        for source in &tensor.sources {
            line(f, "source", source)?;
        }
        for operation in &tensor.operations {
            line(f, "operation", operation)?;
        }
        for computed in &tensor.computed {
            line(f, "formula", &computed.formula)?;
            line(f, "law", computed.law)?;
            for input in &computed.inputs {
                line(f, "input", &said_of_input(input))?;
            }
        }
        self.ranges.iter().try_for_each(|range| {
            let whole = range.bytes == range.end - range.start;
            let part = match whole {
                true => String::new(),
                false => format!(", {} bytes of them", range.bytes),
            };
            let text = format!("{} {}..{}{part}", range.file, range.start, range.end);
            line(f, "bytes", &text)
        })
    }
}

/// An input of a formula: its name there, type, shape, operations and the files that hold it.
fn said_of_input(input: &InputReport) -> String {
    let InputReport {
        name, dtype, shape, ..
    } = input;
    let operations = match input.operations.is_empty() {
        true => String::new(),
        false => format!(" {}", input.operations.join(", ")),
    };
    let mut arrays: Vec<String> = input.stored.iter().map(said_of_array).collect();
    arrays.dedup();
    format!(
        "{name}: {dtype} {shape:?}{operations} of {}",
        listed(arrays)
    )
}

fn said_of_array(array: &StoredReport) -> String {
    match array.offset {
        Some(offset) => format!("{} from {offset}", array.file),
        None => array.file.clone(),
    }
}

/// Keeps text that comes out of a checkpoint in one line.
fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<10} {}", one_line(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_as_model_cards_do() {
        for (number, expected) in [
            (999_999, "999999"),
            (1_000_000, "1.0 M"),
            (999_949_999, "999.9 M"),
            (999_960_000, "1.0 B"),
            (70_553_706_496, "70.6 B"),
            (1_026_408_232_448, "1.0 T"),
        ] {
            assert_eq!(counted(number), expected);
        }
    }
}

//! Plain copies: bytes of a source that a reply shows as they are.

use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use super::request::Request;
use crate::error::Result;
use crate::source::{SourceFile, Wanted};
use crate::tensor::Nest;

/// `length` bytes at `source` of a file go to `destination` of the reply.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    pub file: &'a Arc<SourceFile>,
    pub source: u64,
    pub destination: usize,
    pub length: usize,
}

impl Copy<'_> {
    pub fn range(&self) -> Range<u64> {
        self.source..self.source + self.length as u64
    }

    /// Returns whether `next` continues this copy in the source and in the reply.
    fn goes_on_with(&self, next: &Copy<'_>) -> bool {
        Arc::ptr_eq(self.file, next.file)
            && self.range().end == next.source
            && self.destination + self.length == next.destination
    }
}

/// The copies that a nest with a contiguous innermost loop stands for.
pub(super) fn expand<'a>(nest: &Nest<'a>, destination: usize, copies: &mut Vec<Copy<'a>>) {
    let unit = nest.unit();
    nest.each_run(&mut |source, offset, count| {
        copies.push(Copy {
            file: nest.stored.file(),
            source: nest.source + source * unit,
            destination: destination + ((nest.destination + offset) * unit) as usize,
            length: (count * unit) as usize,
        });
    });
}

/// Joins copies that continue each other, across tensors too.
pub(super) fn join(copies: &mut Vec<Copy<'_>>) {
    copies.dedup_by(|next, last| {
        let joins = last.goes_on_with(next);
        if joins {
            last.length += next.length;
        }
        joins
    });
}

/// Carries out copies whose destinations do not overlap.
pub(super) fn execute(
    mut copies: Vec<Copy<'_>>,
    request: &Request<'_>,
    mut reply: &mut [u8],
) -> Result<()> {
    copies.sort_by_key(|copy| copy.destination);
    let mut start = 0;
    let wanted = copies.iter().map(|copy| {
        let skip = copy.destination - start;
        let rest = take(&mut reply).get_mut(skip..).unwrap_or_default();
        let (into, rest) = rest.split_at_mut(copy.length.min(rest.len()));
        (reply, start) = (rest, copy.destination + copy.length);
        Wanted {
            file: copy.file,
            offset: copy.source,
            into,
        }
    });
    let mut wanted: Vec<Wanted> = wanted.collect();
    request.gather(&mut wanted)
}

#[cfg(test)]
mod tests {
    use crate::read::Reader;
    use crate::source::SourceFile;
    use crate::tensor::{Dtype, Shape, Tensor, contiguous};

    #[test]
    fn narrow_columns_are_read_through_the_gaps_between_them() {
        let (rows, columns) = (4096, 2000);
        let bytes: Vec<u8> = (0..rows * columns).map(|at| (at % 251) as u8).collect();
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), &bytes).unwrap();
        let source = SourceFile::open(&source.path().canonicalize().unwrap()).unwrap();
        let shape = Shape::new(&[rows, columns]).unwrap();
        let layout = contiguous(0, &shape);
        let whole = Tensor::stored(source, Dtype::U8, shape, layout).unwrap();
        let mut read = vec![0; 2 * rows as usize];
        let two = whole.narrow(1, 7, 2).unwrap();
        Reader::default()
            .read_tensor_at(&two, 0, &mut read)
            .unwrap();
        let rows = bytes.chunks(columns as usize);
        assert!(read.iter().eq(rows.flat_map(|row| &row[7..9])));
    }
}

//! Where the bytes of a file come from: every copy that makes it, in the order of its bytes.

use std::sync::Arc;

use crate::error::Result;
use crate::output::{Piece, Pieces, Segment, VirtualFile};
use crate::source::SourceFile;
use crate::tensor::{Dtype, Nest, Part, Tensor, pieces};

/// `length` bytes of a source that lie in a file unchanged.
#[derive(Debug, Clone)]
pub struct Run {
    pub source: Arc<SourceFile>,
    pub from: u64,
    pub to: u64,
    pub length: u64,
}

/// Calls `visit` for each copy out of a source file, with the offset of its piece of the file and the type that it becomes.
fn each_nest<'a>(
    file: &'a VirtualFile,
    visit: &mut dyn FnMut(u64, &Tensor, Nest<'a>),
) -> Result<()> {
    file.each_piece(0, file.size(), &mut |start, piece| match piece {
        Piece::Tensor(tensor, range) => {
            let units = range.start / tensor.unit()..range.end / tensor.unit();
            pieces(tensor, units, &mut |part| {
                if let Part::Stored(nest) = part {
                    visit(start, tensor, nest);
                }
                Ok(())
            })
        }
        Piece::Inline(_) | Piece::Source(..) => Ok(()),
    })
}

/// The contiguous runs of a file, as long as they get.
pub fn of(file: &VirtualFile) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for (start, segment) in file.overlapping(0, file.size()) {
        if let Segment::Source(source) = segment {
            runs.push(Run {
                source: source.clone(),
                from: 0,
                to: start,
                length: source.size(),
            });
        }
    }
    each_nest(file, &mut |start, tensor, nest| {
        runs.extend(run(start, tensor.dtype(), &nest))
    })?;
    runs.sort_by_key(|run| run.to);
    runs.dedup_by(|next, last| join(last, next));
    Ok(runs)
}

fn run(start: u64, dtype: Dtype, nest: &Nest<'_>) -> Option<Run> {
    let count = match nest.loops() {
        [] => 1,
        [only] if nest.is_contiguous_inside() => only.count,
        _ => return None,
    };
    (nest.dtype == dtype).then(|| Run {
        source: nest.stored.file().clone(),
        from: nest.source,
        to: start + nest.destination * nest.unit(),
        length: count * nest.unit(),
    })
}

/// Makes `next` a part of `last` where it continues it on both sides.
fn join(last: &mut Run, next: &Run) -> bool {
    let joins = Arc::ptr_eq(&last.source, &next.source)
        && last.from + last.length == next.from
        && last.to + last.length == next.to;
    if joins {
        last.length += next.length;
    }
    joins
}

//! The parts in which files are written: each by one thread, each remembered when it is safe on disk.

use crate::output::VirtualFile;

/// Bytes of a piece: what a kill costs at most, for each thread.
const PIECE: u64 = 32 << 20;

/// Bytes `start .. end` of the file of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    pub file: usize,
    pub start: u64,
    pub end: u64,
}

pub type Piece = Range;

impl Range {
    pub fn length(&self) -> u64 {
        self.end - self.start
    }
}

/// All of `files` but the ranges `shared`, which come in their order, cut into pieces.
pub fn except(files: &[VirtualFile], shared: impl Iterator<Item = Range>) -> Vec<Piece> {
    let mut shared = shared.peekable();
    let mut pieces = Vec::new();
    for (file, size) in files.iter().map(VirtualFile::size).enumerate() {
        let mut start = 0;
        while let Some(range) = shared.next_if(|range| range.file == file) {
            cut(file, start, range.start, &mut pieces);
            start = range.end;
        }
        cut(file, start, size, &mut pieces);
    }
    pieces
}

fn cut(file: usize, start: u64, end: u64, pieces: &mut Vec<Piece>) {
    let starts = (start..end).step_by(PIECE as usize);
    pieces.extend(starts.map(|start| Range {
        file,
        start,
        end: end.min(start + PIECE),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::inline_file;

    #[test]
    fn pieces_and_shared_ranges_cover_everything_once() {
        let file = |name, size| inline_file(name, vec![0; size], None);
        let files = [file("a", 10), file("b", 0), file("c", (PIECE + 5) as usize)];
        let range = |file, start, end| Range { file, start, end };
        let all = [
            range(0, 0, 10),
            range(2, 0, PIECE),
            range(2, PIECE, PIECE + 5),
        ];
        assert_eq!(except(&files, [].into_iter()), all);
        let shared = [range(0, 2, 4), range(0, 4, 8), range(2, 0, PIECE)];
        let rest = [range(0, 0, 2), range(0, 8, 10), range(2, PIECE, PIECE + 5)];
        assert_eq!(except(&files, shared.into_iter()), rest);
    }
}

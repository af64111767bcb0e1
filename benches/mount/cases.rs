//! What is compared with what.

use std::path::Path;

use super::Options;
use super::data::Source;
use super::measure::{self, Pass};
use super::memory;
use super::mounted::Mounted;
use super::reading::{self, Range, Reader};

/// What lies in the page cache before a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    Cold,
    /// The source does, nothing of the mount.
    SourceHot,
    /// Everything that the mount showed before.
    MountHot,
}

/// One side of a comparison: a source, read plainly or through a mount, whole or some of its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    pub source: Source,
    pub mounted: bool,
    pub flags: &'static [&'static str],
    /// Parts of the tensors' names; none for whole files.
    pub tensors: &'static [&'static str],
}

pub struct Case {
    label: &'static str,
    caches: Caches,
    reader: Reader,
    /// What the ratio is against.
    base: Side,
    side: Side,
}

/// The medians of a case.
pub struct Row {
    pub name: String,
    pub base: Pass,
    pub side: Pass,
}

const fn plain(source: Source) -> Side {
    Side {
        source,
        mounted: false,
        flags: &[],
        tensors: &[],
    }
}

const fn through(source: Source, tensors: &'static [&'static str]) -> Side {
    Side {
        source,
        mounted: true,
        flags: &[],
        tensors,
    }
}

pub fn all() -> Vec<Case> {
    use Caches::*;
    use Reader::*;
    let whole = |label, caches, reader| Case {
        label,
        caches,
        reader,
        base: plain(Source::Renamed),
        side: through(Source::Renamed, &[]),
    };
    let mut cases = vec![
        whole("renamed", Cold, Sequential),
        whole("renamed", Cold, Mapped),
        whole("renamed", MountHot, Sequential),
        whole("renamed", SourceHot, Sequential),
        whole("renamed", SourceHot, Two),
        whole("renamed", Cold, Two),
        whole("renamed", SourceHot, Direct),
        whole("renamed", Cold, MappedByFour),
        whole("renamed", SourceHot, Random(4 << 10)),
        whole("renamed", SourceHot, Random(64 << 10)),
        whole("renamed", MountHot, Random(4 << 10)),
    ];
    for caches in [Cold, SourceHot] {
        cases.push(Case {
            label: "untouched (passthrough)",
            caches,
            reader: Sequential,
            base: plain(Source::Untouched),
            side: through(Source::Untouched, &[]),
        });
        // Beside tensors of about the same sizes and places in a renamed source.
        let (rope, rows, columns) = (
            &["q_proj", "k_proj"],
            &["q_proj", "up_proj"],
            &["o_proj", "down_proj"],
        );
        let kinds: [(_, _, &[&str], &[&str]); 5] = [
            ("rope-permuted", Source::Meta, rope, rope),
            ("dim-0 / FSDP shards", Source::Sharded, rows, rows),
            ("dim-1 shards", Source::Sharded, columns, columns),
            (
                "expert-unstacked",
                Source::Experts,
                &[".experts."],
                &["mlp"],
            ),
            ("transposed", Source::Transposed, &[".w2."], &["down_proj"]),
        ];
        for (label, source, tensors, like) in kinds {
            cases.push(Case {
                label,
                caches,
                reader: Sequential,
                base: through(Source::Renamed, like),
                side: through(source, tensors),
            });
        }
        cases.push(Case {
            label: "cast f32 to bf16, per byte of bf16",
            caches,
            reader: Sequential,
            base: through(Source::RenamedF32, &[]),
            side: Side {
                flags: &["--dtype", "bf16"],
                ..through(Source::RenamedF32, &[])
            },
        });
    }
    cases
}

impl Case {
    pub fn name(&self) -> String {
        format!("{}, {:?}, {:?}", self.label, self.caches, self.reader)
    }

    /// Both sides in turn, several times.
    pub fn run(&self, options: &Options, dir: &Path) -> Row {
        let (mut base, mut side) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            base.push(self.pass(&self.base, options, dir));
            side.push(self.pass(&self.side, options, dir));
        }
        Row {
            name: self.name(),
            base: measure::medians(&base),
            side: measure::medians(&side),
        }
    }

    fn pass(&self, side: &Side, options: &Options, dir: &Path) -> Pass {
        let source = side.source.write(dir, options.size);
        match self.caches {
            Caches::Cold => {
                reading::forget(&source);
                if options.full_memory {
                    memory::fill(dir);
                }
            }
            Caches::SourceHot | Caches::MountHot => {
                Reader::Sequential.read(&reading::shards(&source));
            }
        }
        if !side.mounted {
            return measure::plain(self.reader, &reading::shards(&source));
        }
        let mount = Mounted::start(&source, side.flags);
        let ranges = ranges(&mount.point, side.tensors);
        if self.caches == Caches::MountHot {
            Reader::Sequential.read(&ranges);
        }
        measure::mounted(self.reader, &ranges, &mount, &source)
    }
}

fn ranges(folder: &Path, tensors: &[&str]) -> Vec<Range> {
    match tensors {
        [] => reading::shards(folder),
        parts => reading::tensors(folder, parts),
    }
}

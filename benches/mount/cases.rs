//! The cases: pairs of sides that are compared.

use std::path::Path;

use super::Options;
use super::data::Source;
use super::measure::{self, Pass};
use super::memory;
use super::mounted::{Mounted, Program};
use super::reading::{self, Range, Reader};
use super::slow::SlowDisk;

/// The state of the page cache before a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    Cold,
    /// The source does, nothing of the mount.
    SourceHot,
    /// Everything that the mount showed before.
    MountHot,
    /// The same, read from there once more: the kernel has moved its pages, one by one, to those in use.
    MountInUse,
}

impl Caches {
    /// Reads of the side before the pass.
    fn reads(self) -> usize {
        match self {
            Self::Cold | Self::SourceHot => 0,
            Self::MountHot => 1,
            Self::MountInUse => 2,
        }
    }
}

/// One side of a comparison: a source, read plainly or through a mount, whole or some of its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    pub source: Source,
    pub reader: Reader,
    pub mounted: bool,
    pub flags: &'static [&'static str],
    /// Parts of the tensors' names; none for whole files.
    pub tensors: &'static [&'static str],
    /// Whether the source lies on a disk that takes its time.
    pub slow: bool,
    /// Whether the page cache holds the source in single pages, as it holds what FUSE shows.
    pub paged: bool,
}

pub struct Case {
    label: &'static str,
    caches: Caches,
    /// The side that the ratio refers to.
    base: Side,
    side: Side,
}

/// The medians of a case.
pub struct Row {
    pub name: String,
    pub base: Pass,
    pub side: Pass,
}

const fn plain(source: Source, reader: Reader) -> Side {
    Side {
        source,
        reader,
        mounted: false,
        flags: &[],
        tensors: &[],
        slow: false,
        paged: false,
    }
}

const fn through(source: Source, reader: Reader) -> Side {
    Side {
        mounted: true,
        ..plain(source, reader)
    }
}

pub fn all() -> Vec<Case> {
    let mut cases = whole_files();
    for caches in [Caches::Cold, Caches::SourceHot] {
        cases.extend(operations(caches));
    }
    cases
}

/// Renamed tensors and files that stay as they are, beside the plain files.
fn whole_files() -> Vec<Case> {
    use Caches::*;
    use Reader::*;
    let case = |label, caches, base, side| Case {
        label,
        caches,
        base,
        side,
    };
    let renamed = |caches, reader| {
        let (base, side) = (
            plain(Source::Renamed, reader),
            through(Source::Renamed, reader),
        );
        case("renamed", caches, base, side)
    };
    let mounted = |caches, base, side| {
        let (base, side) = (
            through(Source::Renamed, base),
            through(Source::Renamed, side),
        );
        case("renamed, against one reader", caches, base, side)
    };
    let direct = case(
        "renamed, O_DIRECT against read()",
        SourceHot,
        plain(Source::Renamed, Sequential),
        through(Source::Renamed, Direct),
    );
    let slow = |side| Side {
        tensors: &["layers.0.self_attn.q", "layers.0.self_attn.k"],
        slow: true,
        ..side
    };
    let paged = case(
        "renamed, against a plain file that is cached in single pages",
        MountHot,
        Side {
            paged: true,
            ..plain(Source::Renamed, Sequential)
        },
        through(Source::Renamed, Sequential),
    );
    let untouched = |caches| {
        let side = Side {
            flags: &["--passthrough"],
            ..through(Source::Untouched, Sequential)
        };
        case(
            "passthrough",
            caches,
            plain(Source::Untouched, Sequential),
            side,
        )
    };
    vec![
        renamed(Cold, Sequential),
        renamed(Cold, Mapped),
        renamed(MountHot, Sequential),
        renamed(MountInUse, Sequential),
        paged,
        renamed(MountHot, Mapped),
        renamed(SourceHot, Sequential),
        mounted(SourceHot, Sequential, Two),
        mounted(SourceHot, Sequential, Halves),
        direct,
        untouched(Cold),
        untouched(SourceHot),
        mounted(Cold, Mapped, MappedByFour),
        renamed(Cold, Two),
        renamed(Cold, TwoDirect),
        renamed(SourceHot, Random(4 << 10)),
        renamed(SourceHot, Random(64 << 10)),
        renamed(MountHot, Random(4 << 10)),
        case(
            "renamed, each read of the source takes 20 ms",
            Cold,
            slow(plain(Source::Renamed, Sequential)),
            slow(through(Source::Renamed, Sequential)),
        ),
    ]
}

/// Beside tensors of about the same sizes and places in a renamed source.
fn operations(caches: Caches) -> Vec<Case> {
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
    let some = |source, tensors| Side {
        tensors,
        ..through(source, Reader::Sequential)
    };
    let mut cases: Vec<Case> = kinds
        .into_iter()
        .map(|(label, source, tensors, like)| Case {
            label,
            caches,
            base: some(Source::Renamed, like),
            side: some(source, tensors),
        })
        .collect();
    let cast = |source, tensors| Side {
        flags: &["--dtype", "bf16"],
        ..some(source, tensors)
    };
    let all = &[];
    let (whole, renamed) = (some(Source::RenamedF32, all), |tensors| {
        cast(Source::RenamedF32, tensors)
    });
    let casts = [
        ("cast f32 to bf16, per byte of bf16", whole, renamed(all)),
        (
            "cast, rope-permuted against renamed",
            renamed(rope),
            cast(Source::MetaF32, rope),
        ),
        (
            "cast, dim-0 / FSDP shards against renamed",
            renamed(rows),
            cast(Source::ShardedF32, rows),
        ),
        (
            "cast, dim-1 shards against renamed",
            renamed(columns),
            cast(Source::ShardedF32, columns),
        ),
    ];
    cases.extend(casts.map(|(label, base, side)| Case {
        label,
        caches,
        base,
        side,
    }));
    cases
}

impl Case {
    pub fn name(&self) -> String {
        format!("{}, {:?}, {:?}", self.label, self.caches, self.side.reader)
    }

    /// Both sides in turn, several times.
    pub fn run(&self, options: &Options, dir: &Path) -> Row {
        let (mut base, mut side) = (Vec::new(), Vec::new());
        let program = &options.program;
        let (other, rival) = match &options.rival {
            Some(rival) => (&self.side, rival),
            None => (&self.base, program),
        };
        for _ in 0..options.rounds {
            base.push(self.pass(other, rival, options, dir));
            side.push(self.pass(&self.side, program, options, dir));
        }
        Row {
            name: self.name(),
            base: measure::medians(&base),
            side: measure::medians(&side),
        }
    }

    /// Whether there is a mounted side, which is all that two programs differ in.
    pub fn can_run(&self, options: &Options) -> bool {
        options.rival.is_none() || self.side.mounted
    }

    fn pass(&self, side: &Side, program: &Program, options: &Options, dir: &Path) -> Pass {
        let source = side.source.write(dir, options.size);
        match self.caches {
            Caches::Cold => {
                reading::forget(&source);
                if options.full_memory {
                    memory::fill(dir);
                }
            }
            _ if side.paged => reading::page_by_page(&source),
            hot => {
                for _ in 0..hot.reads().max(1) {
                    Reader::Sequential.read(&reading::shards(&source));
                }
            }
        }
        let slow = side.slow.then(|| SlowDisk::over(&source));
        let source = slow.as_ref().map_or(source, |disk| disk.path().to_owned());
        if !side.mounted {
            return measure::plain(side.reader, &ranges(&source, side.tensors));
        }
        let mount = Mounted::start(program, &source, side.flags);
        let ranges = ranges(&mount.point, side.tensors);
        for _ in 0..self.caches.reads() {
            Reader::Sequential.read(&ranges);
        }
        measure::mounted(side.reader, &ranges, &mount, &source)
    }
}

fn ranges(folder: &Path, tensors: &[&str]) -> Vec<Range> {
    match tensors {
        [] => reading::shards(folder),
        parts => reading::tensors(folder, parts),
    }
}

//! Many cases of one parser, held against the law.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ckptfs::read::read_at;
use ckptfs::view::View;
use tempfile::TempDir;

use super::base::{Base, Tensors, tensors};
use super::bounds::{LARGEST, largest_allocation, watch};
use super::damage::{Random, damaged, places};

/// The outputs that are right for a damaged checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// The reference alone.
    Reference,
    /// The tensors that the safetensors crate reads from the damaged file, under the names and shapes of the reference.
    AsSafetensorsReads,
    /// Elements of weights, under the names and shapes of the reference.
    Weights,
    /// Elements of weights.
    Elements,
}

/// Counts of the outcomes of all cases.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    same: usize,
    /// Shown as another checkpoint, which the damaged metadata describes.
    other: usize,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A folder in memory, where there is one.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.exists() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .unwrap()
}

/// Where a run keeps the number of its case, for the dog to see.
fn watched(what: &str, first: u64) -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(first));
    let (what, seen) = (what.to_owned(), Arc::downgrade(&current));
    thread::spawn(move || watch(&what, &seen));
    current
}

pub fn fuzz(base: &Base, law: Law) {
    let seed = setting("CKPTFS_FUZZ_SEED", 1);
    let (first, count) = (
        setting("CKPTFS_FUZZ_FROM", 0),
        setting("CKPTFS_FUZZ_CASES", 400),
    );
    let what = format!("{}/{}", base.name, base.target);
    let folder = scratch();
    base.write(folder.path());
    let undamaged = shown(base, folder.path()).unwrap();
    assert!(undamaged == base.reference, "{what} undamaged");
    let whole = &base.files[&base.target];
    let places = places(whole.len(), &base.weights);
    let (mut tally, start, current) = (Tally::default(), Instant::now(), watched(&what, first));
    for case in first..first + count {
        current.store(case, Ordering::Relaxed);
        let bytes = damaged(whole, &places, &mut Random::new(seed << 32 | case));
        let check = || check(base, law, folder.path(), &bytes, &mut tally);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(check)) {
            eprintln!(
                "{what}: CKPTFS_FUZZ_SEED={seed} CKPTFS_FUZZ_FROM={case} CKPTFS_FUZZ_CASES=1 repeats it"
            );
            resume_unwind(panic);
        }
    }
    let largest = largest_allocation();
    assert!(largest < LARGEST, "{what}: {largest} bytes at once");
    let time = start.elapsed();
    println!("{what}: {count} cases of seed {seed} in {time:.0?}: {tally:?}");
}

fn check(base: &Base, law: Law, folder: &Path, bytes: &[u8], tally: &mut Tally) {
    fs::write(folder.join(&base.target), bytes).unwrap();
    match shown(base, folder) {
        Err(line) => {
            assert!(line.len() < 100_000, "{} bytes of error", line.len());
            tally.refused += 1;
        }
        Ok(tensors) if tensors == base.reference => tally.same += 1,
        Ok(other) => {
            tally.other += 1;
            if law != Law::Elements {
                same_names_and_shapes(&other, &base.reference);
            }
            match law {
                Law::Reference => panic!("shows {}", difference(&other, &base.reference)),
                Law::AsSafetensorsReads => assert!(other == tensors(bytes)),
                Law::Weights | Law::Elements => weights_alone(&other, &base.reference),
            }
        }
    }
}

/// All that the view shows, through the format's own reader; or why there is no view or no byte.
fn shown(base: &Base, folder: &Path) -> Result<Tensors, String> {
    let view = base.open(folder).map_err(|error| error.to_string())?;
    let mut all = Tensors::new();
    for bytes in contents(&view)? {
        all.extend(tensors(&bytes));
    }
    Ok(all)
}

fn contents(view: &View) -> Result<Vec<Vec<u8>>, String> {
    let weights = view
        .files
        .iter()
        .filter(|file| file.path().ends_with(".safetensors"));
    let read = |file: &ckptfs::output::VirtualFile| {
        let mut bytes = vec![0; file.size() as usize];
        read_at(file, 0, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    };
    weights.map(read).collect()
}

fn same_names_and_shapes(tensors: &Tensors, reference: &Tensors) {
    let shapes = |tensors: &Tensors| -> Vec<_> {
        tensors
            .iter()
            .map(|(name, parts)| (name.clone(), parts.1.clone()))
            .collect()
    };
    assert_eq!(shapes(tensors), shapes(reference));
}

fn difference(tensors: &Tensors, reference: &Tensors) -> String {
    let differs = |(name, tensor): &(&String, &_)| reference.get(*name) != Some(*tensor);
    tensors
        .iter()
        .find(differs)
        .map_or("less".to_owned(), |(name, parts)| {
            format!("{name} as {:?} {:?}", parts.0, parts.1)
        })
}

/// Every element shown is one of the reference's, in whatever tensor: none reaches into a header, a name or a pickle.
fn weights_alone(tensors: &Tensors, reference: &Tensors) {
    let sizes = reference
        .values()
        .map(|(_, dims, bytes)| bytes.len() / dims.iter().product::<usize>());
    let unit = sizes.min().unwrap();
    let known: HashSet<&[u8]> = reference
        .values()
        .flat_map(|(_, _, bytes)| bytes.chunks(unit))
        .collect();
    for (name, (_, _, bytes)) in tensors {
        assert!(
            bytes.chunks(unit).all(|element| known.contains(element)),
            "{name} shows what is no weight"
        );
    }
}

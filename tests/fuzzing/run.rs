//! Many cases of one parser, held against the law.

use std::collections::HashSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ckptfs::read::read_at;
use ckptfs::view::View;

use super::base::{Base, Tensors, tensors};
use super::bounds::{LARGEST, largest_allocation, watch};
use super::damage::{Random, damaged, places};

/// What may be shown of a damaged checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// The reference alone.
    Reference,
    /// What the safetensors crate reads from the damaged file, under the names and shapes of the reference.
    AsSafetensorsReads,
    /// Elements of weights, under the names and shapes of the reference.
    Weights,
    /// Elements of weights.
    Elements,
}

/// How cases ended.
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

pub fn fuzz(base: &Base, law: Law) {
    let (cases, seed) = (
        setting("CKPTFS_FUZZ_CASES", 400),
        setting("CKPTFS_FUZZ_SEED", 1),
    );
    let first = setting("CKPTFS_FUZZ_FROM", 0);
    let what = format!("{}/{}", base.name, base.target);
    let folder = tempfile::tempdir_in(if Path::new("/dev/shm").exists() {
        "/dev/shm"
    } else {
        "/tmp"
    })
    .unwrap();
    base.write(folder.path());
    assert!(
        shown(base, folder.path()).unwrap() == base.reference,
        "{what} undamaged"
    );
    let (mut tally, start) = (Tally::default(), Instant::now());
    let whole = &base.files[&base.target];
    let places = places(whole.len(), &base.weights);
    let current = Arc::new(AtomicU64::new(first));
    let (name, watched) = (what.clone(), Arc::downgrade(&current));
    thread::spawn(move || watch(&name, &watched));
    for case in first..first + cases {
        current.store(case, Ordering::Relaxed);
        let bytes = damaged(whole, &places, &mut Random::new(seed << 32 | case));
        let outcome = catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(base, law, folder.path(), &bytes, &mut tally)
        }));
        if let Err(panic) = outcome {
            eprintln!(
                "{what}: case {case} of seed {seed}; CKPTFS_FUZZ_FROM={case} CKPTFS_FUZZ_CASES=1 repeats it"
            );
            std::panic::resume_unwind(panic);
        }
    }
    assert!(
        largest_allocation() < LARGEST,
        "{what}: {} bytes at once",
        largest_allocation()
    );
    println!(
        "{what}: {cases} cases of seed {seed} in {:.0?}: {tally:?}",
        start.elapsed()
    );
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
    let read = |file: &ckptfs::repo::VirtualFile| {
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

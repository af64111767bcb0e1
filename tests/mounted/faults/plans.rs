//! Arbitrary plans over a failing disk, through the library and through a mount: exactly the bytes, or an error.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use ckptfs::output::{Segment, VirtualFile};
use ckptfs::read::read_at;
use ckptfs::tensor::Dtype;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};

use super::disk::{Disk, Fault};
use super::reads::fault;
use crate::common::mounts::*;
use crate::common::naive::encode;
use crate::common::naive::program::{Step, apply, step, stored};
use crate::need_fuse;

/// Elements of the disk's file, each its own number.
const ELEMENTS: u32 = 20_000;

/// A range to read, and what the disk does meanwhile, where, and how often.
type Attempt = (Fault, u64, u8, (u64, u64));

fn attempt() -> impl Strategy<Value = Attempt> {
    let place = 0..u64::from(4 * ELEMENTS);
    (fault(), place, 1..4_u8, (any::<u64>(), any::<u64>()))
}

fn numbered() -> Disk {
    let numbers = (0..ELEMENTS).flat_map(|number| encode(number as f32, Dtype::F32));
    Disk::of(numbers.collect())
}

/// The random plan between a header and the whole source, and the bytes that it has.
fn file(disk: &Disk, dims: &[u64], order: u64, steps: &[Step]) -> (VirtualFile, Vec<u8>) {
    let source = disk.open();
    let pair = stored(source.clone(), dims, order, Dtype::F32);
    let pair = steps.iter().fold(pair, apply);
    let whole = (0..ELEMENTS).flat_map(|number| encode(number as f32, Dtype::F32));
    let expected = [b"header".to_vec(), pair.bytes(), whole.collect()].concat();
    let segments = vec![
        Segment::Inline((*b"header").into()),
        Segment::Tensor(pair.lazy),
        Segment::Source(source),
    ];
    (VirtualFile::new("weights", PUBLIC, segments), expected)
}

/// Reads a range under a fault; `read` gives the errno of its error.
fn check(
    disk: &Disk,
    expected: &[u8],
    (fault, place, times, (start, length)): Attempt,
    read: impl FnOnce(&mut [u8], u64) -> Result<(), Option<i32>>,
) -> TestCaseResult {
    let start = start as usize % (expected.len() + 1);
    let end = expected.len().min(start + length as usize % (64 << 10));
    let mut buffer = vec![0; end - start];
    disk.switch.set(fault, place, times);
    let result = read(&mut buffer, start as u64);
    disk.switch.set(Fault::None, 0, 0);
    match (fault, result) {
        (_, Ok(())) => prop_assert!(buffer == expected[start..end]),
        (Fault::Errno(libc::ENOMEM), Err(errno)) => prop_assert_eq!(errno, Some(libc::ENOMEM)),
        (Fault::Errno(_), Err(errno)) => prop_assert_eq!(errno, Some(libc::EIO)),
        (_, Err(errno)) => prop_assert!(false, "{:?}: errno {:?}", fault, errno),
    }
    Ok(())
}

#[test]
fn any_plan_over_any_fault_is_the_bytes_or_an_error() {
    need_fuse!();
    let disk = numbered();
    let config = ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let dims = prop::collection::vec(1u64..24, 0..4);
    let steps = prop::collection::vec(step(), 0..6);
    let attempts = prop::collection::vec(attempt(), 1..8);
    let case = (dims, any::<u64>(), steps, attempts);
    let law = |(dims, order, steps, attempts): (Vec<u64>, u64, Vec<Step>, Vec<Attempt>)| {
        let (file, expected) = file(&disk, &dims, order, &steps);
        for attempt in &attempts {
            let read = |buffer: &mut [u8], offset| {
                read_at(&file, offset, buffer).map_err(|error| Some(error.errno()))
            };
            check(&disk, &expected, *attempt, read)?;
        }
        let view = View::of(vec![file]);
        let mut options = File::options();
        let options = options.read(true).custom_flags(libc::O_DIRECT);
        let mounted = options.open(view.path("weights")).unwrap();
        for attempt in attempts {
            let read = |buffer: &mut [u8], offset| {
                let result = mounted.read_exact_at(buffer, offset);
                result.map_err(|error| error.raw_os_error())
            };
            check(&disk, &expected, attempt, read)?;
        }
        Ok(())
    };
    TestRunner::new(config).run(&case, law).unwrap();
}

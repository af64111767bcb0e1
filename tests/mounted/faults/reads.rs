//! `read_at` over a failing disk: exactly the bytes, or an error.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ckptfs::output::{Attributes, Segment, VirtualFile};
use ckptfs::read::read_at;
use ckptfs::source::SourceFile;
use ckptfs::tensor::{Dtype, Shape, Strides, Tensor};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::disk::{Disk, Fault};
use crate::common::mounts::*;
use crate::common::programs::within;
use crate::need_fuse;

const SIZE: usize = 300_000;

/// A disk, a file that shows its bytes in several ways, and what that file must show.
struct Stand {
    disk: Disk,
    file: VirtualFile,
    expected: Vec<u8>,
}

impl Stand {
    fn new() -> Self {
        let bytes = noise(SIZE, 11);
        let disk = Disk::of(bytes.clone());
        let source = disk.open();
        let (turned, transposed) = transposed(&source, &bytes);
        let segments = vec![
            Segment::Inline((*b"header").into()),
            Segment::Source(source.clone()),
            Segment::Tensor(turned),
            Segment::Inline((*b"between").into()),
            Segment::Source(source),
        ];
        let expected = [b"header", &*bytes, &transposed, b"between", &bytes].concat();
        let file = VirtualFile::new("weights", PUBLIC, segments);
        Self {
            disk,
            file,
            expected,
        }
    }

    /// Reads `length` bytes from `offset` on while the disk does `fault`.
    fn check(
        &self,
        fault: Fault,
        place: u64,
        times: u8,
        (offset, length): (u64, u64),
    ) -> Result<(), TestCaseError> {
        let offset = offset.min(self.file.size());
        let end = self.file.size().min(offset + length);
        let mut buffer = vec![0; (end - offset) as usize];
        self.disk.switch.set(fault, place, times);
        let result = read_at(&self.file, offset, &mut buffer);
        self.disk.switch.set(Fault::None, 0, 0);
        match (fault, result) {
            (_, Ok(())) => prop_assert!(buffer == self.expected[offset as usize..end as usize]),
            (Fault::Errno(errno), Err(error)) => {
                let expected = if errno == libc::ENOMEM {
                    libc::ENOMEM
                } else {
                    libc::EIO
                };
                prop_assert_eq!(error.errno(), expected);
                prop_assert!(error.to_string().contains("weights"));
            }
            (_, Err(error)) => prop_assert!(false, "{fault:?}: {error}"),
        }
        Ok(())
    }
}

/// 200 by 300 elements of two bytes from byte 1000 on, columns first; and the same the naive way.
fn transposed(source: &std::sync::Arc<SourceFile>, bytes: &[u8]) -> (Tensor, Vec<u8>) {
    let layout = Strides {
        offset: 1000,
        strides: [300, 1].into(),
    };
    let tensor = Tensor::stored(
        source.clone(),
        Dtype::BF16,
        Shape::new(&[200, 300]).unwrap(),
        layout,
    )
    .unwrap();
    let naive = (0..300).flat_map(|column| {
        (0..200).flat_map(move |row| {
            let at = 1000 + 2 * (300 * row + column);
            [bytes[at], bytes[at + 1]]
        })
    });
    (tensor.permute(&[1, 0]).unwrap(), naive.collect())
}

pub fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Errno(libc::EIO)),
        Just(Fault::Errno(libc::ESTALE)),
        Just(Fault::Errno(libc::ENOMEM)),
        Just(Fault::Interrupted),
        Just(Fault::Short),
        (1..5_u64).prop_map(|milliseconds| Fault::Delay(Duration::from_millis(milliseconds))),
    ]
}

#[test]
fn any_range_over_any_fault_is_the_bytes_or_an_error() {
    need_fuse!();
    let stand = Stand::new();
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let range = (0..700_000_u64, 0..200_000_u64);
    let case = (fault(), 0..SIZE as u64, 1..4_u8, range);
    let check = |(fault, place, times, range)| stand.check(fault, place, times, range);
    TestRunner::new(config).run(&case, check).unwrap();
}

/// A view over a disk of its own.
fn mounted() -> (View, Disk, Vec<u8>) {
    let bytes = noise(SIZE, 12);
    let disk = Disk::of(bytes.clone());
    let source = disk.open();
    let attributes = Attributes::of([&*source]).unwrap();
    let bad = VirtualFile::new("bad", attributes, vec![Segment::Source(source)]);
    (View::of(vec![bad, inline("good", &[b"good"])]), disk, bytes)
}

#[test]
fn a_mount_over_a_failing_disk_answers_and_recovers() {
    need_fuse!();
    let (view, disk, bytes) = mounted();
    for errno in [libc::EIO, libc::ESTALE, libc::ETIMEDOUT, libc::ENXIO] {
        disk.switch.set(Fault::Errno(errno), 150_000, u8::MAX);
        let error = fs::read(view.path("bad")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "errno {errno}");
        let mut front = [0; 4096];
        File::open(view.path("bad"))
            .unwrap()
            .read_exact_at(&mut front, 0)
            .unwrap();
        assert!(front == bytes[..4096]);
        assert_eq!(fs::read(view.path("good")).unwrap(), b"good");
    }
    disk.switch.set(Fault::None, 0, 0);
    assert!(fs::read(view.path("bad")).unwrap() == bytes);
    view.unmount().unwrap();
}

#[test]
fn short_and_interrupted_reads_are_read_on() {
    need_fuse!();
    let (view, disk, bytes) = mounted();
    for fault in [Fault::Short, Fault::Interrupted] {
        disk.switch.set(fault, 10_000, 1);
        let mut part = [0; 8192];
        File::open(view.path("bad"))
            .unwrap()
            .read_exact_at(&mut part, 8192)
            .unwrap();
        assert!(part == bytes[8192..16_384], "{fault:?}");
    }
    assert!(fs::read(view.path("bad")).unwrap() == bytes);
}

#[test]
fn a_slow_disk_holds_up_no_other_reader() {
    need_fuse!();
    let (view, disk, bytes) = mounted();
    disk.switch.set(Fault::Held, 150_000, 1);
    let path = view.path("bad");
    let slow = std::thread::spawn(move || fs::read(path).unwrap());
    within(|| disk.switch.is_spent().then_some(()));
    assert_eq!(fs::read(view.path("good")).unwrap(), b"good");
    assert!(!slow.is_finished());
    disk.switch.release();
    assert!(slow.join().unwrap() == bytes);
}

#[test]
fn a_write_that_the_kernel_was_not_told_of_is_seen() {
    need_fuse!();
    let (old, new) = (noise(SIZE, 31), noise(SIZE, 32));
    let disk = Disk::of(old.clone());
    let source = disk.open();
    let mut bytes = vec![0; 5000];
    source.read_exact_at(&mut bytes, 100).unwrap();
    assert!(bytes == old[100..5100]);
    let known = fs::metadata(disk.path()).unwrap().modified().unwrap();
    disk.rewrite(new);
    let cached = fs::metadata(disk.path()).unwrap().modified().unwrap();
    assert_eq!(
        cached, known,
        "the kernel kept no attributes: this shows nothing"
    );
    let error = source.read_exact_at(&mut bytes, 100_000).unwrap_err();
    assert!(error.to_string().contains("(modification time)"), "{error}");
}

//! Checkpoints in stores: the same bytes as from the local disk, or an error, whatever the network does.

mod served;
mod store;

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Command, Output};

use crate::common::programs::*;
use crate::need_fuse;
use store::{Fault, Store};

/// A store whose bucket `b` holds the source of the stage under `run/step-1`.
fn stored(stage: &Stage) -> Store {
    let folder = stage.other("store/b/run");
    fs::create_dir_all(&folder).unwrap();
    copy(&stage.source(), &folder.join("step-1"));
    Store::of(&stage.other("store"))
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The program with the credentials of the store.
fn program(stage: &Stage, store: &Store) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    command.current_dir(stage.other("."));
    command.env("AWS_ENDPOINT_URL", store.url());
    command.env("AWS_ACCESS_KEY_ID", "key");
    command.env("AWS_SECRET_ACCESS_KEY", SECRET);
    command.env("AWS_REGION", "us-east-1");
    command.env("HOME", stage.other("."));
    command
}

const SECRET: &str = "wordthatnooneshouldsee";

fn run(stage: &Stage, store: &Store, arguments: &[&str]) -> Output {
    program(stage, store).args(arguments).output().unwrap()
}

/// With so small a cache nothing that was read before is at hand.
const IMPATIENT: [&str; 4] = ["--source-retry", "1", "--source-cache", "1MiB"];

const SAVE: &str = "s3://b/run/step-1";

/// The mount of a source in a store, in the background.
struct Mounted<'s>(&'s Stage);

impl<'s> Mounted<'s> {
    fn of(stage: &'s Stage, store: &Store, source: &str, flags: &[&str]) -> Self {
        let mut command = program(stage, store);
        command
            .args(["mount", source, "point", "--daemon"])
            .args(flags);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(stage)
    }

    fn weights(&self) -> std::io::Result<Vec<u8>> {
        fs::read(self.0.weights())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.0.run(&["umount", "point"]);
    }
}

/// The weights as they are shown from the local disk.
fn expected(stage: &Stage) -> Vec<u8> {
    let output = stage.run(&["export", "source", "local"]);
    assert!(output.status.success(), "{output:?}");
    fs::read(stage.other("local/model.safetensors")).unwrap()
}

#[test]
fn every_kind_of_store_shows_the_same_bytes_as_the_disk() {
    need_fuse!();
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    let web = format!("{}/b/run/step-1", store.url());
    let file = format!("{web}/model.safetensors");
    for source in [SAVE, &web, &file] {
        let mounted = Mounted::of(&stage, &store, source, &[]);
        assert_eq!(mounted.weights().unwrap(), expected, "{source}");
        let config = fs::read(stage.point().join("config.json")).unwrap();
        assert_eq!(
            config,
            fs::read(stage.source().join("config.json")).unwrap()
        );
    }
}

#[test]
fn metadata_takes_few_requests() {
    let stage = Stage::new();
    let store = stored(&stage);
    let output = run(&stage, &store, &["inspect", SAVE]);
    assert!(output.status.success(), "{output:?}");
    // Listings of the save and its parent, the front of the weights, side files, and two tensors that may be tied.
    assert!(store.requests() <= 16, "{}", store.requests());
}

#[test]
fn options_that_share_bytes_with_a_local_file_are_refused() {
    let stage = Stage::new();
    for arguments in [
        ["mount", SAVE, "point", "--passthrough"],
        ["export", SAVE, "out", "--reflink=auto"],
    ] {
        let output = stage.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let line = complaint(&output);
        assert!(line.contains("lies in a store"), "{line}");
    }
}

#[test]
fn failures_that_pass_change_no_byte() {
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    for (number, fault) in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Truncate,
        Fault::Shift,
    ]
    .into_iter()
    .enumerate()
    {
        store.fail(Some((fault, 2)));
        let name = format!("out{number}");
        let output = run(&stage, &store, &["export", SAVE, &name]);
        assert!(output.status.success(), "{fault:?}: {output:?}");
        let weights = fs::read(stage.other(&name).join("model.safetensors")).unwrap();
        assert_eq!(weights, expected, "{fault:?}");
    }
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    store.fail(Some((Fault::Stall, 3)));
    let output = run(&stage, &store, &["export", SAVE, "out"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        fs::read(stage.other("out/model.safetensors")).unwrap(),
        expected
    );
}

#[test]
fn failures_that_stay_are_errors_in_the_end() {
    let stage = Stage::new();
    let store = stored(&stage);
    for fault in [
        Fault::Status(503),
        Fault::Truncate,
        Fault::Whole,
        Fault::Status(403),
    ] {
        store.fail(Some((fault, 1)));
        let output = run(&stage, &store, &["inspect", SAVE, "--source-retry", "1"]);
        assert_eq!(output.status.code(), Some(4), "{fault:?}: {output:?}");
        let line = complaint(&output);
        assert!(line.contains("s3://b/run/step-1/"), "{line}");
    }
}

#[test]
fn an_object_that_changes_is_an_error_for_good() {
    need_fuse!();
    for ignores in [false, true] {
        for fault in [Fault::Change, Fault::Grow] {
            let stage = Stage::new();
            let store = stored(&stage);
            let mounted = Mounted::of(&stage, &store, SAVE, &IMPATIENT);
            if ignores {
                store.ignore_conditions();
            }
            store.fail(Some((fault, 1)));
            let error = mounted.weights().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{fault:?}");
            store.fail(None);
            let error = mounted.weights().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{fault:?} passed");
        }
    }
}

#[test]
fn an_object_that_is_replaced_is_an_error() {
    need_fuse!();
    let stage = Stage::new();
    let store = stored(&stage);
    let mounted = Mounted::of(&stage, &store, SAVE, &IMPATIENT);
    let object = stage.other("store/b/run/step-1/model.safetensors");
    let mut bytes = fs::read(&object).unwrap();
    bytes.reverse();
    fs::remove_file(&object).unwrap();
    fs::write(&object, bytes).unwrap();
    let error = mounted.weights().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn readers_go_on_when_permission_comes_back() {
    need_fuse!();
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    let mounted = Mounted::of(&stage, &store, SAVE, &IMPATIENT);
    store.fail(Some((Fault::Status(403), 1)));
    assert_eq!(
        mounted.weights().unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    store.fail(None);
    assert_eq!(mounted.weights().unwrap(), expected);
}

#[test]
fn many_readers_fetch_about_as_much_as_one() {
    need_fuse!();
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    let mounted = Mounted::of(&stage, &store, SAVE, &[]);
    let path = stage.weights();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| fs::read(&path).unwrap()))
            .collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), expected);
        }
    });
    drop(mounted);
    let most = 4 * expected.len() as u64 + (1 << 20);
    assert!(store.bytes() <= most, "{} of {most}", store.bytes());
}

#[test]
fn a_save_appears_in_a_run_on_a_store_once_it_is_complete() {
    need_fuse!();
    let stage = Stage::new();
    let expected = expected(&stage);
    let store = stored(&stage);
    let _mounted = Mounted::of(&stage, &store, "s3://b/run", &[]);
    let names = || -> Vec<String> {
        let entries = fs::read_dir(stage.point()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["latest", "step-1"]);
    copy(&stage.source(), &stage.other("store/b/run/step-2"));
    within(|| (names() == ["latest", "step-1", "step-2"]).then_some(()));
    let file = fs::File::open(stage.point().join("latest/model.safetensors")).unwrap();
    let mut weights = vec![0; expected.len()];
    file.read_exact_at(&mut weights, 0).unwrap();
    assert_eq!(weights, expected);
}

#[test]
fn no_secret_is_shown() {
    need_fuse!();
    let stage = Stage::new();
    let store = stored(&stage);
    let url = format!(
        "http://user:{SECRET}@{}/b/run/step-1/model.safetensors?X-Amz-Signature={SECRET}",
        store.address
    );
    let mounted = Mounted::of(&stage, &store, &url, &[]);
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let status = stage.run(&["status", "--json"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains(&stage.point().display().to_string()));
    assert!(!mounts.contains(SECRET) && !status.contains(SECRET));
    drop(mounted);
    store.fail(Some((Fault::Status(403), 1)));
    for source in [&*url, SAVE] {
        let mut command = program(&stage, &store);
        command.env("RUST_LOG", "trace").args(["inspect", source]);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        for text in [&output.stderr, &output.stdout] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

#[test]
fn what_is_not_there_is_told_with_its_url() {
    let stage = Stage::new();
    let store = stored(&stage);
    for (source, said) in [
        (
            "s3://b/nowhere",
            "s3://b/nowhere: there is no such file or folder",
        ),
        ("ftp://b/x", "is a kind of URL that cannot be read"),
        ("s3://b/../x", "has a part that no object can have"),
    ] {
        let output = run(&stage, &store, &["inspect", source]);
        assert!(!output.status.success());
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(line.contains(said), "{line}");
    }
}

//! Names, sizes and modes, as `ls`, `stat`, `find` and `du` see them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::common::mounts::*;
use crate::{need_fuse, need_root};

/// Runs a program on `path`, its last argument, and returns its output. It must succeed.
fn output(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    assert!(output.stderr.is_empty(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn view() -> View {
    View::of(vec![
        inline("config.json", &[b"{}"]),
        inline("model.safetensors", &[&[7; 1000], &[8; 24]]),
        inline("assets/tokenizer/vocab.txt", &[b"a\n"]),
    ])
}

#[test]
fn stat_is_exact() {
    need_fuse!();
    let view = view();
    let stat = fs::metadata(view.path("model.safetensors")).unwrap();
    assert_eq!(
        (stat.size(), stat.blocks(), stat.blksize()),
        (1024, 2, 1 << 20)
    );
    assert_eq!((stat.mode(), stat.nlink()), (libc::S_IFREG | 0o444, 1));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_700_000_000, 5));
    let small = fs::metadata(view.path("config.json")).unwrap();
    assert_eq!((small.size(), small.blocks()), (2, 1));
    let root = fs::metadata(view.path("")).unwrap();
    assert_eq!(
        (root.ino(), root.mode(), root.nlink()),
        (1, libc::S_IFDIR | 0o555, 3)
    );
    let assets = fs::metadata(view.path("assets")).unwrap();
    assert_eq!((assets.nlink(), assets.mtime()), (3, 1_700_000_000));
}

#[test]
fn tools_see_a_plain_directory() {
    need_fuse!();
    let view = view();
    let found = output("find", &["-L"], &view.path(""));
    assert_eq!(found.lines().count(), 6);
    assert_eq!(
        output("du", &["-sb", "--apparent-size"], &view.path(""))
            .split('\t')
            .next(),
        Some("1028")
    );
    let listed = output("ls", &["-lR", "--zero"], &view.path(""));
    assert!(listed.contains("vocab.txt") && listed.contains("1024"));
    let usage = output("stat", &["-f", "-c", "%b %S %f %l"], &view.path(""));
    assert_eq!(usage.trim(), "1 4096 0 255");
}

#[test]
fn ten_thousand_names_each_once() {
    need_fuse!();
    let names: BTreeSet<String> = (0..10_000)
        .map(|index| format!("shard-{index:05}-of-10000"))
        .collect();
    let view = View::of(names.iter().map(|name| inline(name, &[b"x"])).collect());
    for _ in 0..2 {
        let listed = fs::read_dir(view.path("")).unwrap();
        let listed: Vec<_> = listed
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(listed.len(), names.len());
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names);
    }
    assert_eq!(
        output("ls", &["-l"], &view.path("")).lines().count(),
        10_001
    );
}

#[test]
fn names_that_cannot_be() {
    need_fuse!();
    let view = view();
    let errno = |name: &[u8]| {
        let path = view.path("").join(OsStr::from_bytes(name));
        fs::metadata(path).unwrap_err().raw_os_error()
    };
    assert_eq!(errno(b"missing"), Some(libc::ENOENT));
    assert_eq!(errno(&[b'x'; 300]), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(&[b'x'; 255]), Some(libc::ENOENT));
    assert_eq!(errno(b"\xff\xfe"), Some(libc::ENOENT));
    assert_eq!(errno(b"config.json/x"), Some(libc::ENOTDIR));
    assert!(view.path("assets/../config.json").exists());
}

#[test]
fn no_extended_attributes() {
    need_fuse!();
    let view = view();
    let path = std::ffi::CString::new(view.path("config.json").as_os_str().as_bytes()).unwrap();
    // SAFETY: both names end in a zero byte, and no buffer is given.
    let count =
        unsafe { libc::getxattr(path.as_ptr(), c"user.x".as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!(
        (count, io::Error::last_os_error().raw_os_error()),
        (-1, Some(libc::EOPNOTSUPP))
    );
}

/// Runs `test -r` or `-x` as a user who owns nothing.
fn stranger_may(access: &str, path: &Path) -> bool {
    let mut command = Command::new("test");
    command.arg(access).arg(path).uid(65_534).gid(65_534);
    command.status().unwrap().success()
}

#[test]
fn the_modes_of_the_source_hold() {
    need_fuse!();
    need_root!();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, mode| {
        write(&folder.path().join(name), b"x", mode);
        shifted(name, b"", &folder.path().join(name))
    };
    let files = vec![
        file("private", 0o4700),
        file("group", 0o660),
        file("public", 0o755),
    ];
    let view = View::with(files, |options| options.allow_other = true);
    let mode = |name: &str| fs::metadata(view.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(
        [mode("private"), mode("group"), mode("public")],
        [0o600, 0o640, 0o644]
    );
    assert!(stranger_may("-r", &view.path("public")));
    assert!(!stranger_may("-r", &view.path("private")));
}

#[test]
fn owner_only_files_stand_in_owner_only_directories() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("private"), b"x", 0o600);
    let view = View::of(vec![shifted(
        "a/private",
        b"",
        &folder.path().join("private"),
    )]);
    let mode = |name: &str| fs::metadata(view.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(
        [mode(""), mode("a"), mode("a/private")],
        [0o700, 0o700, 0o600]
    );
}

#[test]
fn others_stay_out_unless_asked() {
    need_fuse!();
    need_root!();
    let view = view();
    assert!(!stranger_may("-r", &view.path("config.json")));
}

#[test]
fn a_copy_can_be_edited_and_removed_by_its_owner() {
    need_fuse!();
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("own"), b"x", 0o640);
    let own = shifted("a/own", b"", &folder.path().join("own"));
    let view = View::of(vec![own]);
    let copy = folder.path().join("copy");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(view.path(""))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    for name in ["", "a", "a/own"] {
        let mode = fs::metadata(copy.join(name)).unwrap().mode();
        assert_eq!(mode & 0o200, 0o200, "{name} has mode {mode:o}");
    }
    let error = fs::OpenOptions::new()
        .write(true)
        .open(view.path("a/own"))
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
}

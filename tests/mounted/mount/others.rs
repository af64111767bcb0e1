//! `--allow-other`: a file of a view is read by whom every source file and every directory above it lets in.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ckptfs::mount::{Options, mount};
use ckptfs::output::{Attributes, Segment, VirtualFile};
use ckptfs::source::SourceFile;

use crate::common::mounts::*;
use crate::common::programs::*;
use crate::{need_fuse, need_root};

/// Two users, and a group that both may have.
const ONE: u32 = 1001;
const TWO: u32 = 1002;
const TEAM: u32 = 2001;
const STRANGER: u32 = 65_534;

fn read_by(user: u32, group: u32, path: &Path) -> bool {
    let mut command = Command::new("cat");
    command.arg(path).uid(user).gid(group);
    command.output().unwrap().status.success()
}

/// A stage that every user may enter, with weights that every user may read.
fn open_stage() -> Stage {
    let stage = Stage::new();
    for path in [stage.other(""), stage.point()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let weights = stage.source().join("model.safetensors");
    fs::set_permissions(weights, Permissions::from_mode(0o644)).unwrap();
    stage
}

/// A directory that every user may enter, with files of users, groups and modes.
fn folder(files: &[(&str, u32, u32, u32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, user, group, mode) in files {
        let path = folder.path().join(name);
        write(&path, name.as_bytes(), *mode);
        chown(&path, Some(*user), Some(*group)).unwrap();
    }
    folder
}

/// A file of a view that is made of several files of a folder.
fn made_of(folder: &Path, path: &str, names: &[&str]) -> VirtualFile {
    let folder = folder.canonicalize().unwrap();
    let sources = names
        .iter()
        .map(|name| SourceFile::open(&folder.join(name)).unwrap());
    let sources: Vec<_> = sources.collect();
    let attributes = Attributes::of(sources.iter().map(|source| &**source)).unwrap();
    VirtualFile::new(
        path,
        attributes,
        sources.into_iter().map(Segment::Source).collect(),
    )
}

fn shown(files: Vec<VirtualFile>) -> View {
    View::with(files, |options| options.allow_other = true)
}

#[test]
fn a_closed_directory_above_the_source_closes_the_view() {
    need_fuse!();
    need_root!();
    let folder = folder(&[]);
    let deep = folder.path().join("home/run/step-1");
    fs::create_dir_all(&deep).unwrap();
    write(&deep.join("weights"), b"secret", 0o644);
    let file = || made_of(&deep, "weights", &["weights"]);
    assert!(read_by(
        STRANGER,
        STRANGER,
        &shown(vec![file()]).path("weights")
    ));
    for above in ["home", "home/run", "home/run/step-1"] {
        let above = folder.path().join(above);
        // Its names cannot be read either: 0711 lets callers through.
        for (mode, enters) in [(0o700, false), (0o711, true), (0o744, false)] {
            fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
            let view = shown(vec![file()]);
            assert_eq!(
                read_by(STRANGER, STRANGER, &view.path("weights")),
                enters,
                "{mode:o}"
            );
            assert_eq!(fs::read_dir(view.path("")).unwrap().count(), 1);
        }
        chown(&above, Some(ONE), Some(TEAM)).unwrap();
        fs::set_permissions(&above, Permissions::from_mode(0o750)).unwrap();
        let view = shown(vec![file()]);
        assert!(!read_by(STRANGER, STRANGER, &view.path("weights")));
        assert!(read_by(ONE, ONE, &view.path("weights")));
        assert!(read_by(TWO, TEAM, &view.path("weights")));
        chown(&above, Some(0), Some(0)).unwrap();
        fs::set_permissions(&above, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_file_made_of_two_owners_files_is_no_owners() {
    need_fuse!();
    need_root!();
    let folder = folder(&[
        ("a", ONE, ONE, 0o600),
        ("b", TWO, TWO, 0o600),
        ("c", STRANGER, TEAM, 0o644),
    ]);
    let view = shown(vec![
        made_of(folder.path(), "both", &["a", "b"]),
        made_of(folder.path(), "first", &["a", "c"]),
    ]);
    for user in [ONE, TWO, STRANGER] {
        assert!(!read_by(user, user, &view.path("both")), "{user}");
    }
    assert!(!read_by(TWO, TWO, &view.path("first")));
    assert!(fs::read(view.path("both")).is_ok());
}

#[test]
fn the_group_that_two_owners_files_have_reads_what_they_make() {
    need_fuse!();
    need_root!();
    let folder = folder(&[("a", ONE, TEAM, 0o640), ("b", TWO, TEAM, 0o640)]);
    let view = shown(vec![made_of(folder.path(), "both", &["a", "b"])]);
    assert!(read_by(ONE, TEAM, &view.path("both")) && read_by(STRANGER, TEAM, &view.path("both")));
    for user in [ONE, TWO, STRANGER] {
        assert!(!read_by(user, user, &view.path("both")), "{user}");
    }
}

#[test]
fn what_no_owner_and_group_stand_for_is_refused() {
    need_fuse!();
    need_root!();
    let folder = folder(&[("a", ONE, TEAM, 0o640), ("b", TWO, TEAM + 1, 0o640)]);
    let point = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    let files = || vec![made_of(folder.path(), "both", &["a", "b"])];
    assert!(mount(files(), point.path(), &options).is_ok());
    options.allow_other = true;
    let error = mount(files(), point.path(), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/a has mode 0640") && error.contains("; give all of them one group"),
        "{error}"
    );
}

#[test]
fn what_the_mount_makes_itself_is_read_by_readers_of_all_weights() {
    need_fuse!();
    need_root!();
    let stage = open_stage();
    let weights = stage.source().join("model.safetensors");
    chown(&weights, Some(ONE), Some(TEAM)).unwrap();
    fs::set_permissions(&weights, Permissions::from_mode(0o640)).unwrap();
    // A cast writes another config.json.
    let flags = ["--allow-other", "--dtype", "f32"];
    let program = stage.mount_with(Command::new(env!("CARGO_BIN_EXE_ckptfs")), &flags);
    for name in ["model.safetensors", "config.json"] {
        let path = stage.point().join(name);
        assert!(
            read_by(ONE, ONE, &path) && read_by(TWO, TEAM, &path),
            "{name}"
        );
        assert!(!read_by(STRANGER, STRANGER, &path), "{name}");
    }
    program.signal(libc::SIGTERM);
    assert_eq!(program.wait().0, Some(0));
}

#[test]
fn a_config_of_a_closed_folder_is_closed_whether_it_is_shown_as_it_is_or_changed() {
    need_fuse!();
    need_root!();
    let stage = open_stage();
    let home = stage.other("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
    fs::rename(stage.source().join("config.json"), home.join("config.json")).unwrap();
    write(&home.join("tokenizer.json"), b"{}", 0o644);
    for dtype in ["keep", "f32"] {
        let flags = ["--allow-other", "--config-from", "home", "--dtype", dtype];
        let program = stage.mount_with(Command::new(env!("CARGO_BIN_EXE_ckptfs")), &flags);
        assert!(read_by(STRANGER, STRANGER, &stage.weights()));
        for name in ["config.json", "tokenizer.json"] {
            assert!(
                !read_by(STRANGER, STRANGER, &stage.point().join(name)),
                "{name} {dtype}"
            );
        }
        program.signal(libc::SIGTERM);
        let (status, said) = program.wait();
        assert!(
            status == Some(0) && said.contains("lets no other user in"),
            "{said}"
        );
    }
}

/// An ACL as the kernel takes it: tags, bits and numbers.
fn set_acl(path: &Path, entries: &[(u16, u16, u32)]) -> bool {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, number) in entries {
        value.extend([tag.to_le_bytes(), bits.to_le_bytes()].concat());
        value.extend(number.to_le_bytes());
    }
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let name = c"system.posix_acl_access".as_ptr();
    // SAFETY: both names end in a zero byte, the value is as long as is said, and all outlive the call.
    unsafe { libc::setxattr(path.as_ptr(), name, value.as_ptr().cast(), value.len(), 0) == 0 }
}

#[test]
fn acls_of_sources_count() {
    need_fuse!();
    need_root!();
    const NONE: u32 = u32::MAX;
    let folder = folder(&[("kept", ONE, TEAM, 0o644), ("given", ONE, TEAM, 0o600)]);
    // owner rw-, user TWO as said, group ---, mask r--, others as said
    let acl = |two, other| {
        [
            (0x01, 6, NONE),
            (0x02, two, TWO),
            (0x04, 0, NONE),
            (0x10, 4, NONE),
            (0x20, other, NONE),
        ]
    };
    if !set_acl(&folder.path().join("kept"), &acl(0, 4)) {
        eprintln!("SKIPPED: no ACLs on {}", folder.path().display());
        return;
    }
    assert!(set_acl(&folder.path().join("given"), &acl(4, 0)));
    for name in ["kept", "given"] {
        let source = folder.path().join(name);
        let point = tempfile::tempdir().unwrap();
        let mut options = Options::new(folder.path());
        options.allow_other = true;
        let files = vec![made_of(folder.path(), name, &[name])];
        let Ok(view) = mount(files, point.path(), &options) else {
            continue;
        };
        for (user, group) in [
            (ONE, ONE),
            (TWO, TWO),
            (STRANGER, TEAM),
            (STRANGER, STRANGER),
        ] {
            let reads = read_by(user, group, &point.path().join(name));
            assert!(!reads || read_by(user, group, &source), "{name} by {user}");
        }
        view.unmount().unwrap();
    }
}

#[test]
fn a_later_save_of_a_run_is_no_more_open_than_its_folder() {
    need_fuse!();
    need_root!();
    let stage = open_stage();
    let run = stage.other("run");
    fs::create_dir(&run).unwrap();
    let save = |name: &str, mode: u32| {
        let folder = run.join(name);
        let mut copy = Command::new("cp");
        assert!(
            copy.args(["-r", "source"])
                .arg(&folder)
                .current_dir(stage.other(""))
                .status()
                .unwrap()
                .success()
        );
        let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        for entry in fs::read_dir(&folder).unwrap() {
            fs::File::open(entry.unwrap().path())
                .unwrap()
                .set_modified(hour)
                .unwrap();
        }
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        fs::File::open(&folder).unwrap().set_modified(hour).unwrap();
    };
    save("step-1", 0o755);
    let mut mount = Command::new(env!("CARGO_BIN_EXE_ckptfs"));
    mount.args(["mount", "run", "point", "--daemon", "--allow-other"]);
    let output = mount.current_dir(stage.other("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let weights = |step: &str| stage.point().join(step).join("model.safetensors");
    within(|| weights("step-1").exists().then_some(()));
    assert!(read_by(STRANGER, STRANGER, &weights("step-1")));
    save("step-2", 0o700);
    within(|| weights("step-2").exists().then_some(()));
    assert!(!read_by(STRANGER, STRANGER, &weights("step-2")));
    assert_eq!(
        fs::metadata(stage.point().join("step-2")).unwrap().mode() & 0o077,
        0
    );
    // The run itself may be closed later.
    fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
    within(|| (!read_by(STRANGER, STRANGER, &weights("step-1"))).then_some(()));
    assert!(stage.run(&["umount", "point"]).status.success());
}

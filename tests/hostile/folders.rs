//! Indexes and names that lead elsewhere, and folders that hold what they should not.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;

use super::make::tensors::named;
use super::scene::*;

const INDEX: &str = "model.safetensors.index.json";

/// Two shards, and an index that says that `a` is in the first and `b` in `second`.
fn indexed(second: &str) -> Scene {
    with_index(&format!(
        r#"{{"metadata":{{}},"weight_map":{{"a":"one.safetensors","b":{second}}}}}"#
    ))
}

fn with_index(index: &str) -> Scene {
    let one = Scene::new().with("one.safetensors", named(&["a"]));
    one.with("two.safetensors", named(&["b"]))
        .with(INDEX, index)
}

fn special(make: impl FnOnce(&Scene)) -> Scene {
    let scene = Scene::new();
    make(&scene);
    scene
}

fn node(scene: &Scene, kind: libc::mode_t, device: libc::dev_t) {
    let path = CString::new(scene.path("model.safetensors").as_os_str().as_bytes()).unwrap();
    // SAFETY: `path` ends in a zero byte and outlives the call.
    let made = unsafe { libc::mknod(path.as_ptr(), kind | 0o644, device) };
    // Without root there are no devices: the scene then has no weights, which is refused as well.
    assert!(made == 0 || kind != libc::S_IFIFO);
}

cases! {
    53 an_index_that_names_other_places, "refused; nothing there is opened" => {
        shown(indexed("\"two.safetensors\""), &["\"a\"", "\"b\""]);
        for place in ["../secret", "/etc/passwd", "a/../../secret", "C:\\\\x", "", "two\\u0000", "./two.safetensors", "..", "/"] {
            refused(indexed(&format!("\"{place}\"")).without("two.safetensors"), &["no plain path"]);
        }
    }

    54 links_out_of_the_checkpoint, "refused; those of a Hugging Face cache into its own blobs are followed" => {
        for target in ["../secret", "/proc/self/environ", "../source/../secret", "loop"] {
            let scene = indexed("\"two.safetensors\"").link("two.safetensors", target);
            let answer = scene.link("loop", "loop").inspect();
            assert!(matches!(answer.code, Some(1 | 4)) && answer.complaint.lines().count() == 1, "{answer:?}");
        }
        refused(Scene::empty().link("model", ".."), &["source"]);
        let cache = Scene::empty().with("blobs/0123", named(&["a"])).with("snapshots/main/config.json", "{}");
        let cache = cache.link("snapshots/main/model.safetensors", "../../blobs/0123");
        let open = |scene: &Scene| ckptfs::view::View::open(&scene.path("snapshots/main"), &Default::default());
        assert_eq!(open(&cache).unwrap().tensors.len(), 1);
        let out = cache.link("snapshots/main/model.safetensors", "../../../secret");
        assert!(open(&out).unwrap_err().to_string().contains("outside the checkpoint"));
    }

    55 an_index_and_shards_that_disagree, "refused with the name" => {
        refused(indexed("\"one.safetensors\"").without("two.safetensors"), &["tensor b", "is not in one.safetensors"]);
        let missing = r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"}}"#;
        refused(with_index(missing), &["tensor c"]);
        let swapped = r#"{"weight_map":{"a":"two.safetensors","b":"one.safetensors"}}"#;
        refused(with_index(swapped), &["is in", "not in"]);
        let short = with_index(r#"{"weight_map":{"a":"one.safetensors"}}"#);
        refused(short, &["two.safetensors lies beside"]);
        refused(indexed("\"two.safetensors\"").with("two.safetensors", named(&["b", "c"])), &["tensor c", "not in the index"]);
        refused(indexed("\"two.safetensors\"").without("two.safetensors"), &["is missing", "incomplete"]);
    }

    56 an_index_of_other_types, "refused; what it says of sizes is not believed" => {
        for map in ["[]", "null", "1", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":["one.safetensors"]}"#] {
            refused(with_index(&format!(r#"{{"weight_map":{map}}}"#)), &[INDEX]);
        }
        for index in ["{}", "[]", "", "{\"weight_map\":{}}{}"] {
            refused(with_index(index), &["source"]);
        }
        let liar = r#"{"metadata":{"total_size":-1e99},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
        shown(with_index(liar), &["\"bytes\": 8"]);
        shown(with_index(&liar.replace(r#""metadata":{"total_size":-1e99},"#, "")), &["\"bytes\": 8"]);
    }

    57 an_index_of_a_gigabyte, "refused by size, and by depth" => {
        refused(indexed("\"x\"").sparse(INDEX, b"{", 1 << 30), &["1073741824 bytes", "more than"]);
        refused(with_index(&"[".repeat(100_000)), &[INDEX]);
        let deep = format!("{{\"metadata\":{}1{},\"weight_map\":{{}}}}", "[".repeat(100_000), "]".repeat(100_000));
        refused(with_index(&deep), &[INDEX]);
    }

    58 files_that_are_none, "refused without being opened for reading" => {
        refused(special(|scene| node(scene, libc::S_IFIFO, 0)), &["not a regular file"]);
        refused(special(|scene| node(scene, libc::S_IFCHR, libc::makedev(1, 5))), &["source"]);
        refused(special(|scene| node(scene, libc::S_IFBLK, libc::makedev(7, 0))), &["source"]);
        refused(special(|scene| drop(UnixListener::bind(scene.path("model.safetensors")))), &["not a regular file"]);
        refused(special(|scene| fs::create_dir(scene.path("model.safetensors")).unwrap()), &["holds no checkpoint"]);
        refused(Scene::new().link("model.safetensors", "/proc/self/maps"), &["outside the checkpoint"]);
        refused(Scene::new().with("model.safetensors", named(&["a"])).link("config.json", "/dev/zero"), &["outside the checkpoint"]);
    }

    59 two_checkpoints_in_one_folder, "refused with their names; those of a run are listed" => {
        let both = indexed("\"two.safetensors\"").with("model.safetensors", named(&["a", "b"]));
        refused(both, &["model.safetensors lies beside"]);
        let kinds = Scene::new().with("model.safetensors", named(&["a"])).with("pytorch_model.bin", "");
        refused(kinds, &["--system huggingface", "--system huggingface-bin"]);
        let step = |scene: Scene, number| scene.with(&format!("global_step_{number}/actor/model.safetensors"), named(&["a"]));
        shown(step(step(Scene::empty(), 10), 20), &["\"saves\"", "global_step_10", "global_step_20"]);
    }
}

#[test]
fn weights_under_a_name_that_is_no_text_are_not_passed_over() {
    let scene = Scene::new().with("model.safetensors", named(&["a"]));
    let name = std::ffi::OsStr::from_bytes(b"more-\xff.safetensors");
    fs::write(scene.source().join(name), named(&["b"])).unwrap();
    refused(scene, &["more-\u{fffd}.safetensors", "missing"]);
}

//! Pickles that would run code, lie about lengths or claim tensors that their storages do not hold.

use super::make::pickle::*;
use super::make::tensors::named as one_tensor;
use super::make::zip::{Zip, torch};
use super::scene::*;

/// A checkpoint of one file that `torch.save` could have written.
fn saved(value: &[u8]) -> Scene {
    raw(&pickle(value))
}

/// The same with a pickle that may lack its frame.
fn raw(pickle: &[u8]) -> Scene {
    Scene::new().with("pytorch_model.bin", Zip::of_pickle(pickle).bytes())
}

fn weight(value: Value) -> Scene {
    saved(&dict(&[("w", value)]))
}

fn touch(module: &str, function: &str) -> Value {
    call(global(module, function), &[text("touch ../canary canary")])
}

/// A list of twice the same list, which is a list of twice the same, and so on down to a tensor.
fn doubling(levels: u8) -> Value {
    let level = |memo| [&b"q"[..], &[memo], b"0](h", &[memo], b"h", &[memo], b"e"].concat();
    (0..levels).fold(small(), |value, memo| [value, level(memo)].concat())
}

const INERT: &str = "nothing was executed";

cases! {
    1 a_call_of_os_system, "refused by name" => {
        for module in ["os", "posix", "nt", "subprocess"] {
            refused(weight(touch(module, "system")), &[&format!("names {module}.system"), INERT]);
        }
    }

    2 a_call_by_way_of_an_innocent_function, "refused by a list of what is allowed, not of what is not" => {
        for (module, name) in [
            ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"), ("__builtin__", "apply"),
            ("importlib", "import_module"), ("pkgutil", "resolve_name"), ("runpy", "_run_code"),
            ("operator", "attrgetter"), ("code", "InteractiveInterpreter"), ("webbrowser", "open"),
        ] {
            refused(weight(touch(module, name)), &[&format!("names {module}.{name}"), INERT]);
        }
        // Foreign code is recorded as what it is, never called, and no tensor.
        shown(saved(&dict(&[("x", touch("pip._internal", "main")), ("w", small())])), &["\"w\""]);
    }

    3 a_name_put_together_at_run_time, "refused where it is used" => {
        let name = b"X\x05\0\0\0posixq\0X\x06\0\0\0systemq\x0100h\0h\x01\x93X\x08\0\0\0touch ..\x85R";
        refused(saved(name), &["names posix.system", INERT]);
    }

    4 opcodes_that_no_checkpoint_needs, "refused by their names" => {
        for (body, name) in [
            (&b"(X\x02\0\0\0idios\nsystem\n"[..], "INST"),
            (b"(cos\nsystem\nX\x02\0\0\0ido", "os.system"),
            (b"(ctorch\nSize\nX\x02\0\0\0ido", "OBJ"),
            (b"ctorch\nSize\n)}\x92", "NEWOBJ_EX"),
            (b"\x82\x01", "EXT1"), (b"\x83\x01\0", "EXT2"), (b"\x84\x01\0\0\0", "EXT4"),
        ] {
            refused(saved(body), &[name]);
        }
    }

    5 a_call_whose_result_is_dropped, "refused all the same" => {
        let dropped = [touch("posix", "system"), b"0".to_vec(), dict(&[("w", small())])].concat();
        refused(saved(&dropped), &["names posix.system", INERT]);
    }

    6 a_state_for_what_takes_none, "a tensor with a state of its own is refused; that of a container is looked at by nobody" => {
        let stated = |value: Value| [value, dict(&[("w", small())]), b"b".to_vec()].concat();
        refused(weight(stated(small())), &["gives a state"]);
        let container = call(global("collections", "OrderedDict"), &[]);
        let filled = [container, text("v"), small(), b"s".to_vec()].concat();
        let report = stated(filled);
        let answer = saved(&report).inspect();
        assert!(answer.out.contains("\"v\"") && !answer.out.contains("\"w\""), "{answer:?}");
    }

    7 a_payload_before_a_broken_tail, "refused, whichever comes first" => {
        for tail in [&b""[..], b"X\xff\0\0\0", b"\xff", b"0000."] {
            refused(raw(&[b"\x80\x02", &*touch("posix", "system"), tail].concat()), &[INERT]);
        }
    }

    8 old_protocols_and_impossible_lengths, "refused before anything is allocated" => {
        refused(raw(b"(dp0\nS'w'\np1\nI1\ns."), &["protocol"]);
        refused(raw(b"\x80\x01}."), &["pickle protocol 1"]);
        for body in [&b"\x8b\0\0\0\x80"[..], b"\x8d\0\0\0\0\0\0\0\x80", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", b"X\xff\xff\xff\xff"] {
            refused(saved(body), &["ends too early"]);
        }
    }

    9 a_memo_index_of_four_billion, "refused" => {
        refused(saved(b"Nr\xff\xff\xff\xff"), &["memo index 4294967295"]);
        refused(saved(b"j\xff\xff\xff\xff"), &["memo index 4294967295"]);
    }

    10 lists_without_end, "refused: deeper than any checkpoint, or in more places" => {
        let deep = [b")".to_vec(), vec![0x85; 1_000_000]].concat();
        refused(weight(deep), &["nests lists deeper than 64"]);
        refused(weight(b"]q\0h\0a".to_vec()), &["nests lists deeper than 64"]);
        refused(weight(b"}q\0X\x01\0\0\0ah\0s".to_vec()), &["nests lists deeper than 64"]);
        for levels in [20, 40, 60] {
            refused(weight(doubling(levels)), &["has lists in more places"]);
        }
    }

    11 items_for_what_is_no_container, "refused, tensors included" => {
        for object in [small(), text("x"), int(1), none(), floats("0", 4)] {
            let item = [object, int(0), int(0), b"s".to_vec()].concat();
            refused(weight(item), &["adds items"]);
        }
    }

    12 storages_that_are_none, "refused with the name of the tensor" => {
        let class = || global("torch", "FloatStorage");
        let id = |parts: &[Value]| tensor(persistent(tuple(parts)), 0, &[4], &[1]);
        for broken in [
            id(&[]),
            id(&[text("module"), class(), text("0"), text("cpu"), int(4)]),
            id(&[text("storage"), class(), int(-1), text("cpu"), int(4)]),
            id(&[text("storage"), text("FloatStorage"), text("0"), text("cpu"), int(4)]),
            tensor(persistent(text("0")), 0, &[4], &[1]),
            tensor(floats("0", -1), 0, &[4], &[1]),
            tensor(floats("0", 1 << 62), 0, &[4], &[1]),
            tensor(floats("0", 5), 0, &[4], &[1]),
            tensor(none(), 0, &[4], &[1]),
        ] {
            refused(weight(broken), &["tensor w"]);
        }
    }

    13 tensors_outside_of_their_storages, "refused; products are checked" => {
        let far = i64::MAX;
        for (offset, size, stride) in [
            (1, &[4][..], &[1][..]), (0, &[5], &[1]), (0, &[2, 2], &[3, 1]), (0, &[4], &[-1]), (-1, &[1], &[1]),
            (0, &[-4], &[1]), (0, &[4], &[1, 1]), (far, &[1], &[1]), (0, &[2], &[far]), (1 << 61, &[4], &[1]),
            (0, &[1 << 40, 1 << 40], &[1, 1]), (0, &[1 << 32, 1 << 31, 0], &[1, 1, 1]), (0, &[1; 9], &[1; 9]),
        ] {
            refused(weight(tensor(floats("0", 4), offset, size, stride)), &["tensor w"]);
        }
    }

    14 terabytes_out_of_four_bytes, "refused: expanded beyond a limit" => {
        refused(weight(tensor(floats("0", 4), 0, &[10 << 40], &[0])), &["expanded", "tensor w"]);
    }

    15 two_names_for_one_storage, "both shown, each counted" => {
        shown(saved(&dict(&[("v", small()), ("w", small())])), &["\"v\"", "\"w\"", "\"bytes\": 32"]);
    }

    16 storage_keys_that_are_paths, "looked up among the zip's names alone" => {
        for key in ["../secret", "/etc/passwd", "0\0", "..", "", "1"] {
            refused(weight(tensor(floats(key, 4), 0, &[4], &[1])), &["is missing"]);
        }
    }

    17 the_form_before_zip, "better: that of torch 0.4 to 1.5 is shown; that of 0.1, a tar, is refused" => {
        shown(Scene::real("legacy-bin"), &["model.embed_tokens.weight"]);
        let tar = [vec![b'a'; 257], b"ustar\0".to_vec(), vec![0; 249]].concat();
        refused(Scene::new().with("pytorch_model.bin", tar), &["tar archive", "torch.save"]);
    }

    18 a_wrong_magic_number, "refused" => {
        let stream = [pickle(&int(0x1950)), pickle(&int(1001)), pickle(&dict(&[])), pickle(&touch("os", "system"))];
        refused(Scene::new().with("pytorch_model.bin", stream.concat()), &["magic number"]);
    }

    19 ten_million_keys, "refused at a limit, before memory is short" => {
        let keys = [b"}(", &*b"K\x01N".repeat(10_000_000), b"u"].concat();
        refused(saved(&keys), &["more than", "values"]);
    }

    20 files_that_only_have_the_name, "refused; says what they are" => {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        let is = |bytes: &[u8], words: &[&str]| refused(Scene::new().with("pytorch_model.bin", bytes), words);
        is(lfs.as_bytes(), &["Git LFS pointer", "git lfs pull"]);
        is(b"<!DOCTYPE html><html>", &["web page"]);
        is(b"", &["empty"]);
        is(b"7z\xbc\xaf\x27\x1c\0\x04", &["7z archive"]);
        is(b"\x1f\x8b\x08\0", &["gzip"]);
        is(b"PK\x03\x04", &["zip"]);
        let named = |name: &str, bytes: &str, word: &str| {
            let scene = Scene::new().with("model.safetensors", one_tensor(&["w"]));
            refused(scene.with(name, bytes), &[name, word]);
        };
        for name in ["model.safetensors", "config.json", "model.safetensors.index.json"] {
            named(name, lfs, "Git LFS pointer");
            named(name, "<!DOCTYPE html><html>", "web page");
        }
        let other = Zip::default().bent(|zip| zip.add("word/document.xml", b"<x/>"));
        is(&other.bytes(), &["not written by torch.save"]);
        is(&torch(&text("just text")), &["no weights"]);
    }
}

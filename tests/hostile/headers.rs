//! safetensors files whose header lies, repeats itself or hides something; and the headers that we write ourselves.

use ckptfs::mapping::MappedTensor;
use ckptfs::output::{Naming, Split, VirtualFile, Weights, weight_files};
use ckptfs::read::read_at;
use ckptfs::source::SourceFile;
use ckptfs::tensor::{Dtype, Shape, Strides, Tensor};
use ckptfs::view::{Options, View};
use safetensors::SafeTensors;

use super::make::pickle::{dict, small};
use super::make::tensors::*;
use super::make::zip::torch;
use super::scene::*;

fn whole(bytes: Vec<u8>) -> Scene {
    Scene::new().with("model.safetensors", bytes)
}

fn header(json: &str) -> Scene {
    whole(file(json, 4))
}

fn tensor(dtype: &str, shape: &str, range: &str, data: usize) -> Scene {
    whole(one("w", dtype, shape, range, data))
}

fn contents(file: &VirtualFile) -> Vec<u8> {
    let mut bytes = vec![0; file.size() as usize];
    read_at(file, 0, &mut bytes).unwrap();
    bytes
}

const FOUR: &str = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;

cases! {
    32 files_too_short_for_a_length, "refused" => {
        all_refused([0, 1, 7].map(|size| whole(vec![b'{'; size])), &["no safetensors file", "bytes"]);
    }

    33 a_header_of_no_bytes, "refused" => {
        refused(whole(framed(0, b"", 0)), &["does not start with {"]);
        refused(whole(framed(0, b"", 9)), &["does not start with {"]);
    }

    34 a_header_longer_than_its_file, "refused before anything is allocated" => {
        for length in [13, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 7] {
            refused(whole(framed(length, b"{}          ", 0)), &["incomplete", "a header of"]);
        }
        let large = Scene::new().sparse("model.safetensors", &100_000_001u64.to_le_bytes(), 1 << 30);
        refused(large, &["a header of 100000001 bytes"]);
    }

    35 no_tensors, "refused: nothing to mount" => {
        refused(whole(file("{}", 0)), &["holds no weights"]);
        refused(whole(file(r#"{"__metadata__":{"format":"pt"}}"#, 0)), &["holds no weights"]);
    }

    36 something_around_the_object, "refused" => {
        for json in ["[]", "null", "\u{feff}{}", "{}\0", "{}x", "{}{}", "1", "\"\""] {
            refused(whole(file(json, 0)), &["safetensors"]);
        }
    }

    37 blanks_around_the_object, "padding, before it too: the format's own reader takes it there since writers align data by it" => {
        for blanks in [" ", "\n", "\t\r", "   "] {
            shown(header(&format!("{blanks}{{\"w\":{FOUR}}}")), &["\"w\""]);
            shown(header(&format!("{{\"w\":{FOUR}}}{blanks}")), &["\"w\""]);
        }
        all_refused(["\u{b}", "\u{c}", "\u{a0}", "\0"].map(|no_blank| header(&format!("{no_blank}{{\"w\":{FOUR}}}"))), &["safetensors"]);
    }

    38 text_that_is_no_unicode, "refused" => {
        for name in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", br"\ud800", br"\udc00\ud800"] {
            let json = [b"{\"", name, b"\":", FOUR.as_bytes(), b"}"].concat();
            refused(whole(framed(json.len() as u64, &json, 4)), &["no safetensors header"]);
        }
    }

    39 one_tensor_twice_over_the_same_bytes, "refused" => {
        refused(header(&format!("{{\"w\":{FOUR},\"w\":{FOUR}}}")), &["twice"]);
        refused(header(&format!("{{\"w\":{FOUR},\"\\u0077\":{FOUR}}}")), &["twice"]);
    }

    40 any_other_key_twice, "refused at every level" => {
        let two = entry("U8", "4", "4,8");
        refused(whole(file(&format!("{{\"w\":{FOUR},\"w\":{two}}}"), 8)), &["twice"]);
        refused(header(&format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},"w":{FOUR}}}"#)), &["twice"]);
        refused(header(&format!(r#"{{"__metadata__":{{"a":"1","a":"2"}},"w":{FOUR}}}"#)), &["twice"]);
        refused(header(r#"{"w":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#), &["twice"]);
    }

    41 overlaps_holes_and_rests, "refused: the tensors cover the data exactly" => {
        let two = |first: &str, second: &str, data| {
            let size = |range: &str| range.split(',').map(|end| end.parse::<u64>().unwrap()).reduce(|a, b| b - a).unwrap();
            let [a, b] = [first, second].map(|range| entry("U8", &size(range).to_string(), range));
            whole(file(&format!("{{\"a\":{a},\"b\":{b}}}"), data))
        };
        shown(two("0,4", "4,8", 8), &["\"a\"", "\"b\""]);
        all_refused([
            two("0,4", "2,6", 6), two("0,4", "0,4", 4), two("0,4", "6,8", 8), two("2,4", "4,8", 8), two("0,8", "2,6", 8),
        ], &["begins at byte"]);
        refused(two("0,4", "4,8", 9), &["1 bytes follow"]);
        refused(two("0,4", "4,8", 7), &["incomplete"]);
    }

    42 offsets_that_are_none, "refused" => {
        for range in ["4,0", "-1,4", "0.0,4", "0,1e400", "0,18446744073709551616", "0,2,4", "0", "", "\"0\",4", "null,4"] {
            refused(tensor("U8", "4", range, 4), &["model.safetensors"]);
        }
    }

    43 shapes_that_do_not_fit, "refused" => {
        for (dtype, shape) in [("U8", "5"), ("U8", "3"), ("F32", "4"), ("U8", ""), ("U8", "0"), ("U8", "2,3")] {
            refused(tensor(dtype, shape, "0,4", 4), &["cannot hold", "tensor w"]);
        }
    }

    44 products_that_overflow, "refused, a zero among the factors or not" => {
        for shape in ["4294967296,4294967296,0", "0,4294967296,4294967296", "9223372036854775808", "4294967296,4294967296,4294967296"] {
            refused(tensor("U8", shape, "0,0", 0), &["too many dimensions or elements"]);
        }
        refused(tensor("F64", "4611686018427387904", "0,0", 0), &["cannot hold"]);
    }

    45 no_elements_in_a_huge_shape, "shown with no bytes" => {
        shown(tensor("F32", "0,1152921504606846976", "0,0", 0), &["1152921504606846976", "\"bytes\": 0"]);
    }

    46 a_million_dimensions, "refused: eight are the most" => {
        refused(tensor("U8", &["1"; 9].join(","), "0,1", 1), &["too many dimensions"]);
        let many = tensor("U8", &vec!["1"; 1_000_000].join(","), "0,1", 1);
        refused(many, &["too many dimensions"]);
    }

    47 unknown_types, "refused by name" => {
        for dtype in ["f32", "BFLOAT16", "F128", "", "F32\\u0000", "U8 "] {
            refused(tensor(dtype, "4", "0,4", 4), &["unknown dtype", "tensor w"]);
        }
    }

    48 half_bytes, "an odd number of them is refused, an even one is shown byte for byte" => {
        refused(tensor("F4", "3", "0,2", 2), &["cannot hold"]);
        refused(tensor("F4", "1,1", "0,1", 1), &["cannot hold"]);
        shown(tensor("F4", "2,4", "0,4", 4), &["\"F4\""]);
    }

    49 metadata_that_is_no_text, "refused, however deep" => {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for value in ["null", "[]", "1", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":["b"]}"#, &deep] {
            refused(header(&format!(r#"{{"__metadata__":{value},"w":{FOUR}}}"#)), &["no safetensors header"]);
        }
        refused(header(&format!("{{\"w\":{deep}}}")), &["no safetensors header"]);
    }

    50 names_that_would_break_out, "control characters and length are refused; what is legal is escaped, and never a path" => {
        for name in ["", "a\\u0000", "a\\n}", "\\u001b[31m", &"x".repeat(1 << 20)] {
            let answer = whole(named(&[name])).inspect();
            assert!(answer.code == Some(1) && answer.complaint.contains("a name must"), "{answer:?}");
            assert!(answer.complaint.lines().count() == 1 && !answer.complaint.contains('\u{1b}'));
        }
        let legal = ["\\\"}", "../../secret", "/etc/passwd", "\u{202e}gpj.exe", "\\\\"];
        let scene = whole(named(&legal));
        assert_eq!(scene.inspect().code, Some(0));
        let view = View::open(&scene.source(), &Options::default()).unwrap();
        let bytes = contents(view.files.iter().find(|file| file.path() == "model.safetensors").unwrap());
        let shown = SafeTensors::deserialize(&bytes).unwrap();
        for name in ["\"}", "../../secret", "/etc/passwd", "\u{202e}gpj.exe", "\\"] {
            assert_eq!(shown.tensor(name).unwrap().data(), [7; 4]);
        }
        assert!(view.files.iter().all(|file| file.path() == "model.safetensors" || file.path() == "config.json"));
        let own = torch(&dict(&[("__metadata__", small()), ("w", small())]));
        refused(Scene::new().with("pytorch_model.bin", own), &["__metadata__"]);
    }

    51 two_tensors_for_one_name, "refused with both" => {
        for prefix in ["_fsdp_wrapped_module.", "_orig_mod."] {
            let scene = whole(named(&["a.weight", &format!("{prefix}a.weight")]));
            refused(scene, &["both", "would become a.weight"]);
        }
    }

    52 headers_of_our_own_beyond_the_limit, "split over more files" => {
        let scene = whole(one("w", "U8", "4", "0,4", 4));
        let source = SourceFile::open(&scene.path("model.safetensors")).unwrap();
        let layout = Strides { offset: 0, strides: vec![1].into() };
        let tensor = Tensor::stored(source, Dtype::U8, Shape::new(&[4]).unwrap(), layout).unwrap();
        let named = |index| MappedTensor { name: format!("{index:04000}").into(), tensor: tensor.clone(), sources: Default::default() };
        let tensors: Vec<_> = (0..4500).map(named).collect();
        let units = (0..tensors.len()).collect();
        let weights = Weights { naming: Naming::Model, units, split: Split::AtMost(1 << 40), total_parameters: 0 };
        let files = weight_files(&tensors, &weights);
        assert!(files.len() > 2 && files.iter().all(|file| file.size() < 100_000_000));
    }
}

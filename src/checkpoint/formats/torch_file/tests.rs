//! Laws of files of `torch.save`: what becomes a tensor, and what is refused.

use super::testing::*;
use super::*;
use crate::tensor::Dtype;

/// Eight floats whose bytes count from 0.
const EIGHT: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

fn open(bytes: &[u8]) -> Result<TorchFile> {
    TorchFile::open(file(bytes).1)
}

/// The value under `w`, beside eight floats in storage `0`.
fn value(object: Vec<u8>) -> Result<Value> {
    let saved = saved(dict(&[("w", object)]), &[("0", &EIGHT)]);
    let found = open(&saved)?.tensors(&|_| true)?.pop();
    found.map_or_else(
        || Err(Error::Mapping("no tensor".to_owned())),
        |(_, value)| value,
    )
}

fn plain(object: Vec<u8>) -> Tensor {
    match value(object).unwrap() {
        Value::Plain(tensor) => tensor,
        other => panic!("{other:?}"),
    }
}

fn refusal(object: Vec<u8>) -> String {
    value(object).unwrap_err().to_string()
}

fn floats() -> Vec<u8> {
    storage("FloatStorage", "0", 8)
}

fn layout(tensor: &Tensor) -> (u64, Vec<u64>) {
    let mut places = Vec::new();
    tensor.each_stored(&mut |stored| places.extend(stored.known_layout().cloned()));
    (places[0].offset, places[0].strides.to_vec())
}

#[test]
fn a_view_keeps_its_offset_and_strides() {
    let view = plain(rebuilt(floats(), 2, &[2, 3], &[1, 2]));
    assert_eq!(
        (view.dtype(), view.shape().dims()),
        (Dtype::F32, &[2, 3][..])
    );
    let (offset, strides) = layout(&view);
    let mut first = [0];
    view.each_stored(&mut |stored| stored.file().read_exact_at(&mut first, offset).unwrap());
    assert_eq!((first, strides), ([8], vec![1, 2]));
}

#[test]
fn views_beyond_their_storage_are_refused() {
    for (offset, shape, strides) in [
        (1, &[8][..], &[1][..]),
        (0, &[2, 8], &[8, 1]),
        (0, &[2], &[8]),
        (0, &[2], &[-1]),
        (0, &[-2], &[1]),
        (-1, &[2], &[1]),
        (8, &[1], &[1]),
        (i64::MAX, &[1], &[1]),
        (0, &[1 << 40, 1 << 40], &[1, 1]),
        (0, &[2], &[i64::MAX]),
        (0, &[2, 2], &[1]),
        (0, &[1 << 40], &[0]),
    ] {
        refusal(rebuilt(floats(), offset, shape, strides));
    }
}

#[test]
fn storages_must_be_as_large_as_they_say() {
    for count in [0, 7, 9, -1, 1 << 62] {
        refusal(rebuilt(storage("FloatStorage", "0", count), 0, &[1], &[1]));
    }
    assert!(
        refusal(rebuilt(
            storage("FloatStorage", "../data/0", 8),
            0,
            &[1],
            &[1]
        ))
        .contains("missing")
    );
    assert!(
        refusal(rebuilt(storage("QInt8Storage", "0", 32), 0, &[1], &[1])).contains("QInt8Storage")
    );
    assert!(refusal(rebuilt(none(), 0, &[1], &[1])).contains("no storage"));
    let short = [tuple(&[text("storage"), text("x")]), b"Q".to_vec()].concat();
    assert!(refusal(rebuilt(short, 0, &[1], &[1])).contains("not one"));
}

#[test]
fn an_untyped_storage_takes_the_type_of_its_call() {
    let hooks = call("collections", "OrderedDict", &[]);
    let args = |dtype: &str| {
        let bytes = storage("UntypedStorage", "0", 32);
        let flag = b"\x89".to_vec();
        [
            bytes,
            int(4),
            sizes(&[3]),
            sizes(&[2]),
            flag,
            hooks.clone(),
            global("torch", dtype),
        ]
    };
    let tensor = plain(call("torch._utils", "_rebuild_tensor_v3", &args("uint16")));
    assert_eq!((tensor.dtype(), tensor.bytes()), (Dtype::U16, 6));
    let error = refusal(call(
        "torch._utils",
        "_rebuild_tensor_v3",
        &args("complex32"),
    ));
    assert!(error.contains("complex32"));
}

#[test]
fn parameters_are_their_tensors() {
    let inner = rebuilt(floats(), 0, &[8], &[1]);
    let flag = b"\x88".to_vec();
    for wrapped in [
        call(
            "torch._utils",
            "_rebuild_parameter",
            &[inner.clone(), flag.clone(), none()],
        ),
        call(
            "torch._utils",
            "_rebuild_parameter_with_state",
            &[inner.clone(), flag.clone(), none(), dict(&[])],
        ),
        call(
            "torch._utils",
            "_rebuild_device_tensor_from_cpu_tensor",
            &[
                inner.clone(),
                global("torch", "float32"),
                text("xla"),
                flag.clone(),
            ],
        ),
    ] {
        assert_eq!(plain(wrapped).shape().dims(), [8]);
    }
    let other = [inner, global("torch", "float64"), text("xla"), flag];
    refusal(call(
        "torch._utils",
        "_rebuild_device_tensor_from_cpu_tensor",
        &other,
    ));
}

#[test]
fn a_weight_that_fsdp_gathers_in_float8_is_the_weight_it_holds() {
    let class = || {
        global(
            "torchao.float8.fsdp_utils",
            "WeightWithDynamicFloat8CastTensor",
        )
    };
    let wrapper = global("torch._utils", "_rebuild_wrapper_subclass");
    let made = |state| {
        let args = [wrapper.clone(), class(), tuple(&[class()]), state];
        call("torch._tensor", "_rebuild_from_type_v2", &args)
    };
    let inner = rebuilt(floats(), 0, &[8], &[1]);
    assert_eq!(plain(made(dict(&[("_tensor", inner)]))).shape().dims(), [8]);
    assert!(refusal(made(dict(&[]))).contains("no tensor"));
}

#[test]
fn what_is_no_plain_tensor_is_refused_by_name() {
    for name in [
        "_rebuild_sparse_tensor",
        "_rebuild_qtensor",
        "_rebuild_nested_tensor",
        "_rebuild_wrapper_subclass",
    ] {
        assert!(refusal(call("torch._utils", name, &[floats()])).contains(name));
    }
    assert!(refusal(call("torchao", "NF4", &[floats()])).contains("class NF4"));
    let deep = list(&[tuple(&[dict(&[("x", floats())])])]);
    assert!(refusal(object("a", "Quantized", dict(&[("data", deep)]))).contains("class Quantized"));
    let mut args = vec![floats(), int(0), sizes(&[8]), sizes(&[1]), none(), none()];
    args.push(dict(&[("conj", b"\x88".to_vec())]));
    assert!(refusal(call("torch._utils", "_rebuild_tensor_v2", &args)).contains("conj"));
}

#[test]
fn tensors_are_found_in_dictionaries_and_lists_and_the_rest_is_passed_over() {
    let w = || rebuilt(floats(), 0, &[8], &[1]);
    let ordered = [
        call("collections", "OrderedDict", &[]),
        b"(".to_vec(),
        text("w"),
        w(),
        b"u".to_vec(),
    ]
    .concat();
    let state = dict(&[
        ("model", ordered),
        ("list", list(&[int(1), w()])),
        (
            "args",
            object("argparse", "Namespace", dict(&[("layers", int(3))])),
        ),
        (
            "broken",
            call("torch._utils", "_rebuild_qtensor", &[floats()]),
        ),
    ]);
    let file = open(&saved(
        table(&[(text("a"), state), (int(5), tuple(&[w()]))]),
        &[("0", &EIGHT)],
    ))
    .unwrap();
    let found = file
        .tensors(&|path| path.last().is_some_and(|name| name != "broken"))
        .unwrap();
    let paths: Vec<String> = found.iter().map(|(path, _)| path.join(".")).collect();
    assert_eq!(paths, ["a.model.w", "a.list.1", "5.0"]);
    assert!(
        file.tensors(&|_| true)
            .unwrap()
            .iter()
            .any(|(_, value)| value.is_err())
    );
    assert_eq!(
        file.get(&["a", "args", "layers"]).and_then(Object::as_u64),
        Some(3)
    );
}

#[test]
fn lists_in_themselves_and_lists_without_end_are_refused() {
    let cycle = b"]q\x00h\x00a".to_vec();
    assert!(refusal(cycle).contains("in themselves"));
    let deep = [b"]".repeat(200), b"a".repeat(199)].concat();
    assert!(refusal(deep).contains("deeper than"));
}

#[test]
fn files_of_other_kinds_are_named() {
    for (front, word) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\n"[..],
            "Git LFS",
        ),
        (b"<!DOCTYPE html>", "web page"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "empty"),
        (b"hello", "no file of torch.save"),
        (b"\x80\x02K\x01.", "magic number"),
        (b"\x80\x04\x95", "too early"),
    ] {
        let error = open(front).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let tar = [vec![b'x'; 257], b"ustar".to_vec()].concat();
    assert!(open(&tar).unwrap_err().to_string().contains("torch 0.1"));
}

#[test]
fn an_object_instead_of_a_dictionary_is_named() {
    let module = object(
        "__main__",
        "Net",
        dict(&[("w", rebuilt(floats(), 0, &[8], &[1]))]),
    );
    let saved = saved(module, &[("0", &EIGHT)]);
    let found = open(&saved).unwrap().tensors(&|_| true).unwrap();
    assert!(
        found[0]
            .1
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("class Net")
    );
}

#[test]
fn a_bit_of_a_view_is_found_wherever_the_metadata_has_it() {
    let with = |function: &str, metadata: Vec<u8>| {
        let mut args = vec![floats(), int(0), sizes(&[8]), sizes(&[1]), none(), none()];
        if function.ends_with('3') {
            args.push(global("torch", "float32"));
        }
        args.push(metadata);
        call("torch._utils", function, &args)
    };
    let ordered = |entries: &[Vec<u8>]| call("collections", "OrderedDict", &[list(entries)]);
    for function in ["_rebuild_tensor_v2", "_rebuild_tensor_v3"] {
        for bit in [b"\x88".to_vec(), b"\x89".to_vec(), int(1)] {
            let pair = list(&[text("neg"), bit.clone()]);
            refusal(with(function, ordered(&[pair][..])));
            refusal(with(function, dict(&[("neg", bit)])));
        }
        refusal(with(function, text("neg")));
        for metadata in [none(), dict(&[]), ordered(&[])] {
            plain(with(function, metadata));
        }
    }
}

#[test]
fn a_storage_of_two_types_is_refused_for_all_its_tensors() {
    let whole = |class: &str| rebuilt(storage(class, "0", 8), 0, &[8], &[1]);
    let popped = [storage("IntStorage", "0", 8), b"0".to_vec()].concat();
    for (first, second) in [
        ("FloatStorage", "IntStorage"),
        ("QInt8Storage", "FloatStorage"),
    ] {
        let state = dict(&[("a", whole(first)), ("b", whole(second))]);
        let file = open(&saved(state, &[("0", &EIGHT)])).unwrap();
        let found = file.tensors(&|_| true).unwrap();
        assert!(found.iter().all(|(_, value)| value.is_err()));
    }
    let hidden = [popped, whole("FloatStorage")].concat();
    assert!(refusal(hidden).contains("two types"));
    let twice = dict(&[("a", whole("FloatStorage")), ("b", whole("FloatStorage"))]);
    let found = open(&saved(twice, &[("0", &EIGHT)])).unwrap();
    assert!(
        found
            .tensors(&|_| true)
            .unwrap()
            .iter()
            .all(|(_, value)| value.is_ok())
    );
}

#[test]
fn a_tensor_that_would_be_cast_is_refused_through_every_wrapper() {
    let moved = |inner: Vec<u8>, dtype: &str| {
        let args = [inner, global("torch", dtype), text("xla"), b"\x89".to_vec()];
        call(
            "torch._utils",
            "_rebuild_device_tensor_from_cpu_tensor",
            &args,
        )
    };
    let parameter = |inner| {
        call(
            "torch._utils",
            "_rebuild_parameter",
            &[inner, none(), none()],
        )
    };
    let inner = rebuilt(floats(), 0, &[8], &[1]);
    let args = [
        floats(),
        int(0),
        sizes(&[8]),
        sizes(&[1]),
        none(),
        none(),
        global("torch", "int32"),
    ];
    let integers = call("torch._utils", "_rebuild_tensor_v3", &args);
    plain(moved(parameter(inner.clone()), "float32"));
    plain(moved(integers.clone(), "int32"));
    refusal(moved(parameter(inner.clone()), "float64"));
    refusal(parameter(moved(inner, "float64")));
    refusal(moved(integers, "float32"));
}

#[test]
fn tensors_without_a_storage_are_refused_by_name() {
    for class in ["Tensor", "FloatTensor"] {
        let error = refusal(call("torch", class, &[list(&[int(1)])]));
        assert!(error.contains(class), "{error}");
    }
}

#[test]
fn a_parameter_takes_no_state() {
    let inner = rebuilt(floats(), 0, &[8], &[1]);
    let parameter = call("torch.nn.parameter", "Parameter", &[inner]);
    let built = [
        parameter,
        tuple(&[floats(), int(1), sizes(&[1]), sizes(&[1])]),
        b"b".to_vec(),
    ];
    assert!(open(&saved(built.concat(), &[("0", &EIGHT)])).is_err());
}

#[test]
fn the_last_of_equal_keys_counts_and_keys_that_make_one_name_are_refused() {
    let w = |count: i64| rebuilt(floats(), 0, &[count], &[1]);
    let read = |object| {
        let file = open(&saved(object, &[("0", &EIGHT)])).unwrap();
        file.tensors(&|_| true).unwrap()
    };
    for keys in [[text("w"), text("w")], [int(1), b"\x88".to_vec()]] {
        let [first, second] = keys;
        let found = read(table(&[(first, w(1)), (second, w(2))]));
        let [(_, Ok(Value::Plain(only)))] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(only.shape().dims(), [2]);
    }
    let dotted = table(&[(text("a.b"), w(1)), (text("a"), dict(&[("b", w(2))]))]);
    for object in [table(&[(int(5), w(1)), (text("5"), w(2))]), dotted] {
        let found = read(object);
        assert_eq!(found.len(), 2);
        assert!(
            found[1]
                .1
                .as_ref()
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
}

#[test]
fn a_tensor_under_a_key_that_makes_no_name_is_refused() {
    let w = || rebuilt(floats(), 0, &[1], &[1]);
    let half = [b"G".to_vec(), 1.5f64.to_be_bytes().to_vec()].concat();
    for key in [
        b"N".to_vec(),
        b"\x88".to_vec(),
        tuple(&[int(1), int(2)]),
        half,
    ] {
        let inner = table(&[(text("w"), w())]);
        for (value, beside) in [(w(), text("a")), (inner, text("b"))] {
            let object = table(&[(key.clone(), value), (beside, w())]);
            let file = open(&saved(object, &[("0", &EIGHT)])).unwrap();
            let found = file.tensors(&|_| true).unwrap();
            let [(_, Err(error)), (_, Ok(_))] = &found[..] else {
                panic!("{found:?}");
            };
            assert!(error.to_string().contains("makes no name"), "{error}");
        }
        let harmless = table(&[(key, int(3)), (text("w"), w())]);
        let file = open(&saved(harmless, &[("0", &EIGHT)])).unwrap();
        assert!(matches!(
            &file.tensors(&|_| true).unwrap()[..],
            [(_, Ok(_))]
        ));
    }
}

#[test]
fn a_set_of_tensors_is_refused() {
    let set = call(
        "builtins",
        "set",
        &[list(&[rebuilt(floats(), 0, &[8], &[1])])],
    );
    assert!(refusal(set).contains("class set"));
}

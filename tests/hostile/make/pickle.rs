//! Pickles of protocol 2, put together from values that are opcodes already.

pub type Value = Vec<u8>;

pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

pub fn text(text: &str) -> Value {
    [
        &b"X"[..],
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

pub fn int(number: i64) -> Value {
    [&b"\x8a\x08"[..], &number.to_le_bytes()].concat()
}

pub fn boolean(is_true: bool) -> Value {
    vec![if is_true { 0x88 } else { 0x89 }]
}

pub fn none() -> Value {
    b"N".to_vec()
}

pub fn global(module: &str, name: &str) -> Value {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn tuple(items: &[Value]) -> Value {
    [b"(", &*items.concat(), b"t"].concat()
}

pub fn list(items: &[Value]) -> Value {
    [b"](", &*items.concat(), b"e"].concat()
}

pub fn ints(numbers: &[i64]) -> Value {
    tuple(
        &numbers
            .iter()
            .map(|number| int(*number))
            .collect::<Vec<_>>(),
    )
}

pub fn pairs(items: &[(Value, Value)]) -> Value {
    let items: Vec<u8> = items
        .iter()
        .flat_map(|(key, value)| [&**key, value].concat())
        .collect();
    [b"}(", &*items, b"u"].concat()
}

pub fn dict(items: &[(&str, Value)]) -> Value {
    pairs(
        &items
            .iter()
            .map(|(key, value)| (text(key), value.clone()))
            .collect::<Vec<_>>(),
    )
}

/// `callable(*args)`.
pub fn call(callable: Value, args: &[Value]) -> Value {
    [callable, tuple(args), b"R".to_vec()].concat()
}

/// An instance of a class whose `__dict__` or state is `state`.
pub fn object(module: &str, class: &str, state: &[u8]) -> Value {
    [&*global(module, class), b")\x81", state, b"b"].concat()
}

/// The value that `id` stands for outside of the pickle.
pub fn persistent(id: Value) -> Value {
    [id, b"Q".to_vec()].concat()
}

/// A storage of `count` floats.
pub fn floats(key: &str, count: i64) -> Value {
    let class = global("torch", "FloatStorage");
    persistent(tuple(&[
        text("storage"),
        class,
        text(key),
        text("cpu"),
        int(count),
    ]))
}

/// The call that makes a tensor of a storage.
pub fn tensor(storage: Value, offset: i64, size: &[i64], stride: &[i64]) -> Value {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let args = [
        storage,
        int(offset),
        ints(size),
        ints(stride),
        boolean(false),
        hooks,
    ];
    call(global("torch._utils", "_rebuild_tensor_v2"), &args)
}

/// Four floats of storage 0.
pub fn small() -> Value {
    tensor(floats("0", 4), 0, &[4], &[1])
}

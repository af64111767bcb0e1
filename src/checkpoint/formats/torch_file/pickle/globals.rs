//! Which classes and functions a pickle may name. Nothing is ever called; the rule is one more fence.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Top-level module names of Python's standard library, 2.7 to 3.14 (`sys.stdlib_module_names`).
static STANDARD_LIBRARY: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("standard_library.txt")
        .split_whitespace()
        .collect()
});

/// What the files of training systems name from the standard library. No names means all names of the module, but none
/// behind a dot: `os.system` is a name of whatever module imports `os`.
const HARMLESS: &[(&str, &[&str])] = &[
    ("__builtin__", BUILTINS),
    ("builtins", BUILTINS),
    ("_codecs", &["encode"]),
    ("_io", &["BytesIO", "StringIO"]),
    ("io", &["BytesIO", "StringIO"]),
    ("argparse", &["Namespace"]),
    ("array", &["array", "_array_reconstructor"]),
    (
        "collections",
        &[
            "ChainMap",
            "Counter",
            "OrderedDict",
            "UserDict",
            "UserList",
            "defaultdict",
            "deque",
        ],
    ),
    ("copy_reg", COPYREG),
    ("copyreg", COPYREG),
    ("datetime", &[]),
    ("decimal", &["Decimal"]),
    ("enum", &[]),
    ("fractions", &["Fraction"]),
    ("functools", &["partial"]),
    ("itertools", &["count"]),
    ("pathlib", &[]),
    ("pathlib._local", &[]),
    ("random", &["Random"]),
    ("re", &["_compile"]),
    ("time", &["struct_time"]),
    (
        "types",
        &["MappingProxyType", "NoneType", "SimpleNamespace"],
    ),
    ("typing", &[]),
    ("uuid", &["SafeUUID", "UUID"]),
    ("zoneinfo", &["ZoneInfo", "ZoneInfo._unpickle"]),
];

const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "type",
    "unicode",
    "xrange",
];

const COPYREG: &[&str] = &["__newobj__", "__newobj_ex__", "_reconstructor"];

/// Classes whose objects are made from one sequence and are that sequence.
const SEQUENCES: [&str; 6] = ["Size", "set", "frozenset", "list", "tuple", "deque"];

/// What a class or function means to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// torch.Size, set and the like.
    Sequence,
    /// Python's `getattr`, by which old protocols name a class inside a class. Good for nothing else here.
    Getattr,
}

/// What `module.name` means, `None` if a pickle may not name it. Anything of a third-party module may be named, since it
/// stays inert, and what is known to be harmless of the standard library.
pub fn kind(module: &str, name: &str) -> Option<Kind> {
    let top = module.split('.').next().unwrap_or(module);
    let plain = if SEQUENCES.contains(&name) {
        Kind::Sequence
    } else {
        Kind::Plain
    };
    if !STANDARD_LIBRARY.contains(top) {
        return Some(plain);
    }
    if matches!((module, name), ("builtins" | "__builtin__", "getattr")) {
        return Some(Kind::Getattr);
    }
    let (_, names) = HARMLESS.iter().find(|(known, _)| *known == module)?;
    let is_any = names.is_empty() && !name.contains('.');
    (is_any || names.contains(&name)).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_library_is_closed_but_for_a_list() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("nt", "system"),
            ("subprocess", "Popen"),
            ("builtins", "eval"),
            ("builtins", "dict.get"),
            ("__builtin__", "exec"),
            ("importlib", "import_module"),
            ("pkgutil", "resolve_name"),
            ("os.path", "join"),
            ("collections.abc", "Mapping"),
            ("operator", "attrgetter"),
            ("multiprocessing.util", "spawnv_passfds"),
            ("commands", "getoutput"),
            ("functools", "reduce"),
            ("pathlib", "os.system"),
            ("runpy", "_run_code"),
            ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
        ] {
            assert!(kind(module, name).is_none(), "{module}.{name}");
        }
    }

    #[test]
    fn what_training_systems_write_is_open() {
        for (module, name) in [
            ("collections", "OrderedDict"),
            ("pathlib._local", "PosixPath"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("__main__", "Config"),
            ("typing", "Any"),
        ] {
            assert!(kind(module, name).is_some(), "{module}.{name}");
        }
    }
}

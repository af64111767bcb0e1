//! Which classes and functions a pickle may name. Nothing is ever called; the rule is one more fence.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Top-level module names of Python's standard library, 2.7 to 3.14 (`sys.stdlib_module_names`).
static STANDARD_LIBRARY: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("standard_library.txt")
        .split_whitespace()
        .collect()
});

/// Names of the standard library in files of training systems. No names means all names of the module, but none
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

/// The meaning of a class or function to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// torch.Size, list and the like: objects made from one sequence, which are that sequence.
    Sequence,
    /// set and frozenset, which have no order.
    Set,
    /// A dictionary, whose argument of this index holds entries: a dictionary or, but for a Counter, a list of pairs.
    Dictionary(usize),
    /// A function of torch that makes tensors, or a class of parameters.
    Rebuild,
    /// Python's `getattr`, by which old protocols name a class inside a class. Good for nothing else here.
    Getattr,
}

impl Kind {
    fn of(module: &str, name: &str) -> Self {
        match (module, name) {
            ("torch._utils" | "torch._tensor" | "torch.nn.parameter", _) => Self::Rebuild,
            ("torch", "Size") | ("collections", "deque") => Self::Sequence,
            ("collections", "OrderedDict" | "Counter") => Self::Dictionary(0),
            ("collections", "defaultdict") => Self::Dictionary(1),
            ("builtins" | "__builtin__", name) => match name {
                "list" | "tuple" => Self::Sequence,
                "set" | "frozenset" => Self::Set,
                "dict" => Self::Dictionary(0),
                "getattr" => Self::Getattr,
                _ => Self::Plain,
            },
            _ => Self::Plain,
        }
    }

    /// Whether values of this kind are containers that grow.
    pub fn is_container(self) -> bool {
        matches!(self, Self::Sequence | Self::Set | Self::Dictionary(_))
    }
}

/// Returns the meaning of `module.name`, `None` if a pickle may not name it. Anything of a third-party module may be named, since it
/// stays inert, and what is known to be harmless of the standard library.
pub fn kind(module: &str, name: &str) -> Option<Kind> {
    let top = module.split('.').next().unwrap_or(module);
    let own = Kind::of(module, name);
    if own == Kind::Getattr || !STANDARD_LIBRARY.contains(top) {
        return Some(own);
    }
    let (_, names) = HARMLESS.iter().find(|(known, _)| *known == module)?;
    let is_any = names.is_empty() && !name.contains('.');
    (is_any || names.contains(&name)).then_some(own)
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

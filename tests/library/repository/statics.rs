//! State belongs to a mount, never to the process: tests run in parallel without locks, and two mounts share nothing.

use super::sources;

/// Statics that change, or that are made on first use, each with the reason why it may.
const ALLOWED: [(&str, &str); 9] = [
    (
        "checkpoint/formats/torch_file/pickle/globals.rs: static STANDARD_LIBRARY",
        "a constant of the program, as a set",
    ),
    (
        "main.rs: static IGNORES_PIPE",
        "the state that the process was started in, looked at before main",
    ),
    (
        "mapping/tables.rs: static EMBEDDED",
        "the tables of the program, parsed once",
    ),
    // A URL stands in the place of a path, which carries no connection: those belong to the process, as its credentials do.
    (
        "source/remote/bucket.rs: static CONNECTED",
        "connections by the address of their store",
    ),
    (
        "source/remote/cache.rs: static CACHE",
        "blocks of all objects under one limit of memory",
    ),
    (
        "source/remote/file.rs: static NEXT",
        "numbers of objects, by which blocks are told apart",
    ),
    (
        "source/remote/patience.rs: static BUDGET",
        "an option of the process, set before anything is read",
    ),
    (
        "source/remote/runtime.rs: static RUNTIME",
        "the threads of connections",
    ),
    (
        "source/remote/secrets.rs: static KEPT",
        "passwords and queries of URLs, kept apart from paths",
    ),
];

/// The words of a type whose value can change behind a shared reference.
const CHANGING: [&str; 9] = [
    "Atomic",
    "Cell<",
    "Lock<",
    "Mutex",
    "Once",
    "Queue",
    "thread_local",
    "mut ",
    "Condvar",
];

/// Returns the statics in a text whose values can change.
fn changing(text: &str) -> Vec<String> {
    let statics = text.split('\n').map(str::trim).filter(|line| {
        let line = line
            .trim_start_matches("pub ")
            .trim_start_matches("pub(super) ");
        line.starts_with("static ") || line.starts_with("thread_local!")
    });
    let changes = statics.filter(|line| CHANGING.iter().any(|word| line.contains(word)));
    let name = |line: &str| line.split(':').next().unwrap_or(line).to_owned();
    changes.map(name).collect()
}

#[test]
fn no_static_holds_state() {
    let mut found: Vec<String> = Vec::new();
    for (name, text) in sources() {
        let statics = changing(&text).into_iter();
        found.extend(statics.map(|line| format!("{name}: {line}")));
    }
    found.sort();
    let allowed = ALLOWED.map(|(line, _)| line);
    assert_eq!(found, allowed, "caches and counters belong to the mount");
}

#[test]
fn statics_that_change_are_recognised() {
    for line in [
        "static NEXT: AtomicU64 = AtomicU64::new(0);",
        "    static POOL: LazyLock<Pool> = LazyLock::new(Pool::new);",
        "pub static CACHE: Mutex<Cache> = Mutex::new(Cache::new());",
        "thread_local! {",
        "static mut COUNT: u32 = 0;",
    ] {
        assert_eq!(changing(line).len(), 1, "{line}");
    }
    assert!(changing("static EMBEDDED: Dir = include_dir!(\"tables\");").is_empty());
}

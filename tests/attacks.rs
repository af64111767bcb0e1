//! The attack files that public projects test with, made again with payloads that would leave a file behind: each is
//! refused or inert, and none is executed. `cargo test --test attacks -- --nocapture` prints them all.
//!
//! The safetensors project's `attacks/` and the headers of its unit tests; the pickles and archives of picklescan,
//! modelscan and fickling. Their code is in none of these.

#[path = "attacks/attack.rs"]
mod attack;
#[path = "attacks/broken.rs"]
mod broken;
#[path = "attacks/calls.rs"]
mod calls;
#[path = "attacks/containers.rs"]
mod containers;
#[path = "attacks/headers.rs"]
mod headers;
#[path = "attacks/hidden.rs"]
mod hidden;
#[path = "hostile/make/mod.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod make;
#[path = "attacks/pickled.rs"]
mod pickled;
#[path = "hostile/scene.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod scene;
#[path = "hostile/watch.rs"]
mod watch;

#[test]
fn no_call_of_a_scanners_corpus_is_made() {
    calls::each_in_every_protocol_and_container();
}

#[test]
fn no_hidden_call_is_made() {
    attack::all_safe(hidden::attacks());
}

#[test]
fn no_broken_or_endless_pickle_is_believed() {
    attack::all_safe(broken::attacks());
}

#[test]
fn no_archive_of_a_scanners_corpus_is_believed() {
    attack::all_safe(containers::attacks());
}

#[test]
fn no_attack_of_the_safetensors_project_works() {
    attack::all_safe(headers::attacks());
}

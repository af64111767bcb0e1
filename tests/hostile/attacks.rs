//! The attack files that public projects test with, made again with payloads that would leave a file behind: each is
//! refused or inert, and none is executed. `cargo test --test hostile attacks -- --nocapture` prints them all.
//!
//! The safetensors project's `attacks/` and the headers of its unit tests; the pickles and archives of picklescan,
//! modelscan and fickling. Their code is in none of these.

mod attack;
mod broken;
mod calls;
mod containers;
mod headers;
mod hidden;
mod pickled;

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

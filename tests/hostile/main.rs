//! A hundred bad inputs, each with its safe answer. `cargo test --test hostile -- --nocapture every_bad_input` prints them all.

#[allow(dead_code, reason = "each test uses a part")]
#[path = "../common/mod.rs"]
mod common;

#[macro_use]
mod case;
mod attacks;
mod distributed;
mod folders;
mod headers;
mod make;
mod mounted;
mod pickles;
mod runs;
mod scene;
mod side_files;
mod system;
mod tables;
mod watch;
mod zips;

#[test]
fn every_bad_input_has_its_safe_answer() {
    case::print_table(&[
        ("A", "pickles and torch.save", pickles::CASES),
        ("B", "zip containers", zips::CASES),
        ("C", "safetensors headers", headers::CASES),
        ("D", "indexes and folders", folders::CASES),
        ("E", "distributed checkpoints", distributed::CASES),
        ("F", "config and tokenizer", side_files::CASES),
        ("G", "while mounted", mounted::CASES),
        ("H", "FUSE and the system", system::CASES),
    ]);
}

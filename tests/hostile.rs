//! A hundred bad inputs, each with its safe answer. `cargo test --test hostile -- --nocapture every_bad_input` prints them all.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

#[path = "hostile/case.rs"]
#[macro_use]
mod case;
#[path = "hostile/distributed.rs"]
mod distributed;
#[path = "hostile/folders.rs"]
mod folders;
#[path = "hostile/headers.rs"]
mod headers;
#[path = "hostile/make/mod.rs"]
mod make;
#[path = "hostile/mounted.rs"]
mod mounted;
#[path = "hostile/pickles.rs"]
mod pickles;
#[path = "hostile/runs.rs"]
mod runs;
#[path = "hostile/scene.rs"]
mod scene;
#[path = "hostile/side_files.rs"]
mod side_files;
#[path = "hostile/system.rs"]
mod system;
#[path = "hostile/tables.rs"]
mod tables;
#[path = "hostile/watch.rs"]
mod watch;
#[path = "hostile/zips.rs"]
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

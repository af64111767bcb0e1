//! Laws of the library, and of the repository itself: nothing here mounts.

mod algebra;
#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod contradictions;
mod direct_io;
mod readers;
mod refusals;
mod repository;
mod states;
mod targets;
mod views;

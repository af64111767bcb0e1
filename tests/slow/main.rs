//! Load and memory: each of these tests runs for a minute or more.

#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod load;
mod memory;

//! The program as its users meet it: every test runs it, nearly all on a real mount.

mod commands;
#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../common/mod.rs"]
mod common;
mod computed;
mod faults;
mod limits;
mod mount;
mod mounter;
mod places;
mod remote;
mod runs;
mod sessions;

//! The subcommands beside mount, as their users meet them: every test runs the program itself.

#[allow(dead_code)]
mod common;

#[path = "commands/exec.rs"]
mod exec;
#[path = "commands/export.rs"]
mod export;
#[path = "commands/reflink.rs"]
mod reflink;

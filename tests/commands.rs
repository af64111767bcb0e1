//! The subcommands beside mount, as their users meet them: every test runs the program itself.

#[allow(dead_code)]
mod common;

#[path = "commands/exec.rs"]
mod exec;
#[path = "commands/export.rs"]
mod export;
#[path = "commands/export_meanwhile.rs"]
mod export_meanwhile;
#[path = "commands/helper.rs"]
mod helper;
#[path = "commands/inherited.rs"]
mod inherited;
#[path = "commands/inspect.rs"]
mod inspect;
#[path = "commands/log.rs"]
mod log;
#[path = "commands/newcomers.rs"]
mod newcomers;
#[path = "commands/npy.rs"]
mod npy;
#[path = "commands/reference.rs"]
mod reference;
#[path = "commands/reflink.rs"]
mod reflink;
#[path = "commands/status.rs"]
mod status;
#[path = "commands/surroundings.rs"]
mod surroundings;
#[path = "commands/troubleshooting.rs"]
mod troubleshooting;
#[path = "commands/unwritable.rs"]
mod unwritable;
#[path = "commands/verify.rs"]
mod verify;

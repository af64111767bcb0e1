//! The subcommands beside mount, as their users meet them: every test runs the program itself.

mod config_from;
mod diff;
mod exec;
mod export;
mod export_meanwhile;
mod helper;
mod inherited;
mod inspect;
mod log;
mod manners;
mod mount_log;
mod newcomers;
mod npy;
mod reference;
mod reflink;
mod status;
mod surroundings;
mod troubleshooting;
mod unanswered;
mod unwritable;
mod variables;
mod verify;

//! The command `ckptfs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ckptfs::cli::run()
}

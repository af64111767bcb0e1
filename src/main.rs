//! The command `ckptfs`.

fn main() {}

//! Any bytes are a pickle or an error.
#![no_main]

use std::path::Path;

use ckptfs::checkpoint::formats::torch_file::pickle::Pickle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    Pickle::parse(Path::new("fuzz"), bytes.to_vec(), 1 << 16).ok();
    Pickle::first(bytes, 1 << 16).ok();
});

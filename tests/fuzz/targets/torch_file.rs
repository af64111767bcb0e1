//! Any bytes in the place of `pytorch_model.bin`.
#![no_main]

mod opened;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opened::check("pytorch_model.bin", bytes));

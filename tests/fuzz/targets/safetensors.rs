//! Any bytes in the place of `model.safetensors`.
#![no_main]

mod opened;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opened::check("model.safetensors", bytes));

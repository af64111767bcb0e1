//! Any bytes in the place of `pytorch_model.bin` give a view, every byte of which can be read or refused, or an error.
#![no_main]

use std::fs;

use ckptfs::read::read_at;
use ckptfs::view::{Options, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(
        folder.path().join("config.json"),
        r#"{"model_type":"free"}"#,
    )
    .unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), bytes).unwrap();
    let Ok(view) = View::open(folder.path(), &Options::default()) else {
        return;
    };
    for file in view.files {
        let mut buffer = vec![0; file.size().min(1 << 20) as usize];
        read_at(&file, 0, &mut buffer).ok();
    }
});

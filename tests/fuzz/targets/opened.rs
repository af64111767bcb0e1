//! A checkpoint of one file, opened and read as far as it lets itself be.

use std::fs;

use ckptfs::read::read_at;
use ckptfs::view::{Options, View};

/// Puts `bytes` in the place of the file `name`. Either there is a view, every byte of which can be read or refused, or an
/// error.
pub fn check(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let config = r#"{"model_type":"free"}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    let Ok(view) = View::open(folder.path(), &Options::default()) else {
        return;
    };
    for file in view.files {
        let mut buffer = vec![0; file.size().min(1 << 20) as usize];
        read_at(&file, 0, &mut buffer).ok();
    }
}

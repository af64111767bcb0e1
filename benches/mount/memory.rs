//! Memory that is in use before a pass, and given back page by page.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::path::Path;

use super::mounted::field;

/// Free memory that is left, about as much as the kernel keeps free by itself.
const FREE: u64 = 768 << 20;

/// Reads holes of a sparse file, which cost no disk, until the page cache holds all but that.
pub fn fill(dir: &Path) {
    let path = dir.join("ballast");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).expect("a sparse file");
    file.set_len(amount("MemTotal:") * 2).expect("its size");
    let mut buffer = vec![0; 16 << 20];
    while amount("MemFree:") > FREE && file.read(&mut buffer).expect("holes") > 0 {}
}

fn amount(name: &str) -> u64 {
    field(&fs::read_to_string("/proc/meminfo").expect("meminfo"), name) << 10
}

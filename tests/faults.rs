//! Sources that fail or change under readers: every read is the old bytes or an error, and nothing else suffers.

mod common;

#[path = "faulty/changing.rs"]
mod changing;
#[path = "faulty/disk.rs"]
mod disk;
#[path = "faulty/reads.rs"]
mod reads;

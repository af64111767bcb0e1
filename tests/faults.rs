//! Sources that fail or change under readers: every read is the old bytes or an error, and nothing else suffers.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

#[path = "faulty/changing.rs"]
mod changing;
#[path = "faulty/disk.rs"]
mod disk;
mod naive;
#[path = "faulty/plans.rs"]
mod plans;
#[path = "faulty/reads.rs"]
mod reads;

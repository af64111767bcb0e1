//! Sources that fail or change under readers: every read is the old bytes or an error, and nothing else suffers.

mod changing;
mod disk;
mod plans;
mod reads;

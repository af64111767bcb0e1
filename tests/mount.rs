//! The mount as its users meet it: every test works on a real one.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

#[path = "mount/command.rs"]
mod command;
#[path = "mount/failing.rs"]
mod failing;
#[path = "mount/life.rs"]
mod life;
#[path = "mount/listing.rs"]
mod listing;
#[path = "mount/others.rs"]
mod others;
#[path = "mount/passthrough.rs"]
mod passthrough;
#[path = "mount/posix.rs"]
mod posix;
#[path = "mount/reading.rs"]
mod reading;
#[path = "mount/writing.rs"]
mod writing;

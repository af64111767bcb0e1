//! A whole run as its users meet it: every test works on a real mount of real checkpoints.

#[allow(dead_code, reason = "each test uses a part")]
mod common;

#[path = "runs/changing.rs"]
mod changing;
#[path = "runs/circles.rs"]
mod circles;
#[path = "runs/copied.rs"]
mod copied;
#[path = "runs/failing.rs"]
mod failing;
#[path = "runs/files.rs"]
mod files;
#[path = "runs/forgetting.rs"]
mod forgetting;
#[path = "runs/listing.rs"]
mod listing;
#[path = "runs/many.rs"]
mod many;
#[path = "runs/memory.rs"]
mod memory;
#[path = "runs/pinned.rs"]
mod pinned;
#[path = "runs/rewritten.rs"]
mod rewritten;
#[path = "runs/scene.rs"]
mod scene;
#[path = "runs/shapes.rs"]
mod shapes;

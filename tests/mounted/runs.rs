//! A whole run as its users meet it: every test works on a real mount of real checkpoints.

mod changing;
mod circles;
mod copied;
mod failing;
mod files;
mod forgetting;
mod listing;
mod many;
mod memory;
mod pinned;
mod rewritten;
mod scene;
mod shapes;

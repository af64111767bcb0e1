//! Laws of the source tree: its rooms, its licences, its promises and its unsafe blocks.

mod floors;
mod licences;
mod promises;
mod unsafe_blocks;

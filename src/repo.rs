//! The synthetic directory: which files it shows, their exact sizes, and what each is made of.

mod file;

pub use file::{Attributes, Segment, VirtualFile};

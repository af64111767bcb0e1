//! Names that can be written: tables run backwards, and the files of torch's formats.

#[path = "targets/backward.rs"]
mod backward;
#[path = "targets/files.rs"]
mod files;

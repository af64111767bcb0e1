//! Names that can be written: tables run backwards, and the files of torch's formats.

mod backward;
mod files;

//! Pickles of every protocol, in the zip of a checkpoint.

use super::attack::{SHELL, weights};
use crate::make::pickle::{Value, dict, global, pickle, small, text};
use crate::make::zip::Zip;
use crate::scene::Scene;

pub const INERT: &[&str] = &["nothing was executed"];
/// An opcode that is refused wherever it stands.
pub const UNNEEDED: &[&str] = &["which no checkpoint needs"];

/// `value` beside a weight, in the zip of a checkpoint.
pub fn beside(value: Value) -> Scene {
    framed(&pickle(&dict(&[("x", value), ("w", small())])))
}

pub fn framed(pickle: &[u8]) -> Scene {
    weights(&Zip::of_pickle(pickle).bytes())
}

/// A pickle of protocol 4 or 5 without its frame.
pub fn modern(parts: &[&[u8]]) -> Scene {
    framed(&[b"\x80\x04", &*parts.concat(), b"."].concat())
}

/// `SHORT_BINUNICODE`.
pub fn short(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

/// `STACK_GLOBAL` of two short texts.
pub fn named(module: &str, name: &str) -> Vec<u8> {
    [short(module), short(name), b"\x93".to_vec()].concat()
}

pub fn system() -> Vec<u8> {
    [global("os", "system"), text(SHELL), b"\x85R".to_vec()].concat()
}

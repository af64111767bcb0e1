//! Pickles that break off behind their call, grow out of all measure, or lie about their frames.

use super::attack::{Attack, inert, refuses, weights};
use super::pickled::*;
use crate::make::pickle::{Value, text};
use crate::scene::Scene;

pub fn attacks() -> Vec<Attack> {
    [broken(), costly(), frames()]
        .into_iter()
        .flatten()
        .collect()
}

/// `levels` lists, each of ten times the one before.
fn laughs(level: impl Fn(u8) -> Vec<u8>, levels: u8) -> Value {
    let marks = vec![b'('; usize::from(levels)];
    [marks, text("lol"), (0..levels).flat_map(level).collect()].concat()
}

/// A frame that claims to be shorter than the opcode in it.
fn straddle(body: &[u8], claimed: u64) -> Scene {
    framed(&[b"\x80\x05\x95", &claimed.to_le_bytes()[..], body, b"."].concat())
}

/// The call comes first, and then something that makes a scanner stop.
fn broken() -> Vec<Attack> {
    let call = system();
    vec![
        refuses(
            "picklescan: broken_model",
            framed(b"\x80\x02cbuiltins\nexec\n(X\x9e\x20\x66\x20touch ../canary"),
            INERT,
        ),
        refuses(
            "picklescan: malicious-invalid-bytes",
            modern(&[&call, b"0V\xff\xfe\n"]),
            INERT,
        ),
        refuses(
            "picklescan: keyerror-exploit, a memo that is not there",
            modern(&[&call, b"0", &short("os"), b"h\x03h\0\x93K\x42"]),
            INERT,
        ),
        refuses(
            "picklescan: type-confusion-exploit, a number as module",
            modern(&[
                &call,
                b"0J\x2a\0\0\0\x94",
                &short("os"),
                b"\x94h\0h\x01\x93K\x42",
            ]),
            INERT,
        ),
        refuses(
            "picklescan: not_a_pickle",
            weights(b"\x80\x02\xf8\x00abc"),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: test_missing_mark_before_tuple",
            modern(&[b"t"]),
            &["byte"],
        ),
        refuses(
            "fickling: test_cyclic_pickle, a list",
            beside(b"]\x94h\0a".to_vec()),
            &["nests lists deeper than 64"],
        ),
        refuses(
            "fickling: test_cyclic_pickle, a dict",
            beside(b"}\x94X\x04\0\0\0selfh\0s".to_vec()),
            &["nests lists deeper than 64"],
        ),
        inert(
            "fickling: test_impossible_cyclic_pickle, a dict as its own key",
            beside(b"}\x94h\0K\x01s".to_vec()),
            &["\"w\""],
        ),
        inert(
            "fickling: test_impossible_cyclic_pickle, a set in itself",
            beside(b"\x8f\x94(h\0\x90".to_vec()),
            &["\"w\""],
        ),
    ]
}

/// Small files that would become large values.
fn costly() -> Vec<Attack> {
    let duplicated = |_| [vec![b'2'; 9], b"l".to_vec()].concat();
    let repeated = |level: u8| [vec![b'q', level], [b'h', level].repeat(9), b"l".to_vec()].concat();
    let gets = [&b"]\x94"[..], &b"h\0a".repeat(200)].concat();
    vec![
        refuses(
            "fickling: globalLaughs, a billion by DUP",
            beside(laughs(duplicated, 9)),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: billionLaughsAlt, ten billion by the memo",
            beside(laughs(repeated, 10)),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: test_memo_expansion_detection",
            beside(gets),
            &["nests lists deeper than 64"],
        ),
        inert(
            "fickling: test_dup_expansion_detection",
            beside([b"]".to_vec(), vec![b'2'; 150]].concat()),
            &["\"w\""],
        ),
        inert(
            "fickling: test_memo_size_limit_enforcement",
            beside([b"]".to_vec(), vec![0x94; 1000]].concat()),
            &["\"w\""],
        ),
    ]
}

/// Frames that end where the pickle does not.
fn frames() -> Vec<Attack> {
    let hidden = [
        b"\x07\x01\0\0\0\0".to_vec(),
        system(),
        vec![b'N'; 220],
        b"1".to_vec(),
    ]
    .concat();
    vec![
        refuses(
            "fickling: test_frame_boundary_divergence",
            straddle(&[b"B", &*hidden].concat(), 2),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: straddle, BINBYTES",
            straddle(&[b"B\x14\0\0\0", &[b'A'; 20][..]].concat(), 5),
            &["holds no weights"],
        ),
        refuses(
            "fickling: straddle, SHORT_BINUNICODE",
            straddle(&short(&"A".repeat(20)), 3),
            &["holds no weights"],
        ),
        refuses(
            "fickling: straddle, GLOBAL module",
            straddle(b"cmacos\nsystem\n", 4),
            &["holds no weights"],
        ),
        refuses(
            "fickling: straddle, GLOBAL attribute",
            straddle(b"cos\nsystem\n", 7),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: straddle, UNICODE",
            straddle(b"Vhello world\n", 5),
            &["pytorch_model.bin"],
        ),
        refuses(
            "fickling: straddle, BININT",
            straddle(b"J\x07\0\0\0", 2),
            &["holds no weights"],
        ),
        refuses(
            "fickling: a frame inside a frame",
            straddle(b"N\x95\x02\0\0\0\0\0\0\0N", 30),
            &["pytorch_model.bin"],
        ),
    ]
}

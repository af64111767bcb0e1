//! The opcodes of Python pickles, protocols 0 to 5 (CPython 3.13, `Lib/pickletools.py`).

/// Opcodes that the machine runs.
macro_rules! opcodes {
    ($($name:ident = $code:literal,)*) => { $(pub const $name: u8 = $code;)* };
}

opcodes! {
    PROTO = 0x80,
    FRAME = 0x95,
    STOP = b'.',
    MARK = b'(',
    POP = b'0',
    POP_MARK = b'1',
    DUP = b'2',
    NONE = b'N',
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    BININT = b'J',
    BININT1 = b'K',
    BININT2 = b'M',
    LONG1 = 0x8a,
    LONG4 = 0x8b,
    BINFLOAT = b'G',
    BINSTRING = b'T',
    SHORT_BINSTRING = b'U',
    BINUNICODE = b'X',
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE8 = 0x8d,
    BINBYTES = b'B',
    SHORT_BINBYTES = b'C',
    BINBYTES8 = 0x8e,
    BYTEARRAY8 = 0x96,
    EMPTY_TUPLE = b')',
    TUPLE = b't',
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    EMPTY_LIST = b']',
    APPEND = b'a',
    APPENDS = b'e',
    EMPTY_DICT = b'}',
    SETITEM = b's',
    SETITEMS = b'u',
    EMPTY_SET = 0x8f,
    ADDITEMS = 0x90,
    FROZENSET = 0x91,
    BINPUT = b'q',
    LONG_BINPUT = b'r',
    MEMOIZE = 0x94,
    BINGET = b'h',
    LONG_BINGET = b'j',
    GLOBAL = b'c',
    STACK_GLOBAL = 0x93,
    REDUCE = b'R',
    NEWOBJ = 0x81,
    BUILD = b'b',
    BINPERSID = b'Q',
}

/// Opcodes that no checkpoint needs, by name.
const REFUSED: &[(u8, &str)] = &[
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'S', "STRING"),
    (b'V', "UNICODE"),
    (b'F', "FLOAT"),
    (b'l', "LIST"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'p', "PUT"),
    (b'P', "PERSID"),
    (b'i', "INST"),
    (b'o', "OBJ"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x92, "NEWOBJ_EX"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

/// Why the machine does not run `opcode`.
pub fn refusal(opcode: u8) -> String {
    match REFUSED.iter().find(|(code, _)| *code == opcode) {
        Some((_, name)) => format!("opcode {name}, which no checkpoint needs"),
        None => format!("unknown opcode 0x{opcode:02x}"),
    }
}

//! The one rule for how bytes come from a file into memory.
//!
//! | the ranges lie | route |
//! |---|---|
//! | where the filesystem has no direct I/O, the file is slow, or a part is in the page cache already | buffered |
//! | in rows, about every other one, of a reply of some size, such as the heads of a tensor in rotary order | windowed |
//! | one after the other, and long enough to be worth a read of their own | direct |
//! | else: short, and for a reply of several stretches or files | buffered: the kernel reads ahead |

use super::direct_io::DirectBuffer;

/// The way from a file into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// By direct I/O, past the page cache.
    Direct,
    /// By direct I/O in whole windows, which are kept for the replies that need the other rows.
    Windowed,
    /// Through the page cache.
    Buffered,
}

/// Ranges of one file that lie near each other, and the reply that they are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Whether direct I/O can be used, and nothing of the ranges is in the page cache.
    pub can_bypass: bool,
    pub ranges: u64,
    /// Bytes of the ranges.
    pub bytes: u64,
    /// Bytes from the start of the first to the end of the last.
    pub length: u64,
    /// Bytes of the whole reply.
    pub reply: u64,
    /// Files that the reply comes from.
    pub files: usize,
    /// Stretches of this file that the reply comes from.
    pub stretches: usize,
}

/// Ranges that are at least so long, or so far apart, are read each by itself.
pub(super) const LONG: u64 = 64 << 10;

/// The same where a reply has several files, whose parts follow each other closely.
const LONG_OF_SEVERAL: u64 = 3 * LONG;

/// A shorter reply reads less than windows would.
const SHORT_REPLY: u64 = DirectBuffer::MAX_LENGTH / 4;

pub(super) fn route(facts: &Facts) -> Route {
    let Facts { bytes, length, .. } = *facts;
    let are_rows = bytes < facts.ranges * LONG;
    let is_about_half = bytes < length && length < 3 * bytes;
    let shortest = match (facts.files, facts.stretches) {
        (2.., _) => LONG_OF_SEVERAL,
        (_, 2..) => LONG,
        _ => 0,
    };
    match facts.can_bypass {
        true if are_rows && is_about_half && facts.reply > SHORT_REPLY => Route::Windowed,
        true if length >= shortest => Route::Direct,
        _ => Route::Buffered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const ONE: Facts = Facts {
        can_bypass: true,
        ranges: 1,
        bytes: 512 * KIB,
        length: 512 * KIB,
        reply: 512 * KIB,
        files: 1,
        stretches: 1,
    };

    #[test]
    fn the_table_of_routes() {
        let of = |bytes, length| Facts {
            bytes: bytes * KIB,
            length: length * KIB,
            ..ONE
        };
        let rows = |bytes, length| Facts {
            ranges: 64,
            ..of(bytes, length)
        };
        let stretches = |bytes| Facts {
            stretches: 2,
            ..of(bytes, bytes)
        };
        let files = |bytes| Facts {
            files: 2,
            ..of(bytes, bytes)
        };
        let cases = [
            ("a whole reply", ONE, Route::Direct),
            ("a short one", of(4, 4), Route::Direct),
            ("one of several stretches", stretches(64), Route::Direct),
            ("a short one of them", stretches(63), Route::Buffered),
            ("one of several files", files(192), Route::Direct),
            ("a short one of them", files(191), Route::Buffered),
            ("every other row", rows(512, 1023), Route::Windowed),
            ("every row", rows(512, 512), Route::Direct),
            ("every third row", rows(512, 1536), Route::Direct),
            ("every other of 64 KiB", rows(4096, 8000), Route::Direct),
        ];
        for (name, facts, wanted) in cases {
            assert_eq!(route(&facts), wanted, "{name}");
            let can_bypass = false;
            let resident = Facts {
                can_bypass,
                ..facts
            };
            assert_eq!(route(&resident), Route::Buffered, "{name}");
        }
        let short_reply = Facts {
            reply: SHORT_REPLY,
            stretches: 64,
            ..rows(32, 63)
        };
        assert_eq!(route(&short_reply), Route::Buffered);
    }
}

//! Attributes of the tree's files in FUSE's form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use super::{Kind, Stat};

/// Unit of `st_blocks`.
pub const BLOCK: u32 = 512;

/// Size of one read that costs least: the largest request of the kernel.
pub const BEST_READ: u32 = 1 << 20;

pub fn of(stat: &Stat) -> FileAttr {
    let modified = time(stat.attributes.modified);
    FileAttr {
        ino: INodeNo(stat.inode),
        size: stat.size,
        blocks: stat.size.div_ceil(u64::from(BLOCK)),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: kind(stat.kind),
        perm: stat.attributes.mode,
        nlink: stat.links,
        uid: stat.attributes.uid,
        gid: stat.attributes.gid,
        rdev: 0,
        blksize: BEST_READ,
        flags: 0,
    }
}

pub fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

/// A time out of the clock's range becomes the epoch.
fn time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let part = Duration::from_nanos(nanoseconds.unsigned_abs());
    base.and_then(|base| base.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_on_both_sides_of_the_epoch() {
        assert_eq!(time((1, 5)), UNIX_EPOCH + Duration::new(1, 5));
        assert_eq!(
            time((-2, 500_000_000)),
            UNIX_EPOCH - Duration::from_millis(1500)
        );
        assert_eq!(
            time((i64::MIN, 0)),
            UNIX_EPOCH - Duration::from_secs(1 << 63)
        );
    }
}

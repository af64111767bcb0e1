//! Inodes of a run: the number of a slot, and an inode in it.

/// The inode of the mount for the inode `inner` of a slot.
pub fn inode_in(slot: u32, inner: u64) -> u64 {
    u64::from(slot) << 32 | inner
}

/// A slot and an inode in it. No checkpoint has as many files as an inode has numbers.
pub fn split(inode: u64) -> (u32, u64) {
    ((inode >> 32) as u32, inode & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_know_their_slot() {
        for (slot, inner) in [(0, 1), (1, 1), (7, 12_345), (u32::MAX, 2)] {
            assert_eq!(split(inode_in(slot, inner)), (slot, inner));
        }
    }
}

//! The mechanisms of reads. Builds for the ablation benchmark (feature `ablation`) can do without each of them, named in
//! `CKPTFS_WITHOUT`: docs/performance.md says what each earns.

/// A mechanism that a build for the benchmark can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// Reads by `O_DIRECT`.
    DirectIo,
    /// Direct buffers in huge pages.
    HugePages,
    /// Windows that are kept for the other rows of a stretch.
    Windows,
    /// Gaps between close ranges are read along.
    Gaps,
    /// Delivered source pages are released.
    Release,
    /// A slow file is recognised, and read ahead far.
    Pace,
    /// Readahead of the rows of transposed tensors.
    RowReadahead,
    /// Memory is kept from one read to the next.
    Spare,
}

impl Mechanism {
    #[cfg(not(feature = "ablation"))]
    pub(super) const fn is_on(self) -> bool {
        true
    }

    #[cfg(feature = "ablation")]
    pub(super) fn is_on(self) -> bool {
        let without = std::env::var("CKPTFS_WITHOUT").unwrap_or_default();
        without != format!("{self:?}")
    }
}

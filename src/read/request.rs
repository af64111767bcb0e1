//! One request to a reader: the doors to its sources and caches, and what it has touched so far.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::blocks::Blocks;
use super::factors::Factors;
use super::foresight::Foresight;
use crate::error::Result;
use crate::source::{Bytes, Caching, Fetcher, Memory, SourceFile, Touched, Wanted};

/// All that the requests of a mount share.
#[derive(Debug)]
pub(super) struct State {
    pub fetcher: Fetcher,
    pub blocks: Blocks,
    pub factors: Factors,
    pub foresight: Foresight,
}

impl State {
    /// With so many bytes for produced blocks and for inputs of kernels.
    pub fn new(cache_size: u64) -> Self {
        let factors = Factors::new(cache_size / 2);
        Self {
            fetcher: Fetcher::default(),
            blocks: Blocks::new(cache_size, factors.taken()),
            factors,
            foresight: Foresight::default(),
        }
    }
}

/// A request under way.
pub(super) struct Request<'s> {
    pub state: &'s Arc<State>,
    touched: RefCell<Touched>,
}

impl<'s> Request<'s> {
    pub fn new(state: &'s Arc<State>, caching: Caching) -> Self {
        let touched = RefCell::new(Touched::new(caching));
        Self { state, touched }
    }

    pub fn gather(&self, wanted: &mut [Wanted<'_, '_>]) -> Result<()> {
        let touched = &mut self.touched.borrow_mut();
        self.state.fetcher.gather(wanted, touched)
    }

    pub fn fetch(&self, file: &Arc<SourceFile>, range: Range<u64>) -> Result<Bytes> {
        let touched = &mut self.touched.borrow_mut();
        self.state.fetcher.fetch(file, range, touched)
    }

    pub fn lend(
        &self,
        file: &Arc<SourceFile>,
        range: Range<u64>,
        unit: u64,
        each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let touched = &mut self.touched.borrow_mut();
        self.state.fetcher.lend(file, range, unit, touched, each)
    }

    pub fn memory(&self, length: usize) -> Result<Memory> {
        self.state.fetcher.memory(length)
    }

    /// Ends the request, and returns the ranges that it touched.
    pub fn touched(self) -> Touched {
        self.touched.into_inner()
    }
}

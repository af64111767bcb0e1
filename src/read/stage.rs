//! Elements that change their type: gathered as they lie in the source, then cast.

use std::cell::Cell;
use std::ops::Range;

use super::cast::cast;
use super::room;
use super::scatter::{self, Copy};
use super::span::Span;
use crate::error::Result;
use crate::tensor::{Dtype, Nest};

thread_local! {
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A tensor's elements of one type that a reply wants as another.
pub(super) struct Stage<'a> {
    from: Dtype,
    to: Dtype,
    /// Where in the reply the wanted range of the tensor starts, in bytes.
    destination: usize,
    /// Where in that range they go, in bytes as long as they are not cast.
    copies: Vec<Copy<'a>>,
}

impl<'a> Stage<'a> {
    pub fn of(nest: &Nest<'a>, to: Dtype, destination: usize) -> Self {
        let mut copies = Vec::new();
        scatter::expand(nest, 0, &mut copies);
        Self {
            from: nest.dtype,
            to,
            destination,
            copies,
        }
    }

    /// Takes the copies of another stage if they are of the same type and range.
    pub fn takes(&mut self, other: &mut Self) -> bool {
        let is_like = (self.from, self.destination) == (other.from, other.destination);
        if is_like {
            self.copies.append(&mut other.copies);
        }
        is_like
    }

    pub fn join(&mut self) {
        scatter::join(&mut self.copies);
    }

    pub fn spans(&mut self) -> impl Iterator<Item = Span> {
        scatter::spans(&mut self.copies)
    }

    pub fn execute(self, reply: &mut [u8]) -> Result<()> {
        if let [copy] = &*self.copies
            && let Some(landed) = copy.file.read_past_cache(copy.range())?
        {
            self.cast(&landed, copy.filled(), reply);
            return Ok(());
        }
        let mut gathered = GATHERED.take();
        let result = self.execute_in(&mut gathered, reply);
        GATHERED.set(gathered);
        result
    }

    fn execute_in(&self, gathered: &mut Vec<u8>, reply: &mut [u8]) -> Result<()> {
        let ends = self.copies.iter().map(|copy| copy.filled().end);
        let gathered = room(gathered, ends.max().unwrap_or(0))?;
        scatter::execute(self.copies.clone(), gathered)?;
        for range in self.copies.iter().map(Copy::filled) {
            self.cast(&gathered[range.clone()], range, reply);
        }
        Ok(())
    }

    /// Casts what lies at a range of the gathered bytes.
    fn cast(&self, elements: &[u8], range: Range<usize>, reply: &mut [u8]) {
        let place = |at| self.destination + at / width(self.from) * width(self.to);
        let target = &mut reply[place(range.start)..place(range.end)];
        cast(self.from, elements, self.to, target);
    }
}

fn width(dtype: Dtype) -> usize {
    dtype.bytes().unwrap_or(1) as usize
}

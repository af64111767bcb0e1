//! Elements that change their type: gathered as they lie in the source, then cast.

use std::mem::take;

use super::cast::cast;
use super::scatter::{self, Copy};
use super::span::Span;
use super::{GATHERED, room};
use crate::error::Result;
use crate::source::DirectBuffer;
use crate::tensor::{Dtype, Nest};

/// Elements that follow each other are read so many bytes at a time, and cast in the processor's cache.
const PIECE: usize = 256 << 10;

/// Most that is gathered at a time.
const MOST: usize = 512 << 10;

/// A tensor's elements of one type that a reply wants as another.
pub(super) struct CastCopy<'a> {
    from: Dtype,
    to: Dtype,
    /// Where in the reply the wanted range of the tensor starts, in bytes.
    destination: usize,
    /// Where in that range they go, in bytes as long as they are not cast.
    copies: Vec<Copy<'a>>,
}

impl<'a> CastCopy<'a> {
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

    pub fn execute(mut self, reply: &mut [u8]) -> Result<()> {
        let mut copies = take(&mut self.copies);
        copies.sort_unstable_by_key(|copy| copy.destination);
        let mut gathered = GATHERED.take();
        let mut length = 0;
        let parts = copies.chunk_by(|copy, next| {
            length += copy.length;
            let fits = length + next.length <= MOST;
            if !fits {
                length = 0;
            }
            fits
        });
        let mut parts = parts.map(|part| match part {
            [copy] => self.copy(copy, &mut gathered, reply),
            _ => self.gather(part, &mut gathered, reply),
        });
        let result = parts.try_for_each(|result| result);
        GATHERED.set(gathered);
        result
    }

    fn copy(&self, copy: &Copy<'_>, gathered: &mut Vec<u8>, reply: &mut [u8]) -> Result<()> {
        for part in copy.pieces(DirectBuffer::MAX_LENGTH as usize) {
            match part.file.read_direct(part.range())? {
                Some(landed) => self.cast(&landed, part.destination, reply),
                None => self.copy_from_page_cache(&part, gathered, reply)?,
            }
        }
        Ok(())
    }

    fn copy_from_page_cache(
        &self,
        copy: &Copy<'_>,
        gathered: &mut Vec<u8>,
        reply: &mut [u8],
    ) -> Result<()> {
        for part in copy.pieces(PIECE) {
            let elements = room(gathered, part.length)?;
            part.file.read_exact_at(elements, part.source)?;
            self.cast(elements, part.destination, reply);
        }
        Ok(())
    }

    /// Copies that follow each other in the range, with gaps perhaps.
    fn gather(&self, part: &[Copy<'_>], gathered: &mut Vec<u8>, reply: &mut [u8]) -> Result<()> {
        let mut end = 0;
        let dense = part.iter().map(|copy| {
            let destination = end;
            end += copy.length;
            Copy {
                destination,
                ..*copy
            }
        });
        let dense: Vec<Copy> = dense.collect();
        let mut rest = room(gathered, end)?;
        scatter::execute(dense, rest)?;
        for copy in part {
            let (elements, behind) = rest.split_at_mut(copy.length);
            self.cast(elements, copy.destination, reply);
            rest = behind;
        }
        Ok(())
    }

    /// Casts elements that go to `destination` of the range.
    fn cast(&self, elements: &[u8], destination: usize, reply: &mut [u8]) {
        let place = |at| self.destination + at / width(self.from) * width(self.to);
        let target = &mut reply[place(destination)..place(destination + elements.len())];
        cast(self.from, elements, self.to, target);
    }
}

fn width(dtype: Dtype) -> usize {
    dtype.bytes().unwrap_or(1) as usize
}

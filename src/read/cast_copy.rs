//! Elements that change their type: gathered as they lie in the source, then cast.

use std::mem::take;

use super::cast::cast;
use super::copies::{self, Copy};
use super::request::Request;
use crate::error::Result;
use crate::tensor::{Dtype, Nest};

/// Most that is gathered at a time: it is cast in the processor's cache.
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
        copies::expand(nest, 0, &mut copies);
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
        copies::join(&mut self.copies);
    }

    pub fn execute(mut self, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        let mut copies = take(&mut self.copies);
        copies.sort_unstable_by_key(|copy| copy.destination);
        let mut length = 0;
        let mut parts = copies.chunk_by(|copy, next| {
            length += copy.length;
            let fits = length + next.length <= MOST;
            if !fits {
                length = 0;
            }
            fits
        });
        parts.try_for_each(|part| match part {
            [copy] => self.copy(copy, request, reply),
            _ => self.gather(part, request, reply),
        })
    }

    fn copy(&self, copy: &Copy<'_>, request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
        let unit = width(self.from) as u64;
        request.lend(copy.file, copy.range(), unit, &mut |start, elements| {
            self.cast(elements, copy.destination + start as usize, reply);
            Ok(())
        })
    }

    /// Copies that follow each other in the range, with gaps perhaps.
    fn gather(&self, part: &[Copy<'_>], request: &Request<'_>, reply: &mut [u8]) -> Result<()> {
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
        let mut gathered = request.memory(end)?;
        copies::execute(dense, request, &mut gathered)?;
        let mut rest = &*gathered;
        for copy in part {
            let (elements, behind) = rest.split_at(copy.length);
            self.cast(elements, copy.destination, reply);
            rest = behind;
        }
        Ok(())
    }

    /// Casts elements that go to `destination` of the range.
    fn cast(&self, elements: &[u8], destination: usize, reply: &mut [u8]) {
        let place = |at| self.destination + at / width(self.from) * width(self.to);
        let target = reply.get_mut(place(destination)..place(destination + elements.len()));
        cast(self.from, elements, self.to, target.unwrap_or_default());
    }
}

fn width(dtype: Dtype) -> usize {
    dtype.bytes().unwrap_or(1) as usize
}

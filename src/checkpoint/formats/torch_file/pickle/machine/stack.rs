//! The stack with its marks, and the memo.

use super::super::arena::{Arena, Id};
use super::super::opcode as op;
use super::super::reader::{Fault, Step, refuse};
use super::Machine;

impl Machine<'_> {
    /// Where the topmost `count` values start, none of them below the last mark.
    pub(super) fn top(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(start),
            _ => refuse("takes more values than there are"),
        }
    }

    pub(super) fn pop(&mut self) -> Step<Id> {
        self.top(1)?;
        self.stack.pop().ok_or(Fault::Truncated)
    }

    pub(super) fn peek(&self) -> Step<Id> {
        let start = self.top(1)?;
        self.stack.get(start).copied().ok_or(Fault::Truncated)
    }

    pub(super) fn unmark(&mut self) -> Step<usize> {
        match self.marks.pop() {
            Some(start) => Ok(start),
            None => refuse("a missing mark"),
        }
    }

    /// Takes everything above the last mark.
    pub(super) fn marked<T>(&mut self, take: impl FnOnce(&mut Arena, &[Id]) -> T) -> Step<T> {
        let start = self.unmark()?;
        let taken = take(&mut self.arena, self.stack.get(start..).unwrap_or(&[]));
        self.stack.truncate(start);
        Ok(taken)
    }

    pub(super) fn put(&mut self, opcode: u8) -> Step {
        let index = match opcode {
            op::BINPUT => usize::from(self.input.byte()?),
            op::LONG_BINPUT => self.input.uint::<4>()? as usize,
            _ => self.memo.len(),
        };
        // Picklers count from zero or one, and every value took at least a byte.
        if index > self.input.at {
            return refuse(format!("memo index {index} out of order"));
        }
        let id = self.peek()?;
        if index > self.memo.len() {
            self.memo.resize(index, Id::UNSET);
        }
        match self.memo.get_mut(index) {
            Some(slot) => *slot = id,
            None => self.memo.push(id),
        }
        Ok(())
    }

    pub(super) fn get(&mut self, opcode: u8) -> Step {
        let index = match opcode {
            op::BINGET => usize::from(self.input.byte()?),
            _ => self.input.uint::<4>()? as usize,
        };
        match self.memo.get(index) {
            Some(id) if *id != Id::UNSET => {
                self.stack.push(*id);
                Ok(())
            }
            _ => refuse(format!("memo index {index} was never set")),
        }
    }
}

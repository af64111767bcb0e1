//! Opcodes that add items to a container.

use super::super::arena::{Id, Node};
use super::super::opcode as op;
use super::super::reader::{Step, refuse};
use super::Machine;

impl Machine<'_> {
    pub(super) fn grow_by_one(&mut self, opcode: u8) -> Step {
        let start = self.top(if opcode == op::APPEND { 1 } else { 2 })?;
        self.grow(opcode, start)
    }

    pub(super) fn grow_from_mark(&mut self, opcode: u8) -> Step {
        let start = self.unmark()?;
        self.grow(opcode, start)
    }

    /// Moves the values from `start` on into the container below them.
    fn grow(&mut self, opcode: u8, start: usize) -> Step {
        let items = self.stack.get(start..).unwrap_or(&[]);
        let odd = !items.len().is_multiple_of(2);
        let below = start
            .checked_sub(1)
            .filter(|at| self.marks.last().is_none_or(|mark| at >= mark));
        let Some(container) = below.and_then(|at| self.stack.get(at)).copied() else {
            return refuse("adds items to nothing");
        };
        let grown = match (opcode, self.arena.node(container)) {
            (op::SETITEM | op::SETITEMS, _) if odd => return refuse("a key without a value"),
            (op::APPEND | op::APPENDS, Node::List(chain)) => {
                Node::List(self.arena.extended(chain, items))
            }
            (op::SETITEM | op::SETITEMS, Node::Dict(chain)) => {
                Node::Dict(self.arena.extended(chain, items))
            }
            (op::ADDITEMS, Node::Set(chain)) => Node::Set(self.arena.extended(chain, items)),
            (_, Node::Instance(index)) => self.grow_instance(opcode, index, start)?,
            _ => return refuse("adds items to something that holds none"),
        };
        if let Some(node) = self.arena.node_mut(container) {
            *node = grown;
        }
        self.stack.truncate(start);
        Ok(())
    }

    fn grow_instance(&mut self, opcode: u8, index: u32, start: usize) -> Step<Node> {
        let items = self.stack.get(start..).unwrap_or(&[]);
        let Some(mut instance) = self.arena.instance(index).copied() else {
            return refuse("adds items to nothing");
        };
        if self.is_rebuilt(instance.callable) {
            return refuse("adds items to a tensor");
        }
        match opcode {
            op::SETITEM | op::SETITEMS => {
                instance.entries = self.arena.extended(instance.entries, items)
            }
            _ => instance.items = self.arena.extended(instance.items, items),
        }
        if let Some(slot) = self.arena.instance_mut(index) {
            *slot = instance;
        }
        Ok(Node::Instance(index))
    }

    /// Whether a call makes a tensor, which is no container whatever torch's own reader lets pass (CVE-2026-24747).
    fn is_rebuilt(&self, callable: Id) -> bool {
        !matches!(self.arena.node(callable), Node::Global(_)) || self.makes_tensors(callable)
    }

    /// Whether `callable` is one of torch's functions that make tensors.
    pub(super) fn makes_tensors(&self, callable: Id) -> bool {
        let Node::Global(index) = self.arena.node(callable) else {
            return false;
        };
        let module = self
            .arena
            .global(index)
            .map_or(&b""[..], |global| self.input.bytes(global.module));
        matches!(module, b"torch._utils" | b"torch._tensor")
    }
}

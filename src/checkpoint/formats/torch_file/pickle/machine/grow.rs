//! Opcodes that add items to a container.

use super::super::arena::{Id, Node};
use super::super::globals::Kind;
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
        if self.frozen.contains(container) {
            return refuse("changes a container that a call has taken");
        }
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
        let is_dictionary = matches!(opcode, op::SETITEM | op::SETITEMS);
        match self.kind(instance.callable) {
            // A tensor is no container whatever torch's own reader lets pass (CVE-2026-24747).
            Kind::Rebuild => return refuse("adds items to a tensor"),
            Kind::Sequence | Kind::Set if is_dictionary => {
                return refuse("sets items of a list or set");
            }
            _ if !matches!(self.arena.node(instance.callable), Node::Global(_)) => {
                return refuse("adds items to a tensor");
            }
            _ => {}
        }
        match is_dictionary {
            true => instance.entries = self.arena.extended(instance.entries, items),
            false => instance.items = self.arena.extended(instance.items, items),
        }
        if let Some(slot) = self.arena.instance_mut(index) {
            *slot = instance;
        }
        Ok(Node::Instance(index))
    }

    /// The kind of a class or function.
    pub(super) fn kind(&self, callable: Id) -> Kind {
        match self.arena.node(callable) {
            Node::Global(index) => self.arena.global(index).map_or(Kind::Plain, |own| own.kind),
            _ => Kind::Plain,
        }
    }
}

//! Opcodes that name classes, call them and give states to objects. Calls are recorded; none is made.

use super::super::arena::{Global, Id, Node, Span};
use super::super::globals::{Kind, kind};
use super::super::opcode as op;
use super::super::reader::{Fault, Step, refuse};
use super::Machine;
use crate::error::UNTRUSTED;

impl Machine<'_> {
    pub(super) fn global(&mut self, opcode: u8) -> Step<Id> {
        let (module, name) = match opcode {
            op::GLOBAL => (self.input.line()?, self.input.line()?),
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.arena.node(module), self.arena.node(name)) {
                    (Node::Text(module), Node::Text(name)) => (module, name),
                    _ => return refuse("names a class by something that is no text"),
                }
            }
        };
        self.allowed(module, name, "")
    }

    /// The class or function `name`, which may be inside the class `outer`, if a pickle may name it.
    fn allowed(&mut self, module: Span, name: Span, outer: &str) -> Step<Id> {
        let Some((path, last)) = self.input.text(module).zip(self.input.text(name)) else {
            return refuse("names a class by something that is no text");
        };
        match kind(path, &format!("{outer}{last}")) {
            Some(kind) => Ok(self.arena.add_global(Global { module, name, kind })),
            None => refuse_name(path, &format!("{outer}{last}")),
        }
    }

    pub(super) fn call(&mut self, opcode: u8) -> Step<Id> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let Node::Tuple(span) = self.arena.node(args) else {
            return refuse("calls with something that is no tuple");
        };
        match self.arena.node(callable) {
            Node::Global(index) if self.is_getattr(index) => self.nested(span),
            Node::Global(index) => {
                self.take_arguments(opcode, index, span)?;
                Ok(self.arena.add_instance(callable, args))
            }
            Node::Persistent(_) => Ok(self.arena.add_instance(callable, args)),
            _ => refuse("calls something that is no class or function"),
        }
    }

    fn is_getattr(&self, index: u32) -> bool {
        self.arena
            .global(index)
            .is_some_and(|global| global.kind == Kind::Getattr)
    }

    /// A class inside a class, which protocols below 4 spell `getattr(outer class, name)`.
    fn nested(&mut self, args: Span) -> Step<Id> {
        let (outer, name) = match *self.arena.items(args) {
            [outer, name] => (self.arena.node(outer), self.arena.node(name)),
            _ => return refuse_name("builtins", "getattr"),
        };
        let (Node::Global(outer), Node::Text(name)) = (outer, name) else {
            return refuse_name("builtins", "getattr");
        };
        let Some(&Global {
            module,
            name: outer,
            ..
        }) = self.arena.global(outer)
        else {
            return refuse_name("builtins", "getattr");
        };
        let outer = self.input.text(outer).unwrap_or_default();
        self.allowed(module, name, &format!("{outer}."))
    }

    pub(super) fn build(&mut self) -> Step {
        let state = self.pop()?;
        let object = self.peek()?;
        let Node::Instance(index) = self.arena.node(object) else {
            return refuse("gives a state to something that takes none");
        };
        let callable = self.arena.instance(index).map(|own| own.callable);
        let is_tensor = callable.is_some_and(|callable| self.kind(callable) == Kind::Rebuild);
        self.freeze_state(state);
        match self.arena.instance_mut(index) {
            Some(instance) if instance.state == Id::UNSET && !is_tensor => {
                instance.state = state;
                Ok(())
            }
            _ => refuse("gives a state to something that takes none"),
        }
    }
}

fn refuse_name<T>(module: &str, name: &str) -> Step<T> {
    Err(Fault::Unserved(format!(
        "names {}.{}, which no checkpoint needs; {UNTRUSTED}",
        module.escape_debug(),
        name.escape_debug()
    )))
}

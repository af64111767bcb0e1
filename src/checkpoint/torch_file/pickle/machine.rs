//! The stack machine of pickles on a closed set of opcodes. It records what a pickle asks for and does none of it.

use super::arena::{Arena, Chain, Global, Id, Node};
use super::globals::is_allowed;
use super::opcode as op;
use super::reader::{Fault, Reader, Step, refuse};

/// The values of the pickle that `input` starts with.
pub struct Finished {
    pub arena: Arena,
    pub root: Id,
    /// Bytes of the input that the pickle takes.
    pub length: usize,
}

/// Reads one pickle of at most `limit` values.
pub fn run(input: &[u8], limit: usize) -> Step<Finished> {
    if u32::try_from(input.len()).is_err() {
        return refuse("a pickle of more than 4 GiB");
    }
    let mut machine = Machine {
        input: Reader::new(input),
        limit,
        arena: Arena::for_input(input.len()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    let root = machine.run().map_err(|fault| match fault {
        Fault::Truncated => Fault::Truncated,
        Fault::Refused(reason) => {
            Fault::Refused(format!("byte {} of the pickle: {reason}", machine.input.at))
        }
    })?;
    Ok(Finished {
        arena: machine.arena,
        root,
        length: machine.input.at,
    })
}

/// Names of the classes of [`Global::is_sequence`].
const SEQUENCES: [&str; 6] = ["Size", "set", "frozenset", "list", "tuple", "deque"];

struct Machine<'a> {
    input: Reader<'a>,
    limit: usize,
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: Vec<Id>,
}

impl Machine<'_> {
    fn run(&mut self) -> Step<Id> {
        match (self.input.byte()?, self.input.byte()?) {
            (op::PROTO, 2..=5) => {}
            (op::PROTO, version) => return refuse(format!("pickle protocol {version}")),
            _ => return refuse("no pickle of protocol 2 to 5"),
        }
        loop {
            match self.input.byte()? {
                op::STOP => break,
                opcode => self.step(opcode)?,
            }
            if self.arena.size().max(self.stack.len()) > self.limit {
                return refuse(format!("more than {} values", self.limit));
            }
        }
        match (&*self.stack, &*self.marks) {
            ([root], []) => Ok(*root),
            _ => refuse("ends with an unbalanced stack"),
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            op::FRAME => self.input.uint::<8>().map(drop),
            op::MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP | op::POP_MARK | op::DUP => self.shuffle(opcode),
            op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(opcode),
            op::BINGET | op::LONG_BINGET => self.get(opcode),
            op::APPEND | op::SETITEM => self.grow_by_one(opcode),
            op::APPENDS | op::SETITEMS | op::ADDITEMS => self.grow_from_mark(opcode),
            op::BUILD => self.build(),
            _ => {
                let id = self.value(opcode)?;
                self.stack.push(id);
                Ok(())
            }
        }
    }

    /// The value that an opcode leaves on the stack.
    fn value(&mut self, opcode: u8) -> Step<Id> {
        let node = match opcode {
            op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINUNICODE8
            | op::BINSTRING
            | op::SHORT_BINSTRING
            | op::BINBYTES
            | op::SHORT_BINBYTES
            | op::BINBYTES8
            | op::BYTEARRAY8 => self.text(opcode)?,
            op::EMPTY_TUPLE => self.tuple(0)?,
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::TUPLE => Node::Tuple(self.marked(|arena, items| arena.add_items(items))?),
            op::EMPTY_LIST => Node::List(Chain::EMPTY),
            op::EMPTY_DICT => Node::Dict(Chain::EMPTY),
            op::EMPTY_SET => Node::Set(Chain::EMPTY),
            op::FROZENSET => {
                Node::Set(self.marked(|arena, items| arena.extended(Chain::EMPTY, items))?)
            }
            op::BINPERSID => Node::Persistent(self.pop()?),
            op::GLOBAL | op::STACK_GLOBAL => return self.global(opcode),
            op::REDUCE | op::NEWOBJ => return self.call(),
            _ => self.scalar(opcode)?,
        };
        Ok(self.arena.add(node))
    }

    fn scalar(&mut self, opcode: u8) -> Step<Node> {
        Ok(match opcode {
            op::NONE => Node::None,
            op::NEWTRUE => Node::Bool(true),
            op::NEWFALSE => Node::Bool(false),
            op::BININT => Node::Int((self.input.uint::<4>()? as u32).cast_signed().into()),
            op::BININT1 => Node::Int(self.input.byte()?.into()),
            op::BININT2 => Node::Int(self.input.uint::<2>()? as i64),
            op::LONG1 => self.long::<1>()?,
            op::LONG4 => self.long::<4>()?,
            op::BINFLOAT => Node::Float(f64::from_bits(self.input.uint::<8>()?.swap_bytes())),
            _ => return refuse(op::refusal(opcode)),
        })
    }

    /// A two's complement integer behind a length of `N` bytes.
    fn long<const N: usize>(&mut self) -> Step<Node> {
        let span = self.input.sized::<N>()?;
        let bytes = self.input.bytes(span);
        if bytes.len() > 8 {
            return Ok(Node::Long(span));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Node::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, opcode: u8) -> Step<Node> {
        let span = match opcode {
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING | op::SHORT_BINBYTES => {
                self.input.sized::<1>()?
            }
            op::BINUNICODE | op::BINSTRING | op::BINBYTES => self.input.sized::<4>()?,
            _ => self.input.sized::<8>()?,
        };
        let is_text = self.input.text(span).is_some();
        match opcode {
            op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 if !is_text => {
                refuse("text that is not UTF-8")
            }
            op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => Ok(Node::Text(span)),
            // Strings of Python 2, where names were byte strings.
            op::BINSTRING | op::SHORT_BINSTRING if is_text => Ok(Node::Text(span)),
            _ => Ok(Node::Bytes),
        }
    }

    fn tuple(&mut self, count: usize) -> Step<Node> {
        let start = self.top(count)?;
        let items = self.arena.add_items(self.stack.get(start..).unwrap_or(&[]));
        self.stack.truncate(start);
        Ok(Node::Tuple(items))
    }

    fn global(&mut self, opcode: u8) -> Step<Id> {
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
        match self.input.text(module).zip(self.input.text(name)) {
            None => refuse("names a class by something that is no text"),
            Some((module, name)) if !is_allowed(module, name) => refuse(format!(
                "names {}.{}, which no checkpoint needs; nothing was executed",
                module.escape_debug(),
                name.escape_debug()
            )),
            Some((_, text)) => Ok(self.arena.add_global(Global {
                module,
                name,
                is_sequence: SEQUENCES.contains(&text),
            })),
        }
    }

    fn call(&mut self) -> Step<Id> {
        let (args, callable) = (self.pop()?, self.pop()?);
        match (self.arena.node(callable), self.arena.node(args)) {
            (Node::Global(_) | Node::Persistent(_), Node::Tuple(_)) => {
                Ok(self.arena.add_instance(callable, args))
            }
            (Node::Global(_) | Node::Persistent(_), _) => {
                refuse("calls with something that is no tuple")
            }
            _ => refuse("calls something that is no class or function"),
        }
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        let object = self.peek()?;
        let instance = match self.arena.node(object) {
            Node::Instance(index) => self.arena.instance_mut(index),
            _ => None,
        };
        match instance {
            Some(instance) if instance.state == Id::UNSET => {
                instance.state = state;
                Ok(())
            }
            _ => refuse("gives a state to something that takes none"),
        }
    }

    fn shuffle(&mut self, opcode: u8) -> Step {
        match opcode {
            op::DUP => {
                let id = self.peek()?;
                self.stack.push(id);
            }
            op::POP if self.marks.last() != Some(&self.stack.len()) => drop(self.pop()?),
            _ => self.marked(|_, _| ())?,
        }
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Step {
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

    fn get(&mut self, opcode: u8) -> Step {
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

    fn grow_by_one(&mut self, opcode: u8) -> Step {
        let start = self.top(if opcode == op::APPEND { 1 } else { 2 })?;
        self.grow(opcode, start)
    }

    fn grow_from_mark(&mut self, opcode: u8) -> Step {
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
        let Node::Global(index) = self.arena.node(callable) else {
            return true;
        };
        let module = self
            .arena
            .global(index)
            .map_or(&b""[..], |global| self.input.bytes(global.module));
        matches!(module, b"torch._utils" | b"torch._tensor")
    }

    /// Where the topmost `count` values start, none of them below the last mark.
    fn top(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(start),
            _ => refuse("takes more values than there are"),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        self.top(1)?;
        self.stack.pop().ok_or(Fault::Truncated)
    }

    fn peek(&self) -> Step<Id> {
        let start = self.top(1)?;
        self.stack.get(start).copied().ok_or(Fault::Truncated)
    }

    fn unmark(&mut self) -> Step<usize> {
        match self.marks.pop() {
            Some(start) => Ok(start),
            None => refuse("a missing mark"),
        }
    }

    /// Takes everything above the last mark.
    fn marked<T>(&mut self, take: impl FnOnce(&mut Arena, &[Id]) -> T) -> Step<T> {
        let start = self.unmark()?;
        let taken = take(&mut self.arena, self.stack.get(start..).unwrap_or(&[]));
        self.stack.truncate(start);
        Ok(taken)
    }
}

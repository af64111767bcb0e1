//! The stack machine of pickles on a closed set of opcodes. It records what a pickle asks for and does none of it.

mod calls;
mod frozen;
mod grow;
mod stack;

use self::frozen::Frozen;
use super::arena::{Arena, Chain, Id, Node};
use super::opcode as op;
use super::reader::{Fault, Reader, Step, refuse};
use crate::source::Charge;

/// Opcodes between two looks at the memory. Each adds no more than the input has bytes.
const STEPS: u64 = 512;

/// The values of the pickle that `input` starts with.
pub struct Finished {
    pub arena: Arena,
    pub root: Id,
    /// Bytes of the input that the pickle takes.
    pub length: usize,
    pub charge: Charge,
}

/// Reads one pickle of at most `limit` values, whose memory is added to `charge`.
pub fn run(input: &[u8], limit: usize, mut charge: Charge) -> Step<Finished> {
    if u32::try_from(input.len()).is_err() {
        return refuse("a pickle of more than 4 GiB");
    }
    let before = charge.bytes();
    let first = before.saturating_add(Arena::cost_for(input.len()) as u64);
    charge.cover(first).map_err(Fault::Memory)?;
    let mut machine = Machine {
        input: Reader::new(input),
        limit,
        before,
        charge,
        arena: Arena::for_input(input.len()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        frozen: Frozen::default(),
        states: Frozen::default(),
        pairs: Frozen::default(),
    };
    let root = machine.run();
    let root = root.map_err(|fault| fault.at(machine.input.at))?;
    Ok(Finished {
        arena: machine.arena,
        root,
        length: machine.input.at,
        charge: machine.charge,
    })
}

struct Machine<'a> {
    input: Reader<'a>,
    limit: usize,
    charge: Charge,
    /// Charged for what is read.
    before: u64,
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: Vec<Id>,
    /// Containers, and tuples that hold them, which a call has taken.
    frozen: Frozen,
    /// States of tensors and lists of pairs that were checked.
    states: Frozen,
    pairs: Frozen,
}

impl Machine<'_> {
    fn run(&mut self) -> Step<Id> {
        match (self.input.byte()?, self.input.byte()?) {
            (op::PROTO, 2..=5) => {}
            (op::PROTO, version) => return refuse(format!("pickle protocol {version}")),
            _ => return refuse("no pickle of protocol 2 to 5"),
        }
        self.charge_values()?;
        for step in 1u64.. {
            if step.is_multiple_of(STEPS) {
                self.charge_values()?;
            }
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

    /// Charges the memory that the values take, and what their vectors take more when they double.
    fn charge_values(&mut self) -> Step {
        let stacks = self.stack.len() + self.memo.len() + 2 * self.marks.len();
        let bytes = self.arena.memory() + stacks * size_of::<Id>();
        let bytes = self.before.saturating_add(2 * bytes as u64);
        self.charge.cover(bytes).map_err(Fault::Memory)
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
            op::BINPERSID => self.persistent()?,
            op::GLOBAL | op::STACK_GLOBAL => return self.global(opcode),
            op::REDUCE | op::NEWOBJ => return self.call(opcode),
            _ => self.scalar(opcode)?,
        };
        Ok(self.arena.add(node))
    }

    fn persistent(&mut self) -> Step<Node> {
        let id = self.pop()?;
        self.freeze_deeply(id);
        Ok(Node::Persistent(id))
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
}

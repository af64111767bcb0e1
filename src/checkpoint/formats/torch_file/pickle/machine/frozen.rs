//! Values that a call has looked at. Python makes the call at once, and what changes later changes nothing of its result;
//! here its arguments are read at the end. So what a call took must stay as it is.

use super::super::arena::{Id, Node, Span};
use super::super::globals::Kind;
use super::super::opcode as op;
use super::super::reader::{Step, refuse};
use super::Machine;

/// Most functions around the one that makes a tensor.
const WRAPPERS: usize = 8;

/// Attributes of a tensor that replace its values when they are set, some of them in place.
const VALUES: [&[u8]; 3] = [b"data", b"real", b"imag"];

/// A set of values, a bit for each of the arena.
#[derive(Default)]
pub(super) struct Frozen(Vec<u64>);

impl Frozen {
    /// Adds a value; whether it is new.
    fn insert(&mut self, id: Id) -> bool {
        let (word, bit) = place(id);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0.get_mut(word).is_some_and(|bits| {
            let is_new = *bits & bit == 0;
            *bits |= bit;
            is_new
        })
    }

    pub fn contains(&self, id: Id) -> bool {
        let (word, bit) = place(id);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(id: Id) -> (usize, u64) {
    (id.index() / 64, 1 << (id.index() % 64))
}

impl Machine<'_> {
    /// Freezes what a call looks at, and refuses calls whose result would not be what its arguments tell.
    pub(super) fn take_arguments(&mut self, opcode: u8, function: u32, args: Span) -> Step {
        let kind = self.arena.global(function).map(|global| global.kind);
        let kind = kind.unwrap_or(Kind::Plain);
        // `list.__new__` and its like ignore arguments, which `list()` takes.
        let is_filled = args.start != args.end;
        let is_constant = matches!(
            self.function_name(function),
            b"Size" | b"tuple" | b"frozenset"
        );
        if opcode == op::NEWOBJ && is_filled && kind.is_container() && !is_constant {
            return refuse("makes a container from arguments that it ignores");
        }
        match kind {
            Kind::Rebuild => self.take_tensor(function, args),
            Kind::Dictionary(index) => self.take_entries(function, index, args),
            Kind::Sequence | Kind::Set => {
                let items = self.argument(args, 0);
                items.into_iter().for_each(|items| self.freeze(items));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Freezes a state, which is copied into its object: a dictionary, or a pair of them.
    pub(super) fn freeze_state(&mut self, state: Id) {
        self.freeze(state);
        if let Node::Tuple(span) = self.arena.node(state) {
            for index in 0..2 {
                let part = self.argument(span, index);
                part.into_iter().for_each(|part| self.freeze(part));
            }
        }
    }

    /// Freezes everything that `root` holds, through containers alone.
    pub(super) fn freeze_deeply(&mut self, root: Id) {
        let mut ahead = vec![root];
        while let Some(id) = ahead.pop() {
            match self.arena.node(id) {
                Node::Tuple(span) if self.frozen.insert(id) => {
                    ahead.extend_from_slice(self.arena.items(span));
                }
                Node::List(chain) | Node::Set(chain) | Node::Dict(chain)
                    if self.frozen.insert(id) =>
                {
                    ahead.extend(self.arena.chained(chain));
                }
                Node::Instance(index) if self.is_container(id) && self.frozen.insert(id) => {
                    if let Some(own) = self.arena.instance(index) {
                        let (items, entries) = (own.items, own.entries);
                        ahead.extend(self.arena.chained(items));
                        ahead.extend(self.arena.chained(entries));
                    }
                }
                _ => {}
            }
        }
    }

    fn freeze(&mut self, id: Id) {
        let is_container = match self.arena.node(id) {
            Node::List(_) | Node::Set(_) | Node::Dict(_) => true,
            Node::Instance(_) => self.is_container(id),
            _ => false,
        };
        if is_container {
            self.frozen.insert(id);
        }
    }

    /// Whether an instance is a container; of a class of its own, whether it became one.
    fn is_container(&self, id: Id) -> bool {
        let Node::Instance(index) = self.arena.node(id) else {
            return false;
        };
        self.arena.instance(index).is_some_and(|own| {
            self.kind(own.callable).is_container()
                || !own.entries.is_empty()
                || !own.items.is_empty()
        })
    }

    /// Freezes the arguments of a function that makes a tensor, and of those that it only wraps.
    fn take_tensor(&mut self, mut function: u32, mut args: Span) -> Step {
        for _ in 0..WRAPPERS {
            let inner = match self.function_name(function) {
                b"_rebuild_from_type_v2" => self.argument(args, 0).zip(self.argument(args, 2)),
                b"_rebuild_parameter_with_state" => None,
                _ => {
                    let args = self.arena.items(args).to_vec();
                    args.into_iter().for_each(|own| self.freeze_deeply(own));
                    return Ok(());
                }
            };
            if let Some(state) = self.argument(args, 3) {
                self.freeze_state(state);
                self.refuse_values(state)?;
            }
            let Some((callable, inner)) = inner else {
                return Ok(());
            };
            self.freeze_deeply(inner);
            match (self.arena.node(callable), self.arena.node(inner)) {
                (Node::Global(next), Node::Tuple(span)) => (function, args) = (next, span),
                _ => return refuse("rebuilds a tensor by something that is no function"),
            }
        }
        refuse("rebuilds a tensor that is wrapped too many times")
    }

    /// Refuses a state that sets a tensor's values, which may be those of other tensors, too.
    fn refuse_values(&mut self, state: Id) -> Step {
        let parts = match self.arena.node(state) {
            Node::Tuple(span) => self.arena.items(span).to_vec(),
            _ => vec![state],
        };
        for part in parts {
            let is_new = self.states.insert(part);
            let sets_values = |key: Id| match self.arena.node(key) {
                Node::Text(span) => VALUES.contains(&self.input.bytes(span)),
                _ => false,
            };
            if is_new && self.keys(part).any(sets_values) {
                return refuse("sets the values of a tensor by its attributes");
            }
        }
        Ok(())
    }

    /// Freezes what a dictionary is filled from: another one, or a list of pairs.
    fn take_entries(&mut self, function: u32, index: usize, args: Span) -> Step {
        if self.argument(args, index + 1).is_some() {
            return refuse("makes a dictionary from too many arguments");
        }
        let Some(source) = self.argument(args, index) else {
            return Ok(());
        };
        let is_counter = self.function_name(function) == b"Counter";
        self.freeze(source);
        match self.arena.node(source) {
            Node::Dict(_) => Ok(()),
            Node::Instance(own) if self.is_plain_dictionary(own) => Ok(()),
            _ if is_counter => Ok(()),
            Node::List(_) | Node::Tuple(_) if !self.pairs.insert(source) => Ok(()),
            Node::List(_) | Node::Tuple(_) => {
                let pairs: Vec<Id> = self.arena.sequence(source).collect();
                pairs.into_iter().try_for_each(|pair| {
                    self.freeze(pair);
                    match self.arena.sequence(pair).count() {
                        2 => Ok(()),
                        _ => refuse("makes a dictionary from something other than pairs"),
                    }
                })
            }
            _ => refuse("makes a dictionary from something that holds no entries"),
        }
    }

    /// Whether a dictionary was made empty, so that all of its entries were set later.
    fn is_plain_dictionary(&self, index: u32) -> bool {
        self.arena.instance(index).is_some_and(|own| {
            let is_empty = match self.arena.node(own.args) {
                Node::Tuple(span) => span.start == span.end,
                _ => false,
            };
            is_empty && matches!(self.kind(own.callable), Kind::Dictionary(_))
        })
    }

    /// The keys of a dictionary, from wherever it has them.
    fn keys(&self, id: Id) -> impl Iterator<Item = Id> {
        let instance = match self.arena.node(id) {
            Node::Instance(index) => self.arena.instance(index),
            _ => None,
        };
        let source =
            instance.and_then(
                |own| match (self.kind(own.callable), self.arena.node(own.args)) {
                    (Kind::Dictionary(index), Node::Tuple(args)) => self.argument(args, index),
                    _ => None,
                },
            );
        let pairs = source
            .into_iter()
            .flat_map(|source| self.arena.sequence(source));
        let first = pairs.filter_map(|pair| self.arena.sequence(pair).next());
        let own = [Some(id), source].into_iter().flatten();
        let own = own.flat_map(|id| self.arena.entries(id).step_by(2));
        own.chain(first)
    }

    fn argument(&self, args: Span, index: usize) -> Option<Id> {
        self.arena.items(args).get(index).copied()
    }

    fn function_name(&self, function: u32) -> &[u8] {
        self.arena
            .global(function)
            .map_or(&[], |global| self.input.bytes(global.name))
    }
}

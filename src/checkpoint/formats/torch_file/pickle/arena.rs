//! The values of a pickle as a flat arena: plain records without pointers, so that cycles and depth cost nothing.

use super::globals::Kind;

/// The place of a value in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

impl Id {
    /// Stands for no value. The arena never grows that large.
    pub const UNSET: Self = Self(u32::MAX);

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A range of the input's bytes or of the arena's items.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// The items of a container that grew in batches, in order: the first and the last batch.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    pub head: u32,
    tail: u32,
}

/// The end of a chain.
pub const NO_BATCH: u32 = u32::MAX;

impl Chain {
    pub const EMPTY: Self = Self {
        head: NO_BATCH,
        tail: NO_BATCH,
    };

    pub fn is_empty(self) -> bool {
        self.head == NO_BATCH
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Batch {
    pub items: Span,
    pub next: u32,
}

/// A Python value. Text lies in the input, items in the arena.
#[derive(Debug, Clone, Copy)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Long(Span),
    Float(f64),
    Text(Span),
    /// A byte string. No structure of a checkpoint depends on one.
    Bytes,
    Tuple(Span),
    List(Chain),
    Set(Chain),
    /// Keys and values in turn.
    Dict(Chain),
    Global(u32),
    Instance(u32),
    /// An object that the pickler left to the file around it, by its id: a storage.
    Persistent(Id),
}

/// A class or function, by name.
#[derive(Debug, Clone, Copy)]
pub struct Global {
    pub module: Span,
    pub name: Span,
    pub kind: Kind,
}

/// A recorded call or construction, and what was done to its result.
#[derive(Debug, Clone, Copy)]
pub struct Instance {
    pub callable: Id,
    pub args: Id,
    pub state: Id,
    pub items: Chain,
    /// Keys and values in turn.
    pub entries: Chain,
}

/// How many values a pickle of `length` bytes has, about one for each six.
fn values_in(length: usize) -> usize {
    (length / 6).min(1 << 22)
}

#[derive(Debug)]
pub struct Arena {
    nodes: Vec<Node>,
    items: Vec<Id>,
    batches: Vec<Batch>,
    globals: Vec<Global>,
    instances: Vec<Instance>,
}

/// Values that pickles repeat, each kept once: None, False, True, `()` and the integers of a byte.
const COMMON: u32 = 4;

impl Arena {
    /// Bytes that [`Arena::for_input`] allocates.
    pub fn cost_for(length: usize) -> usize {
        let shared = size_of::<Batch>() + size_of::<Instance>();
        let value = size_of::<Node>() + size_of::<Id>() + shared.div_ceil(4);
        value * (values_in(length) + COMMON as usize + 256)
    }

    /// An arena for a pickle of `length` bytes.
    pub fn for_input(length: usize) -> Self {
        let values = values_in(length);
        let mut nodes = Vec::with_capacity(COMMON as usize + 256 + values);
        nodes.extend([
            Node::None,
            Node::Bool(false),
            Node::Bool(true),
            Node::Tuple(Span { start: 0, end: 0 }),
        ]);
        nodes.extend((0..=255).map(Node::Int));
        Self {
            nodes,
            items: Vec::with_capacity(values),
            batches: Vec::with_capacity(values / 4),
            globals: Vec::new(),
            instances: Vec::with_capacity(values / 4),
        }
    }

    /// How many values and items the arena holds.
    pub fn size(&self) -> usize {
        self.nodes.len().max(self.items.len() / 2)
    }

    /// Bytes that the values take.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.nodes)
            + size_of_val(&*self.items)
            + size_of_val(&*self.batches)
            + size_of_val(&*self.globals)
            + size_of_val(&*self.instances)
    }

    /// How many items all containers have together.
    pub fn places(&self) -> usize {
        self.items.len()
    }

    pub fn add(&mut self, node: Node) -> Id {
        match node {
            Node::None => return Id(0),
            Node::Bool(value) => return Id(1 + u32::from(value)),
            Node::Tuple(span) if span.start == span.end => return Id(3),
            Node::Int(value @ 0..=255) => return Id(COMMON + value as u32),
            _ => {}
        }
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }

    pub fn add_items(&mut self, items: &[Id]) -> Span {
        let start = self.items.len() as u32;
        self.items.extend_from_slice(items);
        let end = self.items.len() as u32;
        Span { start, end }
    }

    pub fn add_global(&mut self, global: Global) -> Id {
        let index = self.globals.len() as u32;
        self.globals.push(global);
        self.add(Node::Global(index))
    }

    pub fn add_instance(&mut self, callable: Id, args: Id) -> Id {
        let index = self.instances.len() as u32;
        self.instances.push(Instance {
            callable,
            args,
            state: Id::UNSET,
            items: Chain::EMPTY,
            entries: Chain::EMPTY,
        });
        self.add(Node::Instance(index))
    }

    /// The chain with `items` behind it.
    pub fn extended(&mut self, chain: Chain, items: &[Id]) -> Chain {
        let index = self.batches.len() as u32;
        let items = self.add_items(items);
        let next = NO_BATCH;
        self.batches.push(Batch { items, next });
        match self.batches.get_mut(chain.tail as usize) {
            Some(last) => last.next = index,
            None => {
                return Chain {
                    head: index,
                    tail: index,
                };
            }
        }
        Chain {
            tail: index,
            ..chain
        }
    }

    pub fn node(&self, id: Id) -> Node {
        self.nodes.get(id.0 as usize).copied().unwrap_or(Node::None)
    }

    /// The nodes that refer to something outside the pickle.
    pub fn persistent(&self) -> impl Iterator<Item = Id> {
        let nodes = self.nodes.iter().zip(0..);
        nodes.filter_map(|(node, index)| matches!(node, Node::Persistent(_)).then_some(Id(index)))
    }

    pub fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(id.0 as usize)
    }

    pub fn items(&self, span: Span) -> &[Id] {
        self.items
            .get(span.start as usize..span.end as usize)
            .unwrap_or(&[])
    }

    /// The items of a chain.
    pub fn chained(&self, chain: Chain) -> impl Iterator<Item = Id> {
        let batches = std::iter::successors(self.batch(chain.head), |batch| self.batch(batch.next));
        batches.flat_map(|batch| self.items(batch.items)).copied()
    }

    /// The items of a tuple or list.
    pub fn sequence(&self, id: Id) -> impl Iterator<Item = Id> {
        let (items, chain) = match self.node(id) {
            Node::Tuple(span) => (self.items(span), Chain::EMPTY),
            Node::List(chain) => (&[][..], chain),
            _ => (&[][..], Chain::EMPTY),
        };
        items.iter().copied().chain(self.chained(chain))
    }

    /// Keys and values, in turn, that a dictionary or an instance was given after it was made.
    pub fn entries(&self, id: Id) -> impl Iterator<Item = Id> {
        let instance = match self.node(id) {
            Node::Instance(index) => self.instance(index),
            _ => None,
        };
        self.chained(match (self.node(id), instance) {
            (Node::Dict(chain), _) => chain,
            (_, Some(own)) => own.entries,
            _ => Chain::EMPTY,
        })
    }

    pub fn batch(&self, index: u32) -> Option<&Batch> {
        self.batches.get(index as usize)
    }

    pub fn global(&self, index: u32) -> Option<&Global> {
        self.globals.get(index as usize)
    }

    pub fn globals(&self) -> &[Global] {
        &self.globals
    }

    pub fn instance(&self, index: u32) -> Option<&Instance> {
        self.instances.get(index as usize)
    }

    pub fn instance_mut(&mut self, index: u32) -> Option<&mut Instance> {
        self.instances.get_mut(index as usize)
    }
}

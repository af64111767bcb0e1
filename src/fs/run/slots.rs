//! Which slot stands for which save, and the inodes in each: no number is ever given twice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::slot::Slot;
use crate::run::Save;
use crate::tree::Usage;

/// All slots that can be reached: by their names, or through what the kernel still knows.
#[derive(Debug, Default)]
pub struct Slots {
    last: u32,
    all: BTreeMap<u32, Arc<Slot>>,
    current: HashMap<String, u32>,
    /// Is sent the names that lead to no slot any more, or to another one.
    gone: Option<Sender<String>>,
}

impl Slots {
    pub fn telling(gone: Sender<String>) -> Self {
        Self {
            gone: Some(gone),
            ..Self::default()
        }
    }

    /// Closes the slots of which no reader has a file open, but for the `kept` that were used last.
    pub fn close_idle(&self, kept: usize) {
        let mut open: Vec<&Arc<Slot>> = self.all.values().filter(|slot| slot.is_open()).collect();
        open.sort_unstable_by_key(|slot| Reverse(slot.used()));
        open.iter().skip(kept).for_each(|slot| slot.close());
    }

    pub fn numbered(&self, number: u32) -> Option<Arc<Slot>> {
        self.all.get(&number).cloned()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Slot>> {
        self.all.get(self.current.get(name)?)
    }

    /// The slots that have names.
    pub fn current(&self) -> Vec<Arc<Slot>> {
        let slots = self
            .current
            .values()
            .filter_map(|number| self.all.get(number));
        slots.cloned().collect()
    }

    /// Up to `count` slots that have names, from the one after `number` on.
    pub fn after(&self, number: u64, count: usize) -> Vec<Arc<Slot>> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let later = self.all.range((Bound::Excluded(number), Bound::Unbounded));
        let named =
            later.filter(|(number, slot)| self.current.get(&slot.save.name) == Some(*number));
        named.take(count).map(|(_, slot)| slot.clone()).collect()
    }

    /// The slot of `save` under `name`: the one it has, or a new one where it is another save than before.
    pub fn assign(&mut self, name: &str, save: Option<Save>, lookups: u64) -> Option<Arc<Slot>> {
        let known = self.named(name).cloned();
        let slot = match (known, save) {
            (Some(slot), Some(save)) if slot.shows(&save) => slot,
            (_, save) => {
                self.retire(name);
                self.add(save?)?
            }
        };
        slot.known(lookups);
        Some(slot)
    }

    /// Takes account of what the kernel has forgotten.
    pub fn forget(&mut self, number: u32, lookups: u64) {
        if let Some(slot) = self.numbered(number) {
            slot.forget(lookups);
            if self.current.get(&slot.save.name) != Some(&number) {
                self.drop_unknown(number);
            }
        }
    }

    pub fn usage(&self) -> Usage {
        let all = self.all.values().map(|slot| slot.usage());
        all.fold(Usage::default(), |sum, usage| Usage {
            bytes: sum.bytes.saturating_add(usage.bytes),
            inodes: sum.inodes.saturating_add(usage.inodes),
        })
    }

    fn add(&mut self, save: Save) -> Option<Arc<Slot>> {
        self.last = self.last.checked_add(1)?;
        self.current.insert(save.name.clone(), self.last);
        let slot = Arc::new(Slot::new(self.last, save));
        self.all.insert(self.last, slot.clone());
        Some(slot)
    }

    /// Takes the name away. Readers that have a file open read on.
    fn retire(&mut self, name: &str) {
        let Some(number) = self.current.remove(name) else {
            return;
        };
        self.drop_unknown(number);
        if let Some(slot) = self.all.get(&number) {
            slot.close();
            // Until the kernel lets go of the name it keeps what it knows of the slot.
            if let Some(gone) = &self.gone {
                gone.send(name.to_owned()).ok();
            }
        }
    }

    fn drop_unknown(&mut self, number: u32) {
        if self.all.get(&number).is_some_and(|slot| !slot.is_known()) {
            self.all.remove(&number);
        }
    }
}

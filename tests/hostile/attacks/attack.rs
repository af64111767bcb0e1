//! A published attack, and what must come of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::scene::{Scene, refused, shown};

/// The traces that a shell and that Python would leave behind if the attack ran.
pub const SHELL: &str = "touch ../canary";
pub const PYTHON: &str = "__import__('os').system('touch ../canary')";

pub enum Outcome {
    /// Refused in one line that holds these words.
    Refused(&'static [&'static str]),
    /// Shown without what the attack is about; the report holds these words.
    Inert(&'static [&'static str]),
}

pub struct Attack {
    /// The project, and the file or test that it is there.
    pub name: &'static str,
    pub scene: Scene,
    pub outcome: Outcome,
}

pub fn refuses(name: &'static str, scene: Scene, words: &'static [&'static str]) -> Attack {
    let outcome = Outcome::Refused(words);
    Attack {
        name,
        scene,
        outcome,
    }
}

pub fn inert(name: &'static str, scene: Scene, words: &'static [&'static str]) -> Attack {
    let outcome = Outcome::Inert(words);
    Attack {
        name,
        scene,
        outcome,
    }
}

/// A checkpoint whose only weights file has these bytes.
pub fn weights(bytes: &[u8]) -> Scene {
    Scene::new().with("pytorch_model.bin", bytes)
}

/// Tries all, prints what came of each, and fails if any was unsafe.
pub fn all_safe(attacks: Vec<Attack>) {
    let (count, mut unsafe_ones) = (attacks.len(), Vec::new());
    for attack in attacks {
        let name = attack.name;
        match catch_unwind(AssertUnwindSafe(|| attack.check())) {
            Ok(verdict) => println!("{verdict:>8}  {name}"),
            Err(_) => unsafe_ones.push(name),
        }
    }
    println!("{count} attacks, {} unsafe", unsafe_ones.len());
    assert!(unsafe_ones.is_empty(), "{unsafe_ones:?}");
}

impl Attack {
    /// The outcome.
    fn check(self) -> &'static str {
        match self.outcome {
            Outcome::Refused(words) => {
                refused(self.scene, words);
                "refused"
            }
            Outcome::Inert(words) => {
                shown(self.scene, words);
                "inert"
            }
        }
    }
}

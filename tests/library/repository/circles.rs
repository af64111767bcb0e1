//! No circle between the files of a room: each can be read, and understood, before those that use it.

use std::collections::{BTreeMap, BTreeSet};

use super::sources;

/// Rooms in which there are circles yet.
const LATER: [&str; 3] = ["checkpoint", "cli", "mapping"];

/// A module by the names that lead to it.
type Module = Vec<String>;

fn module(file: &str) -> Module {
    let path = file.trim_end_matches(".rs");
    path.split('/').map(str::to_owned).collect()
}

/// The code of a file: without tests, comments and texts.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// Cuts at the commas that stand in no braces.
fn items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&list[start..]);
    found
}

/// The paths that a `use` names.
fn expand(path: &str) -> Vec<String> {
    let path = path.trim();
    match path.split_once('{') {
        Some((before, list)) => items(list.trim_end().trim_end_matches('}'))
            .into_iter()
            .flat_map(|item| expand(&format!("{before}{}", item.trim())))
            .collect(),
        None => vec![path.split(" as ").next().unwrap().to_owned()],
    }
}

/// The paths of all `use` in a code, or of those alone that are made public.
fn uses(code: &str, is_public: bool) -> Vec<String> {
    let statements = code.split(';').filter_map(|statement| {
        let (before, path) = statement.rsplit_once("use ")?;
        let before = before.lines().last().unwrap_or("").trim();
        (before.is_empty() || before.starts_with("pub")).then_some((before, path))
    });
    let wanted = statements.filter(|(before, _)| !is_public || before.starts_with("pub"));
    wanted.flat_map(|(_, path)| expand(path)).collect()
}

/// The files of the program, and the code of each.
struct House(BTreeMap<Module, String>);

impl House {
    /// The file in which a path that stands in `from` leads, and the names behind it.
    fn resolve(&self, from: &Module, path: &str) -> (Module, Vec<String>) {
        let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
        let mut at = from.clone();
        match parts[0] {
            "crate" => at.clear(),
            "super" => {}
            "self" => drop(parts.remove(0)),
            _ => {}
        }
        while matches!(parts.first(), Some(&"super" | &"crate")) {
            at.pop();
            parts.remove(0);
        }
        while let Some(next) = parts.first() {
            at.push((*next).to_owned());
            if !self.0.contains_key(&at) {
                at.pop();
                break;
            }
            parts.remove(0);
        }
        (at, parts.into_iter().map(str::to_owned).collect())
    }

    /// The file in which a name of `module` stands, which may be shown there alone.
    fn origin(&self, module: Module, name: Option<&String>) -> Module {
        let Some(name) = name else { return module };
        let shown = uses(self.0.get(&module).map_or("", String::as_str), true);
        let shown = shown
            .into_iter()
            .find(|path| path.rsplit("::").next() == Some(name));
        match shown.map(|path| self.resolve(&module, &path)) {
            Some((inner, rest)) if inner != module => self.origin(inner, rest.first()),
            _ => module,
        }
    }

    /// The files of the same room that a file uses.
    fn used_by(&self, module: &Module) -> BTreeSet<Module> {
        let code = &self.0[module];
        let mut paths = uses(code, false);
        for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            let first = word.split("::").next().unwrap();
            let child = [module.as_slice(), &[first.to_owned()]].concat();
            if word.contains("::")
                && !word.ends_with("::")
                && (first == "super" || self.0.contains_key(&child))
            {
                paths.push(word.to_owned());
            }
        }
        let found = paths.iter().map(|path| {
            let (at, rest) = self.resolve(module, path);
            self.origin(at, rest.first())
        });
        found
            .filter(|used| used != module && used.first() == module.first())
            .filter(|used| self.0.contains_key(used))
            .collect()
    }

    /// The files that can be reached from one.
    fn reached(
        &self,
        from: &Module,
        edges: &BTreeMap<Module, BTreeSet<Module>>,
    ) -> BTreeSet<Module> {
        let (mut reached, mut rest) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = rest.pop() {
            for used in edges.get(&next).into_iter().flatten() {
                if reached.insert(used.clone()) {
                    rest.push(used.clone());
                }
            }
        }
        reached
    }

    /// The circles, each as its files in order.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let edges: BTreeMap<_, _> = self
            .0
            .keys()
            .map(|each| (each.clone(), self.used_by(each)))
            .collect();
        let reached: BTreeMap<_, _> = self
            .0
            .keys()
            .map(|each| (each, self.reached(each, &edges)))
            .collect();
        let circle = |each: &Module| {
            let both = reached[each]
                .iter()
                .filter(|other| reached[*other].contains(each));
            both.map(|module| module.join("/")).collect::<Vec<_>>()
        };
        self.0
            .keys()
            .map(circle)
            .filter(|circle| !circle.is_empty())
            .collect()
    }
}

#[test]
fn no_files_of_a_room_use_each_other_in_a_circle() {
    let files = sources().into_iter();
    let house = House(
        files
            .map(|(name, text)| (module(&name), code(&text)))
            .collect(),
    );
    let circles = house.circles().into_iter().filter(|circle| {
        let room = circle[0].split('/').next().unwrap();
        !LATER.contains(&room)
    });
    let found: Vec<_> = circles.collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_circle_is_found_through_names_that_a_parent_shows() {
    let house = |texts: &[(&str, &str)]| {
        let files = texts.iter().map(|(name, text)| (module(name), code(text)));
        House(files.collect())
            .circles()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let circle = house(&[
        ("a.rs", "mod b;\nmod c;\npub use b::B;\n"),
        ("a/b.rs", "use super::c::C;\n"),
        ("a/c.rs", "use super::{B};\nuse crate::d::D;\n"),
        ("d.rs", "fn f() {}\n"),
    ]);
    assert_eq!(circle, [["a/b", "a/c"]]);
    let line = house(&[
        ("a.rs", "mod b;\nmod c;\npub use b::B;\nuse c::C;\n"),
        ("a/b.rs", "struct B;\n"),
        ("a/c.rs", "use super::B;\n#[cfg(test)]\nuse super::x;\n"),
    ]);
    assert!(line.is_empty(), "{line:?}");
    let parent = house(&[
        ("a.rs", "mod b;\nfn f() { b::g() }\nstruct S;\n"),
        ("a/b.rs", "use super::S;\n"),
    ]);
    assert_eq!(parent, [["a", "a/b"]]);
}

//! Builds the tree from the paths of its files.

use std::path::Path;

use super::{Directory, NAME_MAX, Node, ROOT, Tree, index};
use crate::error::{Error, Result};
use crate::output::{Attributes, VirtualFile};
use crate::text::steers;

impl Default for Tree {
    /// An empty directory without permissions.
    fn default() -> Self {
        Self::empty(None)
    }
}

impl Tree {
    /// A directory for each `/` in the paths. Paths that collide or that no file can have are refused.
    pub fn new(mut files: Vec<VirtualFile>) -> Result<Self> {
        files.sort_by(|a, b| a.path().split('/').cmp(b.path().split('/')));
        let mut tree = Self::empty(files.first().map(VirtualFile::attributes));
        for file in files {
            tree.insert(file)?;
        }
        Ok(tree)
    }

    fn empty(like: Option<Attributes>) -> Self {
        let attributes = like.unwrap_or(Attributes {
            mode: 0,
            uid: 0,
            gid: 0,
            modified: (0, 0),
        });
        Self {
            nodes: vec![Node::Directory(Directory::below(ROOT, attributes))],
            bytes: 0,
        }
    }

    /// Files come in the order of their paths, so that only the last child of a directory can have the same name.
    fn insert(&mut self, file: VirtualFile) -> Result<()> {
        let (path, attributes) = (file.path().to_owned(), file.attributes());
        let refuse = |reason: &str| Error::checkpoint(Path::new(&path), reason);
        let names: Vec<&str> = path.split('/').collect();
        if let Some(reason) = names.iter().find_map(|name| fault(name)) {
            return Err(refuse(reason));
        }
        let (name, directories) = names.split_last().unwrap_or((&"", &[]));
        let mut parent = ROOT;
        self.widen(ROOT, attributes);
        for directory in directories {
            parent = self
                .enter(parent, directory, attributes)
                .ok_or_else(|| refuse("a file of the view stands where its directory must be"))?;
            self.widen(parent, attributes);
        }
        self.bytes = self.bytes.saturating_add(file.size());
        self.add(parent, name, Node::File(file.into()))
            .ok_or_else(|| refuse("two files of the view have this path"))
            .map(drop)
    }

    /// The subdirectory `name` of `parent`, made where it is not there yet. `None` if `name` is a file.
    fn enter(&mut self, parent: u64, name: &str, attributes: Attributes) -> Option<u64> {
        match self.directory(parent)?.find(name) {
            Some(inode) => self.directory(inode).map(|_| inode),
            None => {
                self.directory_mut(parent)?.subdirectories += 1;
                let directory = Directory::below(parent, attributes);
                self.add(parent, name, Node::Directory(directory))
            }
        }
    }

    /// `None` if `name` is taken.
    fn add(&mut self, parent: u64, name: &str, node: Node) -> Option<u64> {
        let inode = self.nodes.len() as u64 + 1;
        let directory = self.directory_mut(parent)?;
        if directory.find(name).is_some() {
            return None;
        }
        directory.children.push((name.into(), inode));
        self.nodes.push(node);
        Some(inode)
    }

    fn widen(&mut self, inode: u64, file: Attributes) {
        if let Some(directory) = self.directory_mut(inode) {
            directory.widen(file);
        }
    }

    fn directory_mut(&mut self, inode: u64) -> Option<&mut Directory> {
        match self.nodes.get_mut(index(inode)?)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }
}

impl Directory {
    fn below(parent: u64, attributes: Attributes) -> Self {
        Self {
            parent,
            children: Vec::new(),
            subdirectories: 0,
            attributes: Attributes {
                mode: 0,
                ..attributes
            },
        }
    }

    /// Lets exactly those list the directory who may read a file below it, and its owner write to a copy of it.
    fn widen(&mut self, file: Attributes) {
        let readable = file.mode & 0o444;
        self.attributes.mode |= readable | readable >> 2 | file.mode & 0o200;
        self.attributes.modified = self.attributes.modified.max(file.modified);
    }
}

/// Why no file can be called `name`.
fn fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("the path has an empty component"),
        "." | ".." => Some("the path has a component . or .."),
        _ if name.len() > NAME_MAX => Some("the path has a component of more than 255 bytes"),
        _ if name.chars().any(steers) => {
            Some("the path has a control character, or one that nobody sees")
        }
        _ => None,
    }
}

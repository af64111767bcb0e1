//! The static inode table: which names lead to which inodes, and what `stat`, `readdir` and `statfs` answer.

mod build;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::output::{Attributes, VISIBLE_MODE, VirtualFile};

/// Inode of the top directory.
pub const ROOT: u64 = 1;

/// Longest name of a file or directory, in bytes.
pub const NAME_MAX: usize = 255;

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
}

/// The answer of `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub inode: u64,
    pub kind: Kind,
    pub size: u64,
    pub links: u32,
    pub attributes: Attributes,
}

/// One name of a directory. `next` is the offset at which the listing goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub inode: u64,
    pub kind: Kind,
    pub next: u64,
}

/// The answer of `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Debug)]
enum Node {
    File(Arc<VirtualFile>),
    Directory(Directory),
}

#[derive(Debug)]
struct Directory {
    parent: u64,
    /// Sorted by name.
    children: Vec<(Box<str>, u64)>,
    subdirectories: u32,
    attributes: Attributes,
}

impl Directory {
    fn find(&self, name: &str) -> Option<u64> {
        let index = self
            .children
            .binary_search_by(|(child, _)| (**child).cmp(name));
        index.ok().map(|index| self.children[index].1)
    }
}

/// Every file and directory of the mount, numbered in the order of their paths: two mounts number alike.
#[derive(Debug)]
pub struct Tree {
    /// The node of inode `i` is at `i - 1`.
    nodes: Vec<Node>,
    bytes: u64,
}

impl Tree {
    /// `name` in the directory `parent`.
    pub fn lookup(&self, parent: u64, name: &str) -> Option<Stat> {
        self.stat(self.directory(parent)?.find(name)?)
    }

    pub fn stat(&self, inode: u64) -> Option<Stat> {
        Some(match self.node(inode)? {
            Node::File(file) => Stat {
                inode,
                kind: Kind::File,
                size: file.size(),
                links: 1,
                attributes: Attributes {
                    mode: file.attributes().mode & VISIBLE_MODE as u16,
                    ..file.attributes()
                },
            },
            Node::Directory(directory) => Stat {
                inode,
                kind: Kind::Directory,
                size: 0,
                links: 2 + directory.subdirectories,
                attributes: directory.attributes,
            },
        })
    }

    /// The names of a directory from `offset` on, `.` and `..` first.
    pub fn entries(&self, inode: u64, offset: u64) -> Option<impl Iterator<Item = Entry<'_>>> {
        let directory = self.directory(inode)?;
        let own = [(".", inode), ("..", directory.parent)];
        let children = directory.children.iter().map(|(name, id)| (&**name, *id));
        let all = own.into_iter().chain(children).zip(1..);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        Some(all.skip(skipped).map(|((name, inode), next)| Entry {
            name,
            inode,
            kind: match self.directory(inode) {
                Some(_) => Kind::Directory,
                None => Kind::File,
            },
            next,
        }))
    }

    pub fn file(&self, inode: u64) -> Option<&Arc<VirtualFile>> {
        match self.node(inode)? {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    /// All files, in the order of their paths.
    pub fn into_files(self) -> impl Iterator<Item = Arc<VirtualFile>> {
        self.nodes.into_iter().filter_map(|node| match node {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        })
    }

    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes,
            inodes: self.nodes.len() as u64,
        }
    }

    /// Changes with whatever the kernel may have been told: names, sizes, times, modes.
    pub fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (node, inode) in self.nodes.iter().zip(ROOT..) {
            if let Node::File(file) = node {
                (inode, file.path(), file.size()).hash(&mut hasher);
                let of = file.attributes();
                (of.mode, of.uid, of.gid, of.modified).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    fn node(&self, inode: u64) -> Option<&Node> {
        self.nodes.get(index(inode)?)
    }

    fn directory(&self, inode: u64) -> Option<&Directory> {
        match self.node(inode)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }
}

fn index(inode: u64) -> Option<usize> {
    usize::try_from(inode.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use crate::output::Segment;

    fn file(path: &str, mode: u16, size: usize) -> VirtualFile {
        let attributes = Attributes {
            mode,
            uid: 7,
            gid: 8,
            modified: (size as i64, 0),
        };
        VirtualFile::new(
            path,
            attributes,
            vec![Segment::Inline(vec![0; size].into())],
        )
    }

    fn tree(paths: &[&str]) -> Result<Tree> {
        Tree::new(paths.iter().map(|path| file(path, 0o444, 1)).collect())
    }

    fn names(tree: &Tree, inode: u64, offset: u64) -> Vec<&str> {
        let entries = tree.entries(inode, offset).unwrap();
        entries.map(|entry| entry.name).collect()
    }

    #[test]
    fn slashes_make_directories() {
        let tree = tree(&["b", "a/y", "a-b", "a/x/z"]).unwrap();
        assert_eq!(names(&tree, ROOT, 0), [".", "..", "a", "a-b", "b"]);
        let a = tree.lookup(ROOT, "a").unwrap();
        assert_eq!((a.kind, a.links, a.size), (Kind::Directory, 3, 0));
        assert_eq!(names(&tree, a.inode, 0), [".", "..", "x", "y"]);
        let up = tree.entries(a.inode, 1).unwrap().next().unwrap();
        assert_eq!((up.name, up.inode), ("..", ROOT));
        assert!(tree.lookup(a.inode, "z").is_none());
        assert_eq!(
            tree.usage(),
            Usage {
                bytes: 4,
                inodes: 7
            }
        );
    }

    #[test]
    fn a_listing_goes_on_after_any_entry() {
        let tree = tree(&["a", "b", "c"]).unwrap();
        let all: Vec<Entry> = tree.entries(ROOT, 0).unwrap().collect();
        for (at, entry) in all.iter().enumerate() {
            let rest: Vec<Entry> = tree.entries(ROOT, entry.next).unwrap().collect();
            assert_eq!(rest, all[at + 1..]);
        }
        assert!(names(&tree, ROOT, u64::MAX).is_empty());
    }

    #[test]
    fn order_of_files_does_not_matter() {
        let (one, other) = (
            tree(&["a", "b/c", "d"]).unwrap(),
            tree(&["d", "a", "b/c"]).unwrap(),
        );
        for inode in 1..=5 {
            assert_eq!(one.stat(inode), other.stat(inode));
        }
    }

    #[test]
    fn the_print_tells_names_sizes_and_attributes_apart() {
        let trees = [
            vec![file("a", 0o444, 1)],
            vec![file("b", 0o444, 1)],
            vec![file("a", 0o440, 1)],
            vec![file("a", 0o444, 2)],
            vec![file("a", 0o444, 1), file("b", 0o444, 1)],
        ];
        let print = |files: &[VirtualFile]| Tree::new(files.to_vec()).unwrap().print();
        for (at, one) in trees.iter().enumerate() {
            for (other_at, other) in trees.iter().enumerate() {
                assert_eq!(print(one) == print(other), at == other_at);
            }
        }
    }

    #[test]
    fn impossible_and_colliding_paths_are_refused() {
        for path in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a\nb",
            "a\0",
            "\u{9b}x",
            "a\u{200b}",
            "\u{202e}a",
        ] {
            assert!(tree(&[path]).is_err(), "{path:?}");
        }
        assert!(tree(&[&"x".repeat(256)]).is_err());
        assert!(tree(&["a", "b", "a"]).is_err());
        assert!(tree(&["a", "a-b", "a/b"]).is_err());
    }

    #[test]
    fn directories_open_no_more_than_their_files() {
        let modes = |files: &[(&str, u16)]| {
            let files = files.iter().map(|(path, mode)| file(path, *mode, 1));
            let tree = Tree::new(files.collect()).unwrap();
            let stat = tree.stat(ROOT).unwrap();
            assert_eq!((stat.attributes.uid, stat.attributes.gid), (7, 8));
            stat.attributes.mode
        };
        assert_eq!(modes(&[("a", 0o444)]), 0o555);
        assert_eq!(modes(&[("a", 0o440)]), 0o550);
        assert_eq!(modes(&[("d/a", 0o400)]), 0o500);
        assert_eq!(modes(&[("a", 0o400), ("d/a", 0o444)]), 0o555);
    }

    #[test]
    fn unknown_inodes_have_no_answer() {
        let tree = tree(&["a"]).unwrap();
        for inode in [0, 3, u64::MAX] {
            assert!(tree.stat(inode).is_none() && tree.file(inode).is_none());
            assert!(tree.entries(inode, 0).is_none());
        }
    }
}

//! The FUSE requests: conversions between fuser's types and ours.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use fuser::*;

use super::inodes::FOREVER;
use super::{CheckpointFs, Entry, Shared, attributes};
use crate::source::Caching;
use crate::tree;

const GENERATION: Generation = Generation(0);

/// Kernel features asked for where the kernel has them.
const WANTED: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_MAX_PAGES)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_READDIRPLUS_AUTO);

/// Read-ahead requests that the kernel may have under way at once: those of eight readers, each 16 MiB ahead. Beyond, the
/// kernel takes pages for what lies ahead of a reader, gives them back unread, and at the next page does so again. But who
/// asks for anything else waits for them.
const BACKGROUND: u16 = 256;

/// Unit in which `statfs` counts.
const PAGE: u32 = 4096;

impl Shared {
    /// Adds an entry and what is known of it, and returns whether the buffer is full. Entries that have gone are skipped.
    fn add(&self, entry: &Entry<'_>, reply: &mut ReplyDirectoryPlus) -> bool {
        let inode = INodeNo(entry.inode);
        let Ok(attributes) = self.stat(inode) else {
            return false;
        };
        let lasts = self.inodes.lasts(inode.0);
        let is_full = reply.add(
            inode,
            entry.next,
            entry.name,
            &lasts,
            &attributes,
            GENERATION,
        );
        if !is_full && !matches!(entry.name, "." | "..") {
            self.inodes.shown(inode.0);
        }
        is_full
    }
}

/// Requests that have one answer whatever they say.
macro_rules! always {
    ($errno:ident: $($name:ident($($argument:ty),*) $reply:ty;)*) => {$(
        fn $name(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(Errno::$errno);
        }
    )*};
}

impl CheckpointFs {
    /// Answers at once, or, where a checkpoint must be opened first, on another thread: a slow one holds up no other.
    fn answer(&self, inode: INodeNo, answer: impl FnOnce(&Shared) + Send + 'static) {
        let Some(checkpoint) = self.shared.inodes.unopened(inode.0) else {
            return answer(&self.shared);
        };
        let shared = self.shared.clone();
        let request = Box::new(move || answer(&shared));
        if let Err(error) = self.shared.waiting.add(checkpoint, request) {
            self.shared.errors.record(error);
        }
    }
}

impl Filesystem for CheckpointFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::other("the kernel refuses the settings of the mount");
        config
            .add_capabilities(WANTED & config.capabilities())
            .map_err(|_| io::Error::other("the kernel takes back a feature that it offered"))?;
        config.set_max_background(BACKGROUND).map_err(refused)?;
        config
            .set_congestion_threshold(BACKGROUND)
            .map_err(refused)?;
        let passthrough = InitFlags::FUSE_PASSTHROUGH;
        if self.shared.passthrough.is_wanted()
            && config.capabilities().contains(passthrough)
            && config.set_max_stack_depth(1).is_ok()
        {
            config
                .add_capabilities(passthrough)
                .map_err(|_| io::Error::other("the kernel takes back a feature that it offered"))?;
            self.shared.passthrough.offer();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.answer(parent, move |shared| {
            match shared.guarded(|| shared.find(parent, &name)) {
                Ok(attributes) => {
                    let lasts = shared.inodes.lasts(attributes.ino.0);
                    reply.entry(&lasts, &attributes, GENERATION);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, times: u64) {
        self.shared.inodes.forget(inode.0, times);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.shared.guarded(|| self.shared.stat(inode)) {
            Ok(attributes) => reply.attr(&self.shared.inodes.lasts(inode.0), &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.shared.guarded(|| self.shared.target(inode)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        const KEPT: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);
        self.answer(inode, move |shared| {
            shared.inodes.taken(inode.0);
            match shared.guarded(|| shared.opened(inode, flags, &reply)) {
                Ok(None) => reply.opened(FileHandle(0), KEPT),
                Ok(Some(backing)) => {
                    reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, &backing.id)
                }
                Err(errno) => {
                    shared.inodes.released(inode.0);
                    reply.error(errno);
                }
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.inodes.released(inode.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let caching = match flags.0 & libc::O_DIRECT {
            0 => Caching::Kernel,
            _ => Caching::Bypass,
        };
        let shared = &self.shared;
        let file = match shared.guarded(|| shared.file(inode)) {
            Ok(file) => file,
            Err(errno) => return reply.error(errno),
        };
        match shared.guarded(|| shared.bytes(&file, offset, size, caching)) {
            Ok(bytes) => {
                reply.data(&bytes);
                let settle = || {
                    bytes.settle(&file);
                    Ok(())
                };
                shared.guarded(settle).ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let is_fixed = self.shared.inodes.lasts(inode.0) == FOREVER;
        reply.opened(
            FileHandle(0),
            match is_fixed {
                true => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
                false => FopenFlags::empty(),
            },
        );
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.answer(inode, move |shared| {
            let mut add = |entry: Entry<'_>| {
                let kind = attributes::kind(entry.kind);
                reply.add(INodeNo(entry.inode), entry.next, kind, entry.name)
            };
            match shared.guarded(|| shared.list(inode, offset, &mut add)) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.answer(inode, move |shared| {
            let mut add = |entry: Entry<'_>| shared.add(&entry, &mut reply);
            match shared.guarded(|| shared.list(inode, offset, &mut add)) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let usage = self.shared.inodes.usage();
        let blocks = usage.bytes.div_ceil(u64::from(PAGE));
        reply.statfs(
            blocks,
            0,
            0,
            usage.inodes,
            0,
            PAGE,
            tree::NAME_MAX as u32,
            PAGE,
        );
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    // The mount is read-only, but root can remount it writable.
    always! { EROFS:
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>,
            Option<SystemTime>, Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>,
            Option<BsdFileFlags>
        ) ReplyAttr;
        mknod(INodeNo, &OsStr, u32, u32, u32) ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) ReplyEntry;
        unlink(INodeNo, &OsStr) ReplyEmpty;
        rmdir(INodeNo, &OsStr) ReplyEmpty;
        symlink(INodeNo, &OsStr, &Path) ReplyEntry;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) ReplyEmpty;
        link(INodeNo, INodeNo, &OsStr) ReplyEntry;
        write(INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>) ReplyWrite;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) ReplyEmpty;
        removexattr(INodeNo, &OsStr) ReplyEmpty;
        create(INodeNo, &OsStr, u32, u32, i32) ReplyCreate;
        fallocate(INodeNo, FileHandle, u64, u64, i32) ReplyEmpty;
        copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) ReplyWrite;
    }

    // The kernel asks once, then answers by itself: no extended attributes, seeks by size alone, always readable.
    always! { ENOSYS:
        getxattr(INodeNo, &OsStr, u32) ReplyXattr;
        listxattr(INodeNo, u32) ReplyXattr;
        access(INodeNo, AccessFlags) ReplyEmpty;
        lseek(INodeNo, FileHandle, i64, i32) ReplyLseek;
        poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) ReplyPoll;
        getlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32) ReplyLock;
        setlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32, bool) ReplyEmpty;
        bmap(INodeNo, u32, u64) ReplyBmap;
    }

    always! { ENOTTY:
        ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) ReplyIoctl;
    }
}

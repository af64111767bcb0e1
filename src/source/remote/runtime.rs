//! The one runtime of all connections. Threads that answer the kernel wait on it and never run a part of it.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::runtime::{Builder, Handle, Runtime};

/// Connections wait more than they compute.
const WORKERS: usize = 2;

/// Returns the runtime, started on the first call.
pub fn handle() -> io::Result<Handle> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || {
        // Another part of the program may have installed the same provider already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(WORKERS).thread_name("ckptfs-net");
        builder.enable_all().build().ok()
    };
    let runtime = RUNTIME.get_or_init(start).as_ref();
    let handle = runtime.map(|runtime| runtime.handle().clone());
    handle.ok_or_else(|| io::Error::other("no threads can be started for connections"))
}

/// Runs `work` on the runtime and waits for it.
pub fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (sender, answer) = mpsc::sync_channel(1);
    handle()?.spawn(async move {
        sender.send(work.await).ok();
    });
    // The sender is dropped unsent only by a panic in the work.
    answer
        .recv()
        .map_err(|_| io::Error::other("a bug in ckptfs ended a request"))
}

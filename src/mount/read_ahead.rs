//! How far ahead the kernel reads: a server can only lower what the kernel offers, root can raise it.

/// Two requests of 1 MiB at once, for two threads, instead of one of 128 KiB.
const KIB: &str = "2048";

/// Raises the read-ahead of the filesystem `device` where that is permitted, else says how.
pub fn raise(device: &str) {
    let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if std::fs::write(&setting, KIB).is_err() {
        tracing::info!("sequential reads get faster when root does: echo {KIB} > {setting}");
    }
}

//! One line for each case.

use std::sync::Once;

use super::cases::Row;

pub fn print(row: &Row) {
    static HEAD: Once = Once::new();
    HEAD.call_once(|| {
        println!("| case, caches, reader | base GB/s | GB/s | ratio | base reader CPU s/GB | reader | daemon | source/byte | cached/byte | anon MiB |");
        println!("|---|---|---|---|---|---|---|---|---|---|");
    });
    let Row { name, base, side } = row;
    println!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
        base.bytes_per_second / 1e9,
        side.bytes_per_second / 1e9,
        side.bytes_per_second / base.bytes_per_second,
        base.reader,
        side.reader,
        side.cpu,
        side.source_bytes,
        side.cached_bytes,
        side.anonymous / f64::from(1 << 20),
    );
}

//! `cargo bench --bench mount`: reading through a mount beside reading the plain source, interleaved.
//!
//! Options after `--`: `--size 2GiB` of each source, `--rounds 5`, `--dir DIR` for the data, `--only TEXT` for some cases,
//! `--full-memory` on a virtual machine whose host takes free memory back: its first touch again costs more than a read.
//!
//! Two builds: `--against BINARY` compares each mounted side with the same side of another program. One mechanism of reads:
//! `--features ablation`, and `--without NAME` compares each mounted side with the same side without it (the names stand in
//! `src/source/mechanism.rs`).

mod cases;
mod data;
mod measure;
mod memory;
mod mounted;
mod reading;
mod slow;
mod startup;
mod table;

use std::path::PathBuf;

use mounted::Program;

/// The arguments of the command line.
pub struct Options {
    /// Bytes of each source.
    pub size: u64,
    pub rounds: usize,
    pub dir: PathBuf,
    /// Cases whose names have this in them.
    pub only: String,
    /// The program that is measured, and the one that it is compared with.
    pub program: Program,
    pub rival: Option<Program>,
    /// Whether the page cache takes all free memory before a cold pass.
    pub full_memory: bool,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            size: 2 << 30,
            rounds: 5,
            dir: std::env::temp_dir(),
            only: String::new(),
            program: Program::default(),
            rival: None,
            full_memory: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match &*argument {
                "--size" => options.size = size(&value()),
                "--rounds" => options.rounds = value().parse().expect("a number"),
                "--dir" => options.dir = value().into(),
                "--only" => options.only = value(),
                "--against" => {
                    let binary = value().into();
                    options.rival = Some(Program {
                        binary,
                        ..Program::default()
                    });
                }
                "--without" => {
                    options.rival = Some(Program::default());
                    options.program.without = value();
                }
                "--full-memory" => options.full_memory = true,
                // An argument that cargo passes.
                "--bench" => {}
                other => panic!("unknown option {other}"),
            }
        }
        options
    }
}

fn size(text: &str) -> u64 {
    let number = |suffix| text.strip_suffix(suffix)?.parse::<u64>().ok();
    let gib = number("GiB").map(|number| number << 30);
    gib.or(number("MiB").map(|number| number << 20))
        .expect("a size such as 512MiB or 2GiB")
}

fn main() {
    let options = Options::parse();
    let folder = tempfile::tempdir_in(&options.dir).expect("a folder for the data");
    for case in cases::all() {
        if case.name().contains(&options.only) && case.can_run(&options) {
            table::print(&case.run(&options, folder.path()));
        }
    }
    if options.rival.is_none() {
        startup::run(&options, folder.path());
    }
}

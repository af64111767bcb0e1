//! A numbered bad input, and the table of all.

use std::panic::catch_unwind;

/// A bad input whose answer `check` demands.
pub struct Case {
    pub number: u8,
    pub name: &'static str,
    /// The expected answer, with a reason where it is more than a refusal.
    pub answer: &'static str,
    pub check: fn(),
}

/// Makes each row a test of its own and all of them a table.
macro_rules! cases {
    ($($number:literal $name:ident, $answer:literal => $body:block)*) => {
        pub const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            number: $number,
            name: stringify!($name),
            answer: $answer,
            check: $name,
        }),*];
        $(#[test] fn $name() $body)*
    };
}

/// Prints every case with what came of it.
///
/// # Panics
/// When a case failed or a number is missing.
pub fn print_table(sections: &[(&str, &str, &[Case])]) {
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (letter, title, cases) in sections {
        println!("\n{letter}. {title}");
        for case in *cases {
            let is_safe = catch_unwind(case.check).is_ok();
            let verdict = if is_safe { "passed" } else { "FAILED" };
            let name = case.name.replace('_', " ");
            println!("{:>4}  {verdict}  {name}: {}", case.number, case.answer);
            if is_safe { &mut passed } else { &mut failed }.push(case.number);
        }
    }
    println!("\n{} passed, {} failed", passed.len(), failed.len());
    assert!(failed.is_empty(), "failed: {failed:?}");
    assert_eq!(passed, (1..=100).collect::<Vec<u8>>());
}

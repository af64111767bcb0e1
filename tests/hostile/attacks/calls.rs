//! Pickles that call a function: every function of the scanners' corpora, in each protocol that can name it.

use super::attack::{PYTHON, SHELL, weights};
use crate::make::pickle::{Value, call, dict, global, pickle, small, text};
use crate::make::zip::Zip;
use crate::scene::{refused, shown};

/// A function that a published pickle calls.
struct Call {
    verdict: &'static str,
    module: &'static str,
    function: &'static str,
    from: &'static str,
}

fn calls() -> impl Iterator<Item = Call> {
    let rows = include_str!("calls.txt").lines();
    let rows = rows.filter(|row| !row.is_empty() && !row.starts_with('#'));
    rows.map(|row| {
        let (verdict, rest) = row.split_once(' ').unwrap();
        let (module, rest) = rest.trim_start().split_once(' ').unwrap();
        let (function, from) = rest.split_once(' ').unwrap();
        Call {
            verdict,
            module,
            function,
            from: from.trim_start(),
        }
    })
}

pub fn each_in_every_protocol_and_container() {
    for call in calls() {
        let name = format!("{}.{}", call.module, call.function);
        for pickle in [pickle(&call.made()), call.protocol_4()] {
            let zip = Zip::of_pickle(&pickle);
            refused(weights(&zip.bytes()), &[call.complaint_alone()]);
            // As the scanners have them: the pickle is the file.
            refused(weights(&pickle), &["pytorch_model.bin"]);
        }
        let beside = dict(&[("x", call.made()), ("w", small())]);
        let beside = weights(&Zip::torch(&beside).bytes());
        match call.is_refused() {
            true => refused(beside, &[&name, "nothing was executed"]),
            false => shown(beside, &["\"w\""]),
        }
        println!("{:>8}  {}: {name}", call.verdict, call.from);
    }
}

impl Call {
    fn is_refused(&self) -> bool {
        self.verdict == "refused"
    }

    /// The expected refusal of a file that consists of the call alone.
    fn complaint_alone(&self) -> &'static str {
        match self.is_refused() {
            true => "nothing was executed",
            false => "holds no weights",
        }
    }

    fn made(&self) -> Value {
        let function = global(self.module, self.function);
        call(function, &[text(SHELL), text(PYTHON)])
    }

    /// With a frame, short texts, and the name put together on the stack.
    fn protocol_4(&self) -> Vec<u8> {
        let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes(), b"\x94"].concat();
        let name = [short(self.module), short(self.function)].concat();
        let arguments = [short(SHELL), short(PYTHON)].concat();
        let body = [&*name, b"\x93\x94", &arguments, b"\x86R."].concat();
        let length = (body.len() as u64).to_le_bytes();
        [b"\x80\x04\x95", &length[..], &body].concat()
    }
}

//! Text for terminals and logs: names in a checkpoint are not to be trusted.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a parser's message that are kept.
const BEGINNING: usize = 500;

/// Half of the characters that a line may have: more than the longest path, and the longest name of a tensor.
const HALF_LINE: usize = 5000;

/// `text` without anything that could break the line or steer a terminal: names in a checkpoint are not to be trusted.
pub fn one_line(text: &str) -> String {
    shortened(text)
        .chars()
        .flat_map(|char| {
            let escaped = steers(char).then(|| char.escape_default());
            let plain = escaped.is_none().then_some(char);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// JSON that says the same and steers no terminal: outside of strings it has no such characters but line breaks.
pub fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match steers(char) && char != '\n' {
            true => {
                let units = char.encode_utf16(&mut [0; 2]).to_vec();
                plain.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
            false => plain.push(char),
        }
    }
    plain
}

/// `2026-11-30 17:05:09.250 UTC`.
pub fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let (seconds, millis) = (seconds % 60, since.subsec_millis());
    format!("{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{millis:03} UTC")
}

/// Year, month and day after so many days since 1970. Counted from a first of March, leap days come last in their year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of the year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Front and end of a text that is too long for a line: the reason stands at the end.
fn shortened(text: &str) -> Cow<'_, str> {
    let front = text.char_indices().nth(HALF_LINE);
    let end = text.char_indices().nth_back(HALF_LINE);
    match front.zip(end) {
        Some(((front, _), (end, _))) if front < end => {
            format!("{} ... {}", &text[..front], &text[end..]).into()
        }
        _ => text.into(),
    }
}

/// The beginning of a parser's message, which may quote a value of a hundred megabytes whole.
pub fn beginning(message: &dyn Display) -> String {
    let mut beginning = Beginning(String::new());
    match write!(beginning, "{message}") {
        Ok(()) => beginning.0,
        // The rest was not written.
        Err(_) => beginning.0 + "...",
    }
}

struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = BEGINNING.saturating_sub(self.0.len());
        match text.get(..room) {
            Some(part) if part.len() < text.len() => {
                self.0 += part;
                Err(fmt::Error)
            }
            None if text.len() > room => Err(fmt::Error),
            _ => {
                self.0 += text;
                Ok(())
            }
        }
    }
}

/// Control characters, those that reorder or split the text around them, and invisible ones.
pub fn steers(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2064}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A path as a word of a shell's command line.
pub fn quoted(path: &Path) -> String {
    let plain = |char: char| char.is_alphanumeric() || "/._-+=:,@%".contains(char);
    match path.to_str() {
        Some(text) if text.starts_with('-') => quoted(&Path::new(".").join(text)),
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_owned(),
        Some(text) if !text.chars().any(steers) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => escaped(path),
    }
}

/// Quotes for names with bytes that no terminal shows: bash, zsh and POSIX.1-2024 have them.
fn escaped(path: &Path) -> String {
    let word = |byte: &u8| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\{other:03o}"),
    };
    let words: String = path.as_os_str().as_bytes().iter().map(word).collect();
    format!("$'{words}'")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(beginning(&"short"), "short");
        let long = "\u{e9}".repeat(BEGINNING);
        let cut = beginning(&long);
        assert!(cut.len() <= BEGINNING + 3 && cut.ends_with("..."), "{cut}");
        let exact = "x".repeat(BEGINNING);
        assert_eq!(beginning(&exact), exact);
    }

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00.250 UTC"),
            (951_782_400, "2000-02-29 00:00:00.250 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59.250 UTC"),
            (1_764_522_309, "2025-11-30 17:05:09.250 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00.250 UTC"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(1000 * seconds + 250);
            assert_eq!(utc(time), expected);
        }
    }

    #[test]
    fn quoted_paths_are_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.0")), "/a/b-1.0");
        assert_eq!(quoted(Path::new("/a b/c'd")), r"'/a b/c'\''d'");
        assert_eq!(quoted(Path::new("-rf")), "./-rf");
        let names = [
            "a b",
            "a'b",
            "$(id)",
            "~",
            "a\nb",
            "a\\b'\u{202e}",
            "a;b",
            "é",
            "*",
            "",
        ];
        let bytes = names
            .map(str::as_bytes)
            .into_iter()
            .chain([&b"\xff'\\"[..]]);
        for name in bytes {
            let path = Path::new(OsStr::from_bytes(name));
            let script = format!("printf %s {}", quoted(path));
            let said = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(said.stdout, name, "{script}");
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(
            one_line(&format!("{}why", "x".repeat(1 << 20))).len(),
            10_006
        );
        assert_eq!(one_line("poids \u{202e}gpj.é"), "poids \\u{202e}gpj.é");
    }

    #[test]
    fn nothing_in_a_line_is_invisible() {
        for char in [
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{2060}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let escaped = char.escape_default().to_string();
            assert_eq!(one_line(&format!("a{char}b")), format!("a{escaped}b"));
        }
    }

    #[test]
    fn json_means_the_same_and_steers_no_terminal() {
        let names = serde_json::json!([
            "a\u{9b}31m\u{7f}",
            "\u{1b}[m\n",
            "é \u{202e}x",
            "\u{e0041}\u{feff}"
        ]);
        let text = plain_json(&serde_json::to_string_pretty(&names).unwrap());
        assert!(
            !text.contains(|char| steers(char) && char != '\n'),
            "{text:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            names
        );
    }
}

//! Failed requests: all counted, few logged, each in one line.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines logged in each period; a reader that retries must not fill the disk.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(30);

/// Half of the characters that a line may have: more than the longest path, and the longest name of a tensor.
const HALF_LINE: usize = 5000;

/// What is logged and counted of failed requests.
#[derive(Debug, Default)]
pub struct ErrorLog {
    total: AtomicU64,
    period: Mutex<Period>,
}

impl ErrorLog {
    pub fn record(&self, what: impl Display) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let (logged, suppressed) = self.with(|period| period.admit(Instant::now()));
        report(suppressed);
        if logged {
            tracing::warn!("{}", one_line(&what.to_string()));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Period) -> T) -> T {
        act(&mut self.period.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for ErrorLog {
    fn drop(&mut self) {
        report(self.with(|period| period.suppressed));
        let total = *self.total.get_mut();
        if total > 0 {
            tracing::info!("{total} requests failed");
        }
    }
}

fn report(suppressed: u64) {
    if suppressed > 0 {
        tracing::warn!("{suppressed} more errors like these were not logged");
    }
}

#[derive(Debug, Default)]
struct Period {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Period {
    /// Whether an error at `now` is logged, and how many of the period before were not.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let over = self
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= PERIOD);
        let suppressed = if over { self.suppressed } else { 0 };
        if over {
            *self = Self {
                began: Some(now),
                ..Self::default()
            };
        }
        let logged = self.lines < LINES;
        self.lines += u32::from(logged);
        self.suppressed += u64::from(!logged);
        (logged, suppressed)
    }
}

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

/// Control characters, those that reorder or split the text around them, and those that nobody sees.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_in_each_period_then_a_count() {
        let start = Instant::now();
        let mut period = Period::default();
        let answers: Vec<_> = (0..15).map(|_| period.admit(start)).collect();
        assert!(answers[..10].iter().all(|answer| *answer == (true, 0)));
        assert!(answers[10..].iter().all(|answer| *answer == (false, 0)));
        assert_eq!(period.admit(start + PERIOD), (true, 5));
        assert_eq!(period.admit(start + PERIOD), (true, 0));
    }

    #[test]
    fn every_error_counts() {
        let log = ErrorLog::default();
        (0..25).for_each(|_| log.record("x"));
        assert_eq!(log.total.load(Ordering::Relaxed), 25);
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

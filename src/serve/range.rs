//! The range of bytes that a request asks for.

use std::ops::Range;

/// The part of a file that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Whole,
    Range(Range<u64>),
    /// No byte of the file.
    Unsatisfiable,
}

/// Reads the header `Range` for a file of so many bytes. One that is not understood, or asks for several ranges, is ignored, as
/// HTTP allows.
pub fn part(header: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = header
        .and_then(|header| header.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    match (first, number(first), last, number(last)) {
        // The last bytes of the file.
        ("", _, _, Some(0)) => Part::Unsatisfiable,
        ("", _, _, Some(_)) if size == 0 => Part::Unsatisfiable,
        ("", _, _, Some(count)) => Part::Range(size.saturating_sub(count)..size),
        (_, Some(first), "", _) if first < size => Part::Range(first..size),
        (_, Some(first), _, Some(last)) if first <= last && first < size => {
            Part::Range(first..last.saturating_add(1).min(size))
        }
        (_, Some(first), _, Some(last)) if first > last => Part::Whole,
        (_, Some(_), "", _) | (_, Some(_), _, Some(_)) => Part::Unsatisfiable,
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_http_has_them() {
        for (header, expected) in [
            ("bytes=0-0", Part::Range(0..1)),
            ("bytes=2-", Part::Range(2..10)),
            ("bytes=2-99", Part::Range(2..10)),
            ("bytes=-3", Part::Range(7..10)),
            ("bytes=-99", Part::Range(0..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-12", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-2", Part::Whole),
            ("bytes=a-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=99999999999999999999-", Part::Unsatisfiable),
        ] {
            assert_eq!(part(Some(header), 10), expected, "{header}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
        assert_eq!(part(Some("bytes=-5"), 0), Part::Unsatisfiable);
    }
}

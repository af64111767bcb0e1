//! The text of a config.json, in which single values change and all else stays byte for byte.

use std::ops::Range;

use serde_json::{Map, Value};

use crate::checkpoint::foreign;
use crate::error::Result;
use crate::source::SourceFile;

/// Python's words for numbers that JSON lacks.
const NO_NUMBERS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

/// A text that is one JSON object.
#[derive(Debug)]
pub struct Text(String);

impl Text {
    /// The text of `file`, and its values: a number that JSON lacks is `null` among them.
    ///
    /// # Errors
    /// When it is no JSON, not even Python's.
    pub fn parse(file: &SourceFile, bytes: Vec<u8>) -> Result<(Self, Map<String, Value>)> {
        let values = serde_json::from_slice(&bytes).or_else(|error| {
            let plain = std::str::from_utf8(&bytes)
                .ok()
                .map(without_missing_numbers);
            plain
                .and_then(|plain| serde_json::from_str(&plain).ok())
                .ok_or(error)
        });
        let values = values.map_err(|error| foreign::no_json(file.path(), &bytes, &error))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok((Self(text), values))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    /// Replaces the value of `key` in the object at `section`, if it has one.
    pub fn replace(&mut self, section: Option<&str>, key: &str, value: &Value) {
        let members = self.members(section);
        let own = members.into_iter().rev().filter(|(name, _)| name == key);
        let places: Vec<Range<usize>> = own.map(|(_, place)| place).collect();
        for place in places {
            self.0.replace_range(place, &value.to_string());
        }
    }

    /// Replaces `old` in the list that is the value of `key`.
    pub fn replace_inside(&mut self, key: &str, old: &Value, new: &Value) {
        let (old, new) = (old.to_string(), new.to_string());
        let mut members = self.members(None).into_iter().rev();
        let list = members.find(|(name, _)| name == key);
        if let Some((_, place)) = list {
            let text = self.0[place.clone()].replace(&old, &new);
            self.0.replace_range(place, &text);
        }
    }

    /// Adds a member behind the last of the object at `section`.
    pub fn add(&mut self, section: Option<&str>, key: &str, value: &Value) {
        let indent = if section.is_some() { "    " } else { "  " };
        let value = serde_json::to_string_pretty(value).unwrap_or_default();
        let value = value.replace('\n', &format!("\n{indent}"));
        let member = format!("{}: {value}", Value::from(key));
        match self.members(section).last() {
            Some((_, place)) => self
                .0
                .insert_str(place.end, &format!(",\n{indent}{member}")),
            None => {
                let start = self.start(section).map_or(0, |start| start + 1);
                self.0.insert_str(start, &format!("\n{indent}{member}\n"));
            }
        }
    }

    /// Removes a member of the object at `section`, with the comma before it, or behind it where it is the first.
    pub fn remove(&mut self, section: Option<&str>, key: &str) {
        while let Some((start, members)) = self.start(section).map(|at| (at, self.members(section)))
            && let Some(number) = members.iter().position(|(name, _)| name == key)
            && let Some((_, own)) = members.get(number)
        {
            let before = number.checked_sub(1).and_then(|last| members.get(last));
            let comma = self.0.get(own.end..).and_then(|rest| rest.find(','));
            let range = match (before, members.get(number + 1)) {
                (Some((_, before)), _) => before.end..own.end,
                (None, Some(_)) => start + 1..own.end + comma.map_or(0, |comma| comma + 1),
                (None, None) => start + 1..own.end,
            };
            self.0.replace_range(range, "");
        }
    }

    /// Keys of the object at `section`, and where their values stand.
    fn members(&self, section: Option<&str>) -> Vec<(String, Range<usize>)> {
        self.start(section)
            .map_or(Vec::new(), |start| members(&self.0, start))
    }

    /// Where the object at `section` begins.
    fn start(&self, section: Option<&str>) -> Option<usize> {
        let root = self.0.find('{')?;
        let Some(section) = section else {
            return Some(root);
        };
        let mut inner = members(&self.0, root).into_iter().rev();
        let (_, place) = inner.find(|(key, _)| key == section)?;
        self.0[place.clone()]
            .starts_with('{')
            .then_some(place.start)
    }
}

/// The members of the object that begins at `start` of a text that is JSON.
fn members(text: &str, start: usize) -> Vec<(String, Range<usize>)> {
    let mut all = Vec::new();
    let mut at = start + 1;
    while let Some(key) = text.get(at..).and_then(|rest| rest.find(['"', '}'])) {
        at += key;
        if text[at..].starts_with('}') {
            break;
        }
        let end = value_end(text, at);
        let name: String = serde_json::from_str(&text[at..end]).unwrap_or_default();
        let Some(colon) = text[end..].find(':') else {
            break;
        };
        let rest = &text[end + colon + 1..];
        at = text.len() - rest.trim_start().len();
        let end = value_end(text, at);
        all.push((name, at..end));
        at = end;
    }
    all
}

/// Where the value ends that begins at `start`.
fn value_end(text: &str, start: usize) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => {
                in_string = !in_string;
                if !in_string && depth == 0 {
                    return at + 1;
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// The text with `null` in the place of each number that JSON lacks.
fn without_missing_numbers(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => value_end(rest, 0),
            _ => first.len_utf8(),
        };
        match NO_NUMBERS.iter().find(|number| rest.starts_with(**number)) {
            Some(number) => {
                plain.push_str("null");
                rest = &rest[number.len()..];
            }
            None => {
                plain.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(text: &str) -> Result<(Text, Map<String, Value>)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let file = SourceFile::open(file.path()).unwrap();
        Text::parse(&file, text.as_bytes().to_vec())
    }

    const CONFIG: &str = "{\n  \"a\" : [1, {\"dtype\": \"x\"}],\n  \"dtype\": \"f\\\"32\",\n \"limit\": [0.0, Infinity, -Infinity],\n\
        \"text_config\": {\"dtype\":\"NaN\", \"b\": NaN}, \"z\": true }";

    #[test]
    fn pythons_numbers_are_null_and_stay_in_the_text() {
        let (text, values) = parse(CONFIG).unwrap();
        assert_eq!(values["limit"], serde_json::json!([0.0, null, null]));
        assert_eq!(
            values["text_config"],
            serde_json::json!({"dtype": "NaN", "b": null})
        );
        assert_eq!(text.bytes(), CONFIG.as_bytes());
        assert!(parse("{\"a\": Nan}").is_err());
        assert!(parse("{\"a\": 1").is_err());
    }

    #[test]
    fn one_value_changes_and_no_other_byte() {
        let (mut text, _) = parse(CONFIG).unwrap();
        text.replace(None, "dtype", &"bfloat16".into());
        assert_eq!(text.0, CONFIG.replace("\"f\\\"32\"", "\"bfloat16\""));
        text.replace(Some("text_config"), "dtype", &"half".into());
        text.replace(Some("missing"), "dtype", &"half".into());
        let wanted = CONFIG
            .replace("\"f\\\"32\"", "\"bfloat16\"")
            .replace("\"NaN\"", "\"half\"");
        assert_eq!(text.0, wanted);
    }

    #[test]
    fn members_go_with_their_commas() {
        let removed = |key: &str, section: Option<&str>| {
            let (mut text, _) =
                parse("{\n  \"a\": 1,\n  \"b\": {\"c\": 2, \"d\": 3},\n  \"e\": [4]\n}\n").unwrap();
            text.remove(section, key);
            parse(&text.0).unwrap();
            text.0
        };
        assert_eq!(
            removed("a", None),
            "{\n  \"b\": {\"c\": 2, \"d\": 3},\n  \"e\": [4]\n}\n"
        );
        assert_eq!(
            removed("e", None),
            "{\n  \"a\": 1,\n  \"b\": {\"c\": 2, \"d\": 3}\n}\n"
        );
        assert_eq!(
            removed("c", Some("b")),
            "{\n  \"a\": 1,\n  \"b\": { \"d\": 3},\n  \"e\": [4]\n}\n"
        );
        assert_eq!(
            removed("d", Some("b")),
            "{\n  \"a\": 1,\n  \"b\": {\"c\": 2},\n  \"e\": [4]\n}\n"
        );
        let (mut text, _) = parse("{\"a\": 1}").unwrap();
        text.remove(None, "a");
        text.remove(None, "b");
        text.add(None, "b", &serde_json::json!({"c": [1]}));
        parse(&text.0).unwrap();
    }

    #[test]
    fn members_are_added_behind_the_last() {
        let (mut text, _) = parse("{\n  \"a\": 1\n}\n").unwrap();
        text.add(None, "b", &true.into());
        assert_eq!(text.0, "{\n  \"a\": 1,\n  \"b\": true\n}\n");
        let (mut text, _) = parse("{}").unwrap();
        text.add(None, "b", &2.into());
        assert_eq!(text.0, "{\n  \"b\": 2\n}");
        let (mut text, _) = parse(CONFIG).unwrap();
        text.add(Some("text_config"), "c", &2.into());
        assert!(text.0.contains("\"b\": NaN,\n    \"c\": 2}"), "{}", text.0);
    }
}

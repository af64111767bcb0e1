//! Whether a message says what to do.

/// The words with which a hint begins.
const VERBS: [&str; 23] = [
    "add", "allow", "cast", "copy", "download", "fetch", "free", "give", "leave", "let", "load",
    "look", "make", "mend", "mount", "move", "name", "pass", "put", "save", "stop", "take",
    "unpack",
];

/// Phrases of messages that name two contradicting sides, of which only the user knows the wrong one.
const CONTRADICTIONS: [&str; 3] = [
    "config.json contradicts the tensors",
    "missing: model.",
    "not in the model that config.json describes",
];

/// Whether a clause of `line` tells the user to do something.
pub fn says_what_to_do(line: &str) -> bool {
    if CONTRADICTIONS.iter().any(|both| line.contains(both)) {
        return true;
    }
    let mut clauses = line.split([';', ':', '?', ',']);
    clauses.any(|clause| {
        let clause = clause.trim_start().trim_start_matches("If so, ");
        VERBS
            .iter()
            .any(|verb| clause.starts_with(&format!("{verb} ")))
    })
}

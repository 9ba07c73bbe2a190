//! What may stand in a line of a template: fields in braces, which are filled with text, and placeholders of media.

use super::{INSTRUCTION, TRANSCRIPT, Turn, prompt_error};
use crate::DataError;

/// Fills `{instruction}` and `{transcript}` in one pass, so that a transcript which spells `{instruction}` stays text.
pub(super) fn fill(line: &str, turn: &Turn) -> String {
    let mut filled = String::new();
    let mut rest = line;
    loop {
        let next = [
            (INSTRUCTION, turn.instruction),
            (TRANSCRIPT, turn.transcript.unwrap_or_default()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((rest.find(name)?, name, value)))
        .min_by_key(|(start, ..)| *start);
        let Some((start, name, value)) = next else {
            filled.push_str(rest);
            return filled;
        };
        filled.push_str(&rest[..start]);
        filled.push_str(value.trim());
        rest = &rest[start + name.len()..];
    }
}

/// Refuses a `{word}` that nothing fills: it would be read out to the model as it stands.
pub(super) fn check_fields(what: &str, lines: &[String], known: &[&str]) -> Result<(), DataError> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for line in lines {
        for (start, _) in line.match_indices('{') {
            let Some(length) = line[start..].find('}') else {
                continue;
            };
            let field = &line[start..=start + length];
            let name = &field[1..length];
            if !name.is_empty() && name.chars().all(is_name) && !known.contains(&field) {
                return Err(prompt_error(format!(
                    "{what} holds `{field}`, which nothing fills; known are {}{}",
                    known.join(", "),
                    crate::error::hint(field, known)
                )));
            }
        }
    }
    Ok(())
}

/// `line` without the placeholders that no slot claims; `None` where those were all it had.
pub(super) fn without_unclaimed(line: &str, is_claimed: impl Fn(&str) -> bool) -> Option<String> {
    let (claimed, unclaimed): (Vec<&str>, Vec<&str>) =
        placeholders(line).partition(|name| is_claimed(name));
    if claimed.is_empty() && !unclaimed.is_empty() {
        return None;
    }
    let kept = unclaimed
        .iter()
        .fold(line.to_string(), |line, name| line.replace(name, ""));
    Some(if unclaimed.is_empty() {
        kept
    } else {
        kept.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

/// The stretches of `text` that look like `<name>`.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices('<').filter_map(move |(start, _)| {
        let length = text[start..].find('>')?;
        let name = &text[start + 1..start + length];
        (!name.is_empty() && name.chars().all(is_name)).then(|| &text[start..=start + length])
    })
}

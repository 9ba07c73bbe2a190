//! Whether a word in an answer is negated: a window of words around it, no grammar.

use crate::words::{ends_with, is_word};
use std::ops::Range;

/// Whether the phrase at `mention` is negated by the words before or after it.
pub(crate) fn is_negated(tokens: &[String], mention: Range<usize>) -> bool {
    is_negated_before(tokens, mention.start) || is_negated_after(tokens, mention.end)
}

/// How many words after itself a negation reaches: `not at all happy`, but not the label in
/// `not smiling and looks sad`.
const REACH: usize = 3;

const NEGATIONS: [&[&str]; 26] = [
    &["not"],
    &["no"],
    &["non"],
    &["nor"],
    &["never"],
    &["neither"],
    &["without"],
    &["cannot"],
    &["hardly"],
    &["rather", "than"],
    &["instead", "of"],
    &["opposed", "to"],
    &["far", "from"],
    &["lack", "of"],
    &["lacks"],
    &["absence", "of"],
    &["free", "of"],
    &["anything", "but"],
    &["nicht"],
    &["kein"],
    &["keine"],
    &["keinen"],
    &["nie"],
    &["ohne"],
    &["不"],
    &["没"],
];

/// Words that take the negation out of the word before them.
const AFFIRMATIONS: [&str; 6] = ["only", "just", "merely", "simply", "doubt", "question"];

/// Words at which a new clause begins that an earlier negation does not reach.
const TURNS: [&str; 8] = [
    "but", "yet", "however", "although", "though", "because", "sondern", "aber",
];

fn is_negated_before(tokens: &[String], start: usize) -> bool {
    for end in (start.saturating_sub(REACH - 1).max(1)..=start).rev() {
        if is_negation(&tokens[..end]) {
            // A mention does not affirm itself: doubt is a label of some sets.
            return end == start || !AFFIRMATIONS.contains(&tokens[end].as_str());
        }
        let word = &tokens[end - 1];
        if !is_word(word) || TURNS.contains(&word.as_str()) {
            return false;
        }
    }
    false
}

/// Whether `tokens` end in a negation: one of the list, or a verb with `n't`.
fn is_negation(tokens: &[String]) -> bool {
    tokens.last().is_some_and(|word| word.ends_with("n't"))
        || NEGATIONS.iter().any(|phrase| ends_with(tokens, phrase))
}

/// `happiness is not heard`, `happiness isn't heard`: the verb must follow at once, so that `sad, not happy` and
/// `sad not happy` leave sad alone.
fn is_negated_after(tokens: &[String], end: usize) -> bool {
    const VERBS: [&str; 8] = ["is", "are", "was", "were", "does", "do", "did", "can"];
    match &tokens[end..] {
        [verb, ..] if verb.ends_with("n't") || verb == "cannot" => true,
        [verb, not, after @ ..] => {
            let affirmed = after
                .first()
                .is_some_and(|word| AFFIRMATIONS.contains(&word.as_str()));
            VERBS.contains(&verb.as_str()) && not == "not" && !affirmed
        }
        _ => false,
    }
}

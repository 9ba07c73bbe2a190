//! Text as words and the marks that end a clause: the common ground of answers, label names and rules.

/// The token of a colon or equals sign, which separates clauses and may follow a concluding word.
pub(crate) const COLON: &str = ":";
/// The token of all other punctuation that separates clauses.
pub(crate) const STOP: &str = ".";

/// Lower-case words, [`STOP`]s and [`COLON`]s; everything else separates words and is dropped.
pub(crate) fn tokenize(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    // The extra space ends the last word.
    for character in text.chars().chain([' ']) {
        let own_token = match character {
            '.' | ',' | ';' | '!' | '?' | '(' | ')' | '\n' | '—' | '–' => {
                Some(STOP.to_string())
            }
            '。' | '，' | '、' | '；' | '！' | '？' | '（' | '）' => Some(STOP.to_string()),
            ':' | '：' | '=' => Some(COLON.to_string()),
            _ if is_cjk(character) => Some(character.to_string()),
            _ => None,
        };
        if own_token.is_none() && character.is_alphanumeric() {
            word.extend(character.to_lowercase());
            continue;
        }
        if matches!(character, '\'' | '’') && !word.is_empty() {
            word.push('\'');
            continue;
        }
        // A quote that closes after the word looks like an apostrophe.
        let finished = word.trim_end_matches('\'');
        if !finished.is_empty() {
            tokens.push(finished.to_string());
        }
        word.clear();
        tokens.extend(own_token);
    }
    tokens
}

pub(crate) fn is_word(token: &str) -> bool {
    token != STOP && token != COLON
}

/// Whether the last of `tokens` are `phrase`.
pub(crate) fn ends_with(tokens: &[String], phrase: &[&str]) -> bool {
    tokens.len() >= phrase.len() && tokens[tokens.len() - phrase.len()..] == *phrase
}

/// Han, Hiragana and Katakana are written without spaces, so each character stands for a word.
fn is_cjk(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

//! From the text a model generated to a label, by rules that can be read.
//!
//! The rules prefer Unparsed to a guess: an answer that names two emotions, or none, is no class. They know negations
//! of English, and the commonest of German and Chinese; stemming, spelling correction and Unicode normalisation are
//! deliberately absent, so word forms must be aliases of the label set.

use crate::negation::is_negated;
use crate::words::{COLON, ends_with, is_word, tokenize};
use limbic_data::LabelSet;

/// The label that `text` names, as its index in `labels`, or `None` where the answer is unparsed.
///
/// Text and labels are compared as words: case, quotes, markup and the kind of apostrophe do not matter, each CJK
/// character is a word. The first rule that applies decides:
///
/// 1. **Exact.** The whole answer is one name or alias: `Happy.` is happy.
/// 2. **Conclusion.** After the last concluding phrase (`... point to`, `the answer is`, `emotion:`, `therefore`), the
///    labels mentioned decide alone: `An angry face, but all signs point to sad` is sad.
/// 3. **Agreement.** Without a conclusion that mentions a label, all mentions decide: `happy eyes, a happy voice` is
///    happy, `a happy face, a sad voice` is unparsed.
///
/// A mention is a name or alias as whole words (`unhappy` does not mention happy), the longest one where several begin
/// at the same word. Negated mentions decide nothing: `not happy`, `isn't really happy`, `no longer happy`,
/// `neither happy nor sad`, `sad rather than happy`, `happiness is not heard`. A negation reaches three words ahead,
/// not beyond punctuation or a `but`; `not only` and `no doubt` negate nothing.
///
/// ```
/// use limbic_data::{Label, LabelSet};
/// use limbic_eval::parse_answer;
///
/// let label = |name: &str, alias: &str| Label { name: name.into(), aliases: vec![alias.into()] };
/// let labels = LabelSet {
///     name: "two".into(),
///     labels: vec![label("happy", "joy"), label("sad", "sadness")],
/// };
/// assert_eq!(parse_answer(" Sadness! ", &labels), Some(1));
/// assert_eq!(parse_answer("She smiles, but she is not happy; she is sad.", &labels), Some(1));
/// assert_eq!(parse_answer("Words of joy, yet the signs point to: sad", &labels), Some(1));
/// assert_eq!(parse_answer("Joy and sadness at once.", &labels), None);
/// ```
pub fn parse_answer(text: &str, labels: &LabelSet) -> Option<usize> {
    let phrases = phrases(labels);
    let tokens = tokenize(text);

    let words: Vec<_> = tokens.iter().filter(|token| is_word(token)).collect();
    if let Some(exact) = phrases
        .iter()
        .find(|phrase| words.iter().copied().eq(&phrase.words))
    {
        return Some(exact.label);
    }

    let mentions = mentions(&tokens, &phrases);
    let conclusion = conclusion_start(&tokens);
    let concluded = mentions.partition_point(|mention| mention.start < conclusion);
    let deciding = match &mentions[concluded..] {
        [] => &mentions[..],
        after_conclusion => after_conclusion,
    };
    only_label(deciding)
}

/// A name or alias, as words.
struct Phrase {
    words: Vec<String>,
    label: usize,
}

/// A phrase found in the answer; `start` is the index of its first token.
struct Mention {
    start: usize,
    label: usize,
    negated: bool,
}

fn phrases(labels: &LabelSet) -> Vec<Phrase> {
    let mut phrases = Vec::new();
    for (label, entry) in labels.labels.iter().enumerate() {
        for name in std::iter::once(&entry.name).chain(&entry.aliases) {
            let mut words = tokenize(name);
            words.retain(|token| is_word(token));
            // A name of punctuation alone would be mentioned everywhere.
            if !words.is_empty() {
                phrases.push(Phrase { words, label });
            }
        }
    }
    phrases
}

fn mentions(tokens: &[String], phrases: &[Phrase]) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut start = 0;
    while start < tokens.len() {
        let longest = phrases
            .iter()
            .filter(|phrase| tokens[start..].starts_with(&phrase.words))
            .max_by_key(|phrase| phrase.words.len());
        let Some(phrase) = longest else {
            start += 1;
            continue;
        };
        let end = start + phrase.words.len();
        mentions.push(Mention {
            start,
            label: phrase.label,
            negated: is_negated(tokens, start..end),
        });
        start = end;
    }
    mentions
}

/// The label of all mentions that are not negated, if it is one and the same.
fn only_label(mentions: &[Mention]) -> Option<usize> {
    let mut labels = mentions
        .iter()
        .filter(|mention| !mention.negated)
        .map(|mention| mention.label);
    let first = labels.next()?;
    labels.all(|label| label == first).then_some(first)
}

const CONCLUSIONS: [&[&str]; 19] = [
    &["point", "to"],
    &["points", "to"],
    &["pointing", "to"],
    &["answer", "is"],
    &["emotion", "is"],
    &["feeling", "is"],
    &["label", "is"],
    &["conclusion", "is"],
    &["answer", COLON],
    &["emotion", COLON],
    &["feeling", COLON],
    &["label", COLON],
    &["conclusion", COLON],
    &["therefore"],
    &["thus"],
    &["hence"],
    &["overall"],
    &["in", "conclusion"],
    &["in", "summary"],
];

/// Index of the token after the last concluding phrase; 0 where there is none.
fn conclusion_start(tokens: &[String]) -> usize {
    (0..=tokens.len())
        .rev()
        .find(|&end| {
            CONCLUSIONS
                .iter()
                .any(|phrase| ends_with(&tokens[..end], phrase))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbic_data::Label;

    fn labels() -> LabelSet {
        let label = |name: &str, aliases: &[&str]| Label {
            name: name.to_string(),
            aliases: aliases.iter().map(|alias| alias.to_string()).collect(),
        };
        LabelSet {
            name: "test".to_string(),
            labels: vec![
                label("happy", &["happiness", "joy", "glücklich", "高兴"]),
                label("sad", &["sadness", "traurig", "low in spirits"]),
                label("angry", &["anger"]),
                label("surprised", &["angry surprise", "surprise"]),
            ],
        }
    }

    fn name(answer: &str) -> &'static str {
        parse_answer(answer, &labels()).map_or("unparsed", |index| {
            ["happy", "sad", "angry", "surprised"][index]
        })
    }

    fn check(cases: &[(&str, &str)]) {
        for (answer, wanted) in cases {
            assert_eq!(name(answer), *wanted, "answer: {answer}");
        }
    }

    #[test]
    fn exact_answers() {
        check(&[
            ("happy", "happy"),
            ("  Happy.\n", "happy"),
            ("**\"SADNESS\"**!", "sad"),
            ("low in spirits", "sad"),
            ("Low, in spirits", "sad"),
            ("‘angry’", "angry"),
        ]);
    }

    #[test]
    fn mentions_are_whole_words_and_the_longest() {
        check(&[
            ("The person seems happy.", "happy"),
            ("An unhappy, sadly overjoyed person.", "unparsed"),
            ("It sounds like angry surprise to me.", "surprised"),
            ("happy-looking", "happy"),
        ]);
    }

    #[test]
    fn mentions_must_agree() {
        check(&[
            ("A happy face and joy in the voice.", "happy"),
            ("A happy face and a sad voice.", "unparsed"),
            ("happy or sad", "unparsed"),
            ("I do not know.", "unparsed"),
            ("", "unparsed"),
            ("...", "unparsed"),
        ]);
    }

    #[test]
    fn negated_mentions_do_not_count() {
        check(&[
            ("He is not happy.", "unparsed"),
            ("not happy but sad", "sad"),
            ("He isn't really happy, he is sad.", "sad"),
            ("He isn’t happy. Sad.", "sad"),
            ("She is no longer sad and looks happy now", "happy"),
            ("sad rather than angry", "sad"),
            ("sad instead of happy", "sad"),
            ("neither happy nor sad, just angry", "angry"),
            ("anything but happy", "unparsed"),
            ("nothing but anger", "angry"),
            ("sad not happy", "sad"),
            ("Anger is not heard, the voice is sad.", "sad"),
            ("Joy isn't there; sadness is.", "sad"),
            ("non-happy", "unparsed"),
        ]);
    }

    #[test]
    fn negations_end_with_their_clause() {
        check(&[
            ("I am not sure: happy", "happy"),
            ("He does not smile, he is sad", "sad"),
            ("not smiling at all and sad", "sad"),
            ("not only happy", "happy"),
            ("not just a happy face", "happy"),
            ("no doubt angry", "angry"),
            ("Joy is not only heard.", "happy"),
        ]);
    }

    #[test]
    fn the_conclusion_wins() {
        check(&[
            (
                "An angry face, a happy voice: all signs point to sad",
                "sad",
            ),
            ("He laughs as if happy. Emotion: sad", "sad"),
            ("He laughs as if happy. **Emotion:** sad.", "sad"),
            ("{\"face\": \"happy\", \"emotion\": \"sad\"}", "sad"),
            ("Joy at first, but the answer is sad.", "sad"),
            ("The answer is happy. No: the answer is sad.", "sad"),
            ("Joy at first; the emotion is sad, not angry.", "sad"),
            ("Joy is heard. The emotion is not happy.", "unparsed"),
            ("Emotion: happy or sad", "unparsed"),
            ("Joy is heard. Overall it is hard to tell.", "happy"),
            ("Therefore he is angry", "angry"),
        ]);
    }

    #[test]
    fn other_languages() {
        check(&[
            ("Sie klingt glücklich.", "happy"),
            ("Er ist nicht glücklich, sondern traurig.", "sad"),
            ("这个人很高兴。", "happy"),
            ("这个人不高兴。", "unparsed"),
            ("这个人很伤心", "unparsed"),
            ("İstanbul’da 😀 e\u{301}motion\u{200d}", "unparsed"),
            ("''’’' '", "unparsed"),
        ]);
    }
}

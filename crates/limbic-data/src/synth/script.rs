//! The words: a short sentence in the first person, an opening that tells nothing and an event that does.
//!
//! Openings and events are dealt so that no sentence of one split occurs in another, while every word occurs in
//! all of them.

use super::dice::Dice;
use super::emotion::Emotion::*;
use super::emotion::Rendition::{self, Own, Shared};
use crate::clip::Split;

/// A sentence in its two parts.
pub(super) struct Script {
    /// When and where. It is drawn without regard to the emotion, and it is all that the voice reads: the sound
    /// of the event would tell what only the transcript is there to tell.
    pub(super) opening: String,
    /// What happened.
    pub(super) event: &'static str,
}

impl Script {
    /// A sentence for `rendition` out of those that belong to `split`.
    pub(super) fn draw(rendition: Rendition, split: Split, dice: &mut Dice) -> Self {
        let (_, events) = said(rendition);
        loop {
            let (time, place, event) = (
                dice.below(TIMES.len()),
                dice.below(PLACES.len()),
                dice.below(events.len()),
            );
            if split_of(time + place + event) == split {
                return Self {
                    opening: format!("{} {}", TIMES[time], PLACES[place]),
                    event: events[event],
                };
            }
        }
    }

    /// The whole sentence.
    pub(super) fn text(&self) -> String {
        format!("{} {}.", self.opening, self.event)
    }
}

/// Two thirds of all combinations are for training, one sixth each for validation and test.
fn split_of(sum: usize) -> Split {
    match sum % 6 {
        0..4 => Split::Train,
        4 => Split::Validation,
        _ => Split::Test,
    }
}

/// What the words are about, as a rationale names it.
pub(super) fn topic(rendition: Rendition) -> &'static str {
    said(rendition).0
}

const TIMES: [&str; 6] = [
    "Today",
    "Yesterday",
    "This morning",
    "Last night",
    "On Monday",
    "Just now",
];

const PLACES: [&str; 12] = [
    "at home",
    "at school",
    "at work",
    "in town",
    "in the park",
    "at the station",
    "in the kitchen",
    "at the office",
    "by the river",
    "on the train",
    "at the market",
    "in the garden",
];

/// The topic of a rendition and its eight events, of four to six words each.
fn said(rendition: Rendition) -> (&'static str, [&'static str; 8]) {
    match rendition {
        Own(Happy) => (
            "good luck",
            [
                "I won the first prize",
                "I got the job I wanted",
                "I laughed with all my friends",
                "I danced to our favourite song",
                "I passed the big exam",
                "I celebrated my lovely birthday",
                "I found true love",
                "I cheered for our great win",
            ],
        ),
        Own(Sad) => (
            "a loss",
            [
                "I cried for my old dog",
                "I missed my dear mother",
                "I said goodbye to my friend",
                "I mourned for my grandfather",
                "I buried our little cat",
                "I wept over her letter",
                "I felt lonely and empty",
                "I grieved for lost years",
            ],
        ),
        Own(Angry) => (
            "an insult",
            [
                "I shouted at the rude driver",
                "I yelled at the cheating seller",
                "I slammed the door in rage",
                "I hated his stupid insult",
                "I was furious about their lies",
                "I argued with the nasty clerk",
                "I swore at the arrogant boss",
                "I threw the unfair bill away",
            ],
        ),
        Own(Fearful) => (
            "danger",
            [
                "I hid from the armed man",
                "I ran away from the fire",
                "I was terrified of the dog",
                "I trembled at the dark cellar",
                "I feared for my life",
                "I begged them for help",
                "I escaped from the wild bull",
                "I dreaded the coming storm",
            ],
        ),
        Own(Surprised) => (
            "a wonder",
            [
                "I could not believe my eyes",
                "I met my twin by chance",
                "I never expected such a gift",
                "I was amazed by the trick",
                "I suddenly found a gold coin",
                "I saw a fox play chess",
                "I got mail from a stranger",
                "I unexpectedly met the king",
            ],
        ),
        Own(Neutral) => (
            "a routine",
            [
                "I put papers in a box",
                "I waited for the bus",
                "I counted the grey chairs",
                "I wrote down the number",
                "I copied the weekly list",
                "I changed the printer paper",
                "I read the opening hours",
                "I sorted the usual forms",
            ],
        ),
        Shared(Happy, Neutral) => (
            "a calm day",
            [
                "I drank tea with my sister",
                "I walked slowly in the sun",
                "I cooked soup for my family",
                "I watered the young flowers",
                "I listened to the radio",
                "I baked bread with my aunt",
                "I painted the wooden fence",
                "I fed the ducks some bread",
            ],
        ),
        Shared(Sad, Angry) => (
            "a letdown",
            [
                "I was left out again",
                "I lost my job again",
                "I heard they broke their promise",
                "I was told to leave",
                "I got an awful grade",
                "I waited but nobody came",
                "I learned that he betrayed me",
                "I was refused once more",
            ],
        ),
        Shared(Fearful, Surprised) => (
            "a sudden event",
            [
                "I heard a very loud bang",
                "I saw the door move alone",
                "I felt a hand behind me",
                "I found a snake under it",
                "I noticed the lights go out",
                "I heard my own name whispered",
                "I saw a shadow jump out",
                "I felt the ground shake",
            ],
        ),
        Shared(..) => panic!("{rendition:?} is no rendition of the transcript"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::emotion::Modality;
    use super::*;

    #[test]
    fn events_belong_to_one_rendition_each() {
        let renditions = Modality::Transcript.renditions();
        let events: BTreeSet<_> = renditions
            .iter()
            .flat_map(|&rendition| said(rendition).1)
            .collect();
        let topics: BTreeSet<_> = renditions
            .iter()
            .map(|&rendition| topic(rendition))
            .collect();
        assert_eq!((events.len(), topics.len()), (72, 9));
    }

    #[test]
    fn sentences_have_six_to_twelve_words_and_keep_to_their_split() {
        let mut seen: [BTreeSet<String>; 3] = Default::default();
        let mut dice = Dice::new(1, &["script"]);
        for rendition in Modality::Transcript.renditions() {
            for (split, sentences) in Split::ALL.into_iter().zip(&mut seen) {
                for _ in 0..200 {
                    let text = Script::draw(rendition, split, &mut dice).text();
                    let words = text.split_whitespace().count();
                    assert!((6..=12).contains(&words), "{words} words: {text}");
                    sentences.insert(text);
                }
            }
        }
        assert!(
            seen[0].len() > 800 && seen[2].len() > 500,
            "{} and {} sentences",
            seen[0].len(),
            seen[2].len()
        );
        assert!(
            seen[0].is_disjoint(&seen[1])
                && seen[0].is_disjoint(&seen[2])
                && seen[1].is_disjoint(&seen[2])
        );
    }
}

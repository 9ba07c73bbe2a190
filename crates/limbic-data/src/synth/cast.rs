//! Who plays what: split, speaker, emotion and ambiguous modalities of each clip, dealt evenly.

use super::dice::Dice;
use super::emotion::{Emotion, Modality};
use crate::clip::Split;

/// One clip, before anything is drawn.
pub(super) struct Role {
    pub(super) id: String,
    pub(super) split: Split,
    pub(super) emotion: Emotion,
    /// Number of the speaker; no speaker belongs to two splits.
    pub(super) speaker: usize,
    /// Which modalities are ambiguous, in the order of [`Modality::ALL`].
    pub(super) ambiguous: [bool; 3],
}

/// The speakers of a split.
pub(super) fn speakers(split: Split) -> std::ops::Range<usize> {
    match split {
        Split::Train => 0..24,
        Split::Validation => 24..32,
        Split::Test => 32..40,
    }
}

/// The number of clips of a split: one sixth of `clips` each for validation and test, the rest for training.
pub(super) fn share(split: Split, clips: usize) -> usize {
    let sixth = (clips + 3) / 6;
    match split {
        Split::Train => clips - 2 * sixth,
        Split::Validation | Split::Test => sixth,
    }
}

/// Deals `clips` roles: emotions in turn within each split, then for each emotion of each split its speakers
/// and patterns of ambiguity in even numbers, independent of one another.
pub(super) fn deal(clips: usize, seed: u64) -> Vec<Role> {
    let mut roles = Vec::with_capacity(clips);
    for split in Split::ALL {
        let mut decks = Emotion::ALL.map(|emotion| {
            let dice = |what| Dice::new(seed, &[what, &split.to_string(), emotion.name()]);
            (
                Speakers::new(split, dice("speakers")),
                Patterns::new(dice("ambiguity")),
            )
        });
        for index in 0..share(split, clips) {
            let (speakers, patterns) = &mut decks[index % 6];
            roles.push(Role {
                id: format!("synth-{:05}", roles.len()),
                split,
                emotion: Emotion::ALL[index % 6],
                speaker: speakers.next(),
                ambiguous: patterns.next(),
            });
        }
    }
    roles
}

/// The speakers of a split in random order, again and again.
struct Speakers {
    split: Split,
    dice: Dice,
    rest: Vec<usize>,
}

impl Speakers {
    fn new(split: Split, dice: Dice) -> Self {
        Self {
            split,
            dice,
            rest: Vec::new(),
        }
    }

    fn next(&mut self) -> usize {
        let range = speakers(self.split);
        if self.rest.is_empty() {
            self.rest = self.dice.shuffled(range.len());
        }
        range.start + self.rest.pop().unwrap_or_default()
    }
}

/// The eight patterns of three ambiguous or clear modalities in random order, again and again. A pattern is
/// followed by its complement, so that each modality is ambiguous in one of two clips even where few are dealt.
struct Patterns {
    dice: Dice,
    rest: Vec<usize>,
}

impl Patterns {
    fn new(dice: Dice) -> Self {
        Self {
            dice,
            rest: Vec::new(),
        }
    }

    fn next(&mut self) -> [bool; 3] {
        if self.rest.is_empty() {
            let pairs = self.dice.shuffled(4);
            self.rest = pairs
                .into_iter()
                .flat_map(|pattern| {
                    if self.dice.below(2) == 0 {
                        [pattern, 7 - pattern]
                    } else {
                        [7 - pattern, pattern]
                    }
                })
                .collect();
        }
        let pattern = self.rest.pop().unwrap_or_default();
        [0, 1, 2].map(|bit| pattern >> bit & 1 == 1)
    }
}

impl Role {
    /// The names of the ambiguous modalities.
    pub(super) fn ambiguous_names(&self) -> Vec<String> {
        let modalities = Modality::ALL.into_iter().zip(self.ambiguous);
        modalities
            .filter(|(_, ambiguous)| *ambiguous)
            .map(|(modality, _)| modality.name().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn splits_emotions_speakers_and_ambiguity_are_balanced() {
        let roles = deal(480, 7);
        assert_eq!(Split::ALL.map(|split| share(split, 480)), [320, 80, 80]);
        for split in Split::ALL {
            let members: Vec<_> = roles.iter().filter(|role| role.split == split).collect();
            assert_eq!(members.len(), share(split, 480));
            let voices: BTreeSet<_> = members.iter().map(|role| role.speaker).collect();
            assert_eq!(voices, speakers(split).collect());
            for emotion in Emotion::ALL {
                let group: Vec<_> = members
                    .iter()
                    .filter(|role| role.emotion == emotion)
                    .collect();
                let even = members.len() / 6;
                assert!(
                    (even..=even + 1).contains(&group.len()),
                    "{} {}",
                    emotion.name(),
                    group.len()
                );
                for modality in 0..3 {
                    let ambiguous = group.iter().filter(|role| role.ambiguous[modality]).count();
                    assert!(
                        ambiguous.abs_diff(group.len() - ambiguous) <= 1,
                        "{ambiguous} of {}",
                        group.len()
                    );
                }
                let patterns: BTreeSet<_> = group.iter().map(|role| role.ambiguous).collect();
                assert_eq!(patterns.len(), 8);
            }
        }
    }

    #[test]
    fn the_smallest_sets_have_every_split() {
        for clips in 6..40 {
            let roles = deal(clips, 1);
            assert_eq!(roles.len(), clips);
            for split in Split::ALL {
                assert!(
                    roles.iter().any(|role| role.split == split),
                    "{clips} clips, no {split}"
                );
            }
        }
    }

    #[test]
    fn the_deal_depends_on_the_seed() {
        let ambiguity = |seed| {
            deal(48, seed)
                .iter()
                .map(|role| role.ambiguous)
                .collect::<Vec<_>>()
        };
        assert_eq!(ambiguity(1), ambiguity(1));
        assert_ne!(ambiguity(1), ambiguity(2));
    }
}

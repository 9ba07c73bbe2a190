//! Which emotions there are, and which of them each modality can leave open.
//!
//! Each modality pairs the six emotions in its own way. An ambiguous modality shows what both members of its
//! pair share. No two modalities have a pair in common, so two ambiguous modalities still name one emotion:
//! their pairs meet in it alone.

/// The six emotions of a synthetic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Emotion {
    /// Happy.
    Happy,
    /// Sad.
    Sad,
    /// Angry.
    Angry,
    /// Fearful.
    Fearful,
    /// Surprised.
    Surprised,
    /// Neutral.
    Neutral,
}

impl Emotion {
    /// All six, in the order in which clips are dealt.
    pub const ALL: [Self; 6] = [
        Self::Happy,
        Self::Sad,
        Self::Angry,
        Self::Fearful,
        Self::Surprised,
        Self::Neutral,
    ];

    /// The label in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::Sad => "sad",
            Self::Angry => "angry",
            Self::Fearful => "fearful",
            Self::Surprised => "surprised",
            Self::Neutral => "neutral",
        }
    }

    /// How pleasant it is, from -1 to 1: an invention of this set, ordered as in the circumplex of Russell (1980).
    pub fn valence(self) -> f32 {
        match self {
            Self::Happy => 0.8,
            Self::Sad => -0.6,
            Self::Angry => -0.5,
            Self::Fearful => -0.7,
            Self::Surprised => 0.3,
            Self::Neutral => 0.0,
        }
    }
}

/// What a clip is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// The drawn face.
    Video,
    /// The voice.
    Audio,
    /// The words.
    Transcript,
}

impl Modality {
    /// All three, in the order of the bits of an ambiguity pattern.
    pub const ALL: [Self; 3] = [Self::Video, Self::Audio, Self::Transcript];

    /// The name under `ambiguous` in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Transcript => "transcript",
        }
    }

    /// The three pairs that cover the six emotions once.
    pub fn pairs(self) -> [(Emotion, Emotion); 3] {
        use Emotion::*;
        match self {
            Self::Video => [(Happy, Surprised), (Angry, Fearful), (Sad, Neutral)],
            Self::Audio => [(Happy, Angry), (Sad, Fearful), (Surprised, Neutral)],
            Self::Transcript => [(Happy, Neutral), (Sad, Angry), (Fearful, Surprised)],
        }
    }

    /// What this modality shows of `emotion`.
    pub fn rendition(self, emotion: Emotion, ambiguous: bool) -> Rendition {
        if !ambiguous {
            return Rendition::Own(emotion);
        }
        let (first, second) = self
            .pairs()
            .into_iter()
            .find(|&(first, second)| first == emotion || second == emotion)
            .unwrap_or_else(|| panic!("{self:?} pairs all emotions, yet not {emotion:?}"));
        Rendition::Shared(first, second)
    }

    /// All nine renditions of this modality.
    #[cfg(test)]
    pub(super) fn renditions(self) -> Vec<Rendition> {
        let own = Emotion::ALL.into_iter().map(Rendition::Own);
        let shared = self.pairs().into_iter();
        own.chain(shared.map(|(first, second)| Rendition::Shared(first, second)))
            .collect()
    }
}

/// One of the nine displays of a modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendition {
    /// Shows one emotion.
    Own(Emotion),
    /// Shows what the two emotions of a pair have in common, in the order of [`Modality::pairs`].
    Shared(Emotion, Emotion),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(modality: Modality, emotion: Emotion, ambiguous: bool) -> Vec<Emotion> {
        match modality.rendition(emotion, ambiguous) {
            Rendition::Own(only) => vec![only],
            Rendition::Shared(first, second) => vec![first, second],
        }
    }

    #[test]
    fn each_modality_pairs_every_emotion_once() {
        for modality in Modality::ALL {
            let mut covered: Vec<_> = modality
                .pairs()
                .into_iter()
                .flat_map(|(a, b)| [a, b])
                .collect();
            covered.sort();
            assert_eq!(covered, Emotion::ALL);
        }
    }

    #[test]
    fn two_modalities_determine_the_emotion_whatever_is_ambiguous() {
        for emotion in Emotion::ALL {
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let first = open(Modality::ALL[one], emotion, true);
                let second = open(Modality::ALL[other], emotion, true);
                let common: Vec<_> = first.iter().filter(|e| second.contains(e)).collect();
                assert_eq!(
                    common,
                    [&emotion],
                    "{:?} and {:?}",
                    Modality::ALL[one],
                    Modality::ALL[other]
                );
            }
        }
    }

    #[test]
    fn both_members_of_a_pair_share_one_rendition() {
        for modality in Modality::ALL {
            for (first, second) in modality.pairs() {
                assert_eq!(
                    modality.rendition(first, true),
                    modality.rendition(second, true)
                );
                assert_ne!(
                    modality.rendition(first, false),
                    modality.rendition(second, false)
                );
            }
        }
    }
}

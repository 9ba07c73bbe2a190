//! The attribute levels that a face and a voice show, one table each, and their captions.
//!
//! Any two rows of a table differ in two attributes at least, so that no display hangs on one detail.

use std::fmt;

use super::emotion::Emotion::*;
use super::emotion::Rendition::{self, Own, Shared};

/// Declares an attribute with its levels and the word for each.
macro_rules! levels {
    ($(#[$doc:meta])* $name:ident { $($level:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($level),+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$level => $word),+ })
            }
        }
    };
}

levels!(/// Shape of the eyebrows.
    Brows { Flat => "flat", Raised => "raised", Lowered => "lowered", Slanted => "slanted" });
levels!(/// Opening of the eyelids.
    Eyes { Normal => "normal", Wide => "wide", Narrow => "narrow" });
levels!(/// Shape of the mouth.
    Mouth { Flat => "flat", Smiling => "smiling", Frowning => "frowning", Open => "open", Tight => "tight" });
levels!(/// Movement of the head over the clip.
    Head { Still => "still", Shaking => "shaking", Nodding => "nodding", Drooping => "drooping" });
levels!(/// Mean pitch against the speaker's own.
    Pitch { Middle => "middle", High => "high", Low => "low" });
levels!(/// Course of the pitch over the clip.
    Movement { Flat => "flat", Lively => "lively", Falling => "falling", Rising => "rising" });
levels!(/// Level of the speech.
    Loudness { Moderate => "moderate", Loud => "loud", Soft => "soft" });
levels!(/// Syllables per second.
    Tempo { Steady => "steady", Fast => "fast", Slow => "slow" });
levels!(/// Quality of the voice.
    Timbre { Clear => "clear", Breathy => "breathy", Harsh => "harsh", Trembling => "trembling" });

/// What the camera sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) brows: Brows,
    pub(super) eyes: Eyes,
    pub(super) mouth: Mouth,
    pub(super) head: Head,
}

impl Look {
    /// The video display of `rendition`.
    pub(super) fn of(rendition: Rendition) -> Self {
        let (brows, eyes, mouth, head) = match rendition {
            Own(Happy) => (Brows::Flat, Eyes::Normal, Mouth::Smiling, Head::Nodding),
            Own(Sad) => (
                Brows::Slanted,
                Eyes::Narrow,
                Mouth::Frowning,
                Head::Drooping,
            ),
            Own(Angry) => (Brows::Lowered, Eyes::Narrow, Mouth::Tight, Head::Shaking),
            Own(Fearful) => (Brows::Slanted, Eyes::Wide, Mouth::Open, Head::Shaking),
            Own(Surprised) => (Brows::Raised, Eyes::Wide, Mouth::Open, Head::Still),
            Own(Neutral) => (Brows::Flat, Eyes::Normal, Mouth::Flat, Head::Still),
            Shared(Happy, Surprised) => (Brows::Raised, Eyes::Wide, Mouth::Smiling, Head::Nodding),
            Shared(Angry, Fearful) => (Brows::Lowered, Eyes::Wide, Mouth::Frowning, Head::Shaking),
            Shared(Sad, Neutral) => (Brows::Flat, Eyes::Narrow, Mouth::Flat, Head::Drooping),
            Shared(..) => panic!("{rendition:?} is no rendition of the video"),
        };
        Self {
            brows,
            eyes,
            mouth,
            head,
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            brows,
            eyes,
            mouth,
            head,
        } = self;
        write!(f, "brows {brows}, eyes {eyes}, mouth {mouth}, head {head}")
    }
}

/// What the microphone hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tone {
    pub(super) pitch: Pitch,
    pub(super) movement: Movement,
    pub(super) loudness: Loudness,
    pub(super) tempo: Tempo,
    pub(super) timbre: Timbre,
}

impl Tone {
    /// The audio display of `rendition`.
    pub(super) fn of(rendition: Rendition) -> Self {
        use Loudness::{Loud, Moderate, Soft};
        use Tempo::{Fast, Slow, Steady};
        use Timbre::{Breathy, Clear, Harsh, Trembling};
        let (pitch, movement, loudness, tempo, timbre) = match rendition {
            Own(Happy) => (Pitch::High, Movement::Lively, Loud, Fast, Clear),
            Own(Sad) => (Pitch::Low, Movement::Falling, Soft, Slow, Breathy),
            Own(Angry) => (Pitch::Low, Movement::Lively, Loud, Steady, Harsh),
            Own(Fearful) => (Pitch::High, Movement::Flat, Soft, Fast, Trembling),
            Own(Surprised) => (Pitch::High, Movement::Rising, Moderate, Steady, Clear),
            Own(Neutral) => (Pitch::Middle, Movement::Flat, Moderate, Steady, Clear),
            Shared(Happy, Angry) => (Pitch::Middle, Movement::Flat, Loud, Fast, Harsh),
            Shared(Sad, Fearful) => (Pitch::Middle, Movement::Falling, Soft, Slow, Trembling),
            Shared(Surprised, Neutral) => (Pitch::Middle, Movement::Rising, Soft, Slow, Clear),
            Shared(..) => panic!("{rendition:?} is no rendition of the audio"),
        };
        Self {
            pitch,
            movement,
            loudness,
            tempo,
            timbre,
        }
    }
}

impl fmt::Display for Tone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pitch,
            movement,
            loudness,
            tempo,
            timbre,
        } = self;
        write!(
            f,
            "pitch {pitch} and {movement}, {loudness}, {tempo}, {timbre} voice"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::emotion::Modality;
    use super::*;

    #[test]
    fn any_two_displays_differ_in_two_attributes_at_least() {
        let looks: Vec<_> = Modality::Video
            .renditions()
            .into_iter()
            .map(Look::of)
            .collect();
        let tones: Vec<_> = Modality::Audio
            .renditions()
            .into_iter()
            .map(Tone::of)
            .collect();
        assert_eq!((looks.len(), tones.len()), (9, 9));
        for i in 0..9 {
            for j in 0..i {
                let (a, b) = (looks[i], looks[j]);
                let differing = [
                    a.brows != b.brows,
                    a.eyes != b.eyes,
                    a.mouth != b.mouth,
                    a.head != b.head,
                ];
                assert!(differing.iter().filter(|&&d| d).count() >= 2, "{a} / {b}");
                let (a, b) = (tones[i], tones[j]);
                let differing = [
                    a.pitch != b.pitch,
                    a.movement != b.movement,
                    a.loudness != b.loudness,
                    a.tempo != b.tempo,
                    a.timbre != b.timbre,
                ];
                assert!(differing.iter().filter(|&&d| d).count() >= 2, "{a} / {b}");
            }
        }
    }

    #[test]
    fn captions_name_every_level_shown() {
        assert_eq!(
            Look::of(Shared(Happy, Surprised)).to_string(),
            "brows raised, eyes wide, mouth smiling, head nodding"
        );
        assert_eq!(
            Tone::of(Own(Surprised)).to_string(),
            "pitch high and rising, moderate, steady, clear voice"
        );
    }
}

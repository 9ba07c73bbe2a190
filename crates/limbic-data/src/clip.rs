//! One example: where its media lie, which part of them counts, and what is known about it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{DataError, Names};

/// Times beyond this many seconds (about eleven days) are taken for milliseconds or sample counts.
const MAX_TIME: f64 = 1e6;

/// The part of a data set that a clip belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Gradients come from these clips.
    Train,
    /// Choices (early stopping, best checkpoint) come from these clips.
    Validation,
    /// Reported scores come from these clips, and nothing else does.
    Test,
}

impl Split {
    /// Every split, in the order in which reports show them.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        match text {
            "train" => Ok(Split::Train),
            "validation" => Ok(Split::Validation),
            "test" => Ok(Split::Test),
            _ => Err(DataError::UnknownName {
                kind: "split",
                got: text.to_owned(),
                wanted: Names(&["train", "validation", "test"]),
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The part of a media file that counts, in seconds from its beginning: `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// First moment, in seconds.
    pub start: f64,
    /// First moment that no longer counts; `None` stands for the end of the file.
    pub end: Option<f64>,
}

impl Span {
    /// The whole file.
    pub const ALL: Span = Span {
        start: 0.0,
        end: None,
    };
}

/// One example of a manifest. Keys that have no value are not written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// Name of the clip, unique in its manifest.
    pub id: String,
    /// File with pictures; its sound serves where `audio` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video: Option<PathBuf>,
    /// File with sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<PathBuf>,
    /// First moment that counts, in seconds; the beginning of the file if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// First moment that no longer counts, in seconds; the end of the file if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
    /// What is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// The emotion, a name or alias of the label set that the recipe names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emotion: Option<String>,
    /// Share of the raters that chose `emotion`, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f32>,
    /// Who is seen or heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// The corpus that the clip comes from, for example `mer2023`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<String>,
    /// Licence of the media, as an SPDX name where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Language of the transcript, as a two-letter code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The part of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// How pleasant the emotion is, from -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valence: Option<f32>,
    /// How approving what is said is, from -1 (negative) through 0 (neutral) to 1 (positive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentiment: Option<f32>,
    /// Free emotion words, as open-vocabulary data sets give them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_vocabulary: Vec<String>,
    /// Why it is that emotion, in a sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Caption of what the camera sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Caption of what the microphone hears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<String>,
    /// What the clip or picture shows, in a sentence or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Questions about the clip with their answers, each asked after those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dialogue: Vec<Exchange>,
    /// Two descriptions of the clip, and which of them fits better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// Features that others have computed: files by the name that an input of the model asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, PathBuf>,
    /// Modalities (`video`, `audio`, `transcript`) that leave the emotion open when they stand alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ambiguous: Vec<String>,
    /// Whatever else a corpus says about the clip; no part of the pipeline reads it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, Value>,
}

/// A question and its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// What is asked.
    pub question: String,
    /// What is to be answered.
    pub answer: String,
}

/// Two descriptions of a clip, and which of them fits better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    /// One description.
    pub first: String,
    /// The other.
    pub second: String,
    /// The one that raters preferred.
    pub preferred: Preferred,
}

/// Which of two descriptions raters preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preferred {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither more than the other.
    Either,
}

/// Every key of a manifest line.
pub(crate) const KEYS: &[&str] = &[
    "id",
    "video",
    "audio",
    "start",
    "end",
    "transcript",
    "emotion",
    "agreement",
    "speaker",
    "corpus",
    "licence",
    "language",
    "split",
    "valence",
    "sentiment",
    "open_vocabulary",
    "reason",
    "seen",
    "heard",
    "caption",
    "dialogue",
    "preference",
    "features",
    "ambiguous",
    "meta",
];

const MODALITIES: [&str; 3] = ["video", "audio", "transcript"];

impl Clip {
    /// The part of the clip's media that counts.
    pub fn span(&self) -> Span {
        Span {
            start: self.start.unwrap_or(0.0),
            end: self.end,
        }
    }

    /// The file whose sound belongs to the clip: `audio`, else the sound of `video`.
    pub fn sound(&self) -> Option<&PathBuf> {
        self.audio.as_ref().or(self.video.as_ref())
    }

    /// Every file of the clip.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let media = self.video.iter().chain(&self.audio);
        media.chain(self.features.values())
    }

    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let media = self.video.iter_mut().chain(&mut self.audio);
        media.chain(self.features.values_mut())
    }

    /// What makes this clip unusable as a manifest line, one message each. Media files are not opened.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.id.trim().is_empty() {
            problems.push("`id` is empty: give each clip a name of its own".to_owned());
        }
        let media = [("video", &self.video), ("audio", &self.audio)];
        let media = media
            .into_iter()
            .filter_map(|(key, path)| Some((key, path.as_ref()?)));
        let features = self.features.iter();
        for (key, path) in media.chain(features.map(|(name, path)| (name.as_str(), path))) {
            if path.as_os_str().is_empty() {
                problems.push(format!(
                    "`{key}` is an empty path: name a file or leave the key out"
                ));
            }
        }
        let has_transcript = self
            .transcript
            .as_ref()
            .is_some_and(|text| !text.trim().is_empty());
        let has_media = self.paths().next().is_some();
        if !has_media && !has_transcript && self.dialogue.is_empty() {
            problems.push(
                "no medium: wanted at least one of `video`, `audio`, `features`, a transcript with words or a `dialogue`; \
                 add one or remove the line"
                    .to_owned(),
            );
        }
        for (index, exchange) in self.dialogue.iter().enumerate() {
            for (key, text) in [
                ("question", &exchange.question),
                ("answer", &exchange.answer),
            ] {
                if text.trim().is_empty() {
                    problems.push(format!(
                        "`dialogue` has an empty {key} at place {}: fill it or take the exchange out",
                        index + 1
                    ));
                }
            }
        }
        for (key, time) in [("start", self.start), ("end", self.end)] {
            let Some(time) = time else { continue };
            if !time.is_finite() || !(0.0..=MAX_TIME).contains(&time) {
                problems.push(format!(
                    "`{key}` is {time}: wanted seconds from 0 to {MAX_TIME}"
                ));
            }
        }
        if let Some(end) = self.end
            && end <= self.span().start
        {
            problems.push(format!(
                "`end` is {end} but `start` is {}: wanted an end after the start, both in seconds",
                self.span().start
            ));
        }
        for (key, value, least) in [
            ("valence", self.valence, -1.0),
            ("sentiment", self.sentiment, -1.0),
            ("agreement", self.agreement, 0.0),
        ] {
            if let Some(value) = value
                && !(least..=1.0).contains(&value)
            {
                problems.push(format!(
                    "`{key}` is {value}: wanted a number from {least} to 1"
                ));
            }
        }
        for modality in &self.ambiguous {
            if !MODALITIES.contains(&modality.as_str()) {
                problems.push(format!(
                    "`ambiguous` names `{modality}`: wanted {}{}",
                    Names(&MODALITIES),
                    crate::error::hint(modality, &MODALITIES)
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_struct() {
        let full = Clip {
            id: "c1".into(),
            video: Some("c1.mp4".into()),
            audio: Some("c1.wav".into()),
            start: Some(0.5),
            end: Some(2.0),
            transcript: Some("oh".into()),
            emotion: Some("happy".into()),
            agreement: Some(0.75),
            speaker: Some("03".into()),
            corpus: Some("ours".into()),
            licence: Some("CC0-1.0".into()),
            language: Some("en".into()),
            split: Some(Split::Train),
            valence: Some(0.5),
            sentiment: Some(-0.5),
            open_vocabulary: vec!["glad".into()],
            reason: Some("A smile.".into()),
            seen: Some("a smile".into()),
            heard: Some("a laugh".into()),
            caption: Some("A person laughs.".into()),
            dialogue: vec![Exchange {
                question: "Who?".into(),
                answer: "A person.".into(),
            }],
            preference: Some(Preference {
                first: "glad".into(),
                second: "sad".into(),
                preferred: Preferred::First,
            }),
            features: BTreeMap::from([("face".into(), "c1.npy".into())]),
            ambiguous: vec!["audio".into()],
            meta: BTreeMap::from([("level".into(), Value::from(3))]),
        };
        let written = serde_json::to_string(&full).unwrap();
        let object: serde_json::Map<String, Value> = serde_json::from_str(&written).unwrap();
        assert_eq!(object.len(), KEYS.len());
        assert!(KEYS.iter().all(|key| object.contains_key(*key)));
        assert_eq!(serde_json::from_str::<Clip>(&written).unwrap(), full);
        assert!(full.problems().is_empty());
    }

    #[test]
    fn empty_keys_are_not_written() {
        let clip = Clip {
            id: "c1".into(),
            transcript: Some("oh".into()),
            ..Clip::default()
        };
        assert_eq!(
            serde_json::to_string(&clip).unwrap(),
            r#"{"id":"c1","transcript":"oh"}"#
        );
    }

    #[test]
    fn split_reads_what_it_writes() {
        for split in Split::ALL {
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
            assert_eq!(serde_json::to_value(split).unwrap(), split.to_string());
        }
        let message = "trian".parse::<Split>().unwrap_err().to_string();
        assert!(
            message.contains("`trian` is no split") && message.contains("did you mean `train`?"),
            "{message}"
        );
    }

    #[test]
    fn sound_of_the_video_serves_where_audio_is_absent() {
        let mut clip = Clip {
            video: Some("a.mp4".into()),
            ..Clip::default()
        };
        assert_eq!(clip.sound(), Some(&PathBuf::from("a.mp4")));
        clip.audio = Some("a.wav".into());
        assert_eq!(clip.sound(), Some(&PathBuf::from("a.wav")));
    }
}

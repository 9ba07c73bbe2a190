//! MERR (Cheng et al., Emotion-LLaMA, NeurIPS 2024): descriptions of clips of MER2023's unlabelled pool, coarse (made by a
//! template from cues) and fine (made by a language model from the same), with pseudo-labels of nine emotions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{first_few, first_file};
use crate::sources::mer;
use crate::sources::table::{no_code, word_of};

/// The nine emotions, with the noun forms that MER-Factory writes.
pub(super) const EMOTIONS: [(&str, &str); 16] = [
    ("neutral", "neutral"),
    ("angry", "angry"),
    ("happy", "happy"),
    ("sad", "sad"),
    ("worried", "worried"),
    ("surprise", "surprise"),
    ("fear", "fear"),
    ("contempt", "contempt"),
    ("doubt", "doubt"),
    ("anger", "angry"),
    ("happiness", "happy"),
    ("sadness", "sad"),
    ("worry", "worried"),
    ("surprised", "surprise"),
    ("fearful", "fear"),
    ("doubtful", "doubt"),
];

/// Keys of an annotation that become keys of a clip; the others go to `meta`.
const USED: [&str; 7] = [
    "caption",
    "smp_reason_caption",
    "reason_caption",
    "visual_prior_list",
    "audio_prior_list",
    "text",
    "pseu_emotion",
];

/// One of the two sets of descriptions.
pub(super) struct Grain {
    corpus: &'static str,
    descriptions: [&'static str; 2],
    labels: [&'static str; 2],
    /// Keys of the description, the newest first.
    keys: &'static [&'static str],
}

pub(super) const COARSE: Grain = Grain {
    corpus: "merr-coarse",
    descriptions: ["MERR_coarse_grained.json", "AU_filter_merge.json"],
    labels: ["MERR_coarse_grained.txt", "all_label_NCEV.txt"],
    keys: &["caption"],
};

pub(super) const FINE: Grain = Grain {
    corpus: "merr-fine",
    descriptions: ["MERR_fine_grained.json", "0512_target_smp_end.json"],
    labels: ["MERR_fine_grained.txt", "target_label_list_0512_smp.txt"],
    keys: &["smp_reason_caption", "reason_caption"],
};

pub(super) fn clips(
    grain: &Grain,
    from: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Clip>, DataError> {
    let corpus = grain.corpus;
    let places = ["", "MERR"];
    let refused = |path: &Path, detail: String| DataError::Source {
        corpus,
        path: path.to_path_buf(),
        detail,
    };
    let Some(path) = first_file(from, &places, &grain.descriptions) else {
        let wanted = grain.descriptions[0];
        return Err(refused(
            from,
            format!("there is no `{wanted}`; give the folder that holds it"),
        ));
    };
    let text = fs::read_to_string(&path).map_err(|error| DataError::io("read", &path, error))?;
    let annotations: BTreeMap<String, Map<String, Value>> =
        serde_json::from_str(&text).map_err(|error| {
            refused(
                &path,
                format!("{error}; wanted an object of clips, each an object of its annotations"),
            )
        })?;
    let mut labels = BTreeMap::new();
    match first_file(from, &places, &grain.labels) {
        Some(path) => {
            let read = mer::labels(corpus, &path, &EMOTIONS)?;
            labels.extend(read.into_iter().map(|label| (label.name, label.emotion)));
        }
        None => warnings.push(format!(
            "`{}` is absent: emotions are those of `pseu_emotion`",
            grain.labels[0]
        )),
    }
    let mut media = mer::media(from)?;
    let subtitles = mer::Subtitles::read(corpus, from)?;
    let (mut clips, mut undescribed, mut unlabelled) = (Vec::new(), Vec::new(), Vec::new());
    for (name, annotation) in annotations {
        let mut clip = mer::blank(corpus, &name, Split::Train);
        let text = |key: &str| annotation.get(key).and_then(words);
        clip.reason = grain.keys.iter().find_map(|key| text(key));
        clip.seen = text("visual_prior_list");
        clip.heard = text("audio_prior_list");
        let emotion = match labels.remove(&name) {
            Some(emotion) => Some(emotion),
            None => text("pseu_emotion")
                .map(|code| {
                    word_of(&code, &EMOTIONS).ok_or_else(|| {
                        let detail = no_code(&code, &EMOTIONS);
                        refused(&path, format!("`{name}`: `pseu_emotion` is {detail}"))
                    })
                })
                .transpose()?,
        };
        clip.emotion = emotion.map(str::to_owned);
        if clip.emotion.is_none() {
            unlabelled.push(name.clone());
        }
        if clip.reason.is_none() {
            undescribed.push(name.clone());
            continue;
        }
        subtitles.add_to(&name, &mut clip);
        if clip.transcript.is_none()
            && let Some(said) = text("text")
        {
            // MERR's own text is the Chinese subtitle or its translation.
            let chinese = said.contains(|character| ('\u{4e00}'..='\u{9fff}').contains(&character));
            clip.language = Some(if chinese { "zh" } else { "en" }.to_owned());
            clip.transcript = Some(said);
        }
        let rest = annotation
            .iter()
            .filter(|(key, _)| !USED.contains(&key.as_str()));
        clip.meta
            .extend(rest.map(|(key, value)| (key.clone(), value.clone())));
        clips.extend(media.give(&name, clip));
    }
    undescribed.extend(labels.into_keys());
    for (names, lack) in [
        (undescribed, "description and are left out"),
        (unlabelled, "emotion"),
    ] {
        if !names.is_empty() {
            warnings.push(format!(
                "{} clips have no {lack}: {}",
                names.len(),
                first_few(&names)
            ));
        }
    }
    media.report(corpus, from, clips, warnings)
}

/// A text, or the texts of a list one after the other.
fn words(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(items) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join(", ")
        }
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, import, refusal};

    fn annotations() -> String {
        json!({
            "a": {
                "AU_list": ["AU05"], "visual_prior_list": ["eyes widened", "mouth open"],
                "audio_prior_list": "A loud voice.", "peak_index": "23", "pseu_emotion": "surprise",
                "text": "Oh – you’re here!", "caption": "She gasps.", "smp_reason_caption": "She gasps, so she is surprised.",
            },
            "b": {"pseu_emotion": "doubtful", "caption": "He frowns.", "reason_caption": "He frowns: doubt."},
            "c": {"pseu_emotion": "sad"},
        })
        .to_string()
    }

    #[test]
    fn both_grains_are_read() {
        let root = corpus(
            &[
                ("MERR_coarse_grained.json", &annotations()),
                ("MERR_coarse_grained.txt", "a 40 fear\nz 3 sad\n"),
                ("MERR_fine_grained.json", &annotations()),
                ("transcription_en_all.csv", "name,sentence\nb,Really?\n"),
            ],
            &[
                "video/a.mp4",
                "video/b.avi",
                "video/c.mp4",
                "maeV_399_UTT/a.npy",
            ],
        );
        let (clips, warnings) = import(Source::MerrCoarse, &root).unwrap();
        let a = clip(&clips, "a");
        assert_eq!(
            (a.emotion.as_deref(), a.reason.as_deref()),
            (Some("fear"), Some("She gasps."))
        );
        assert_eq!(a.seen.as_deref(), Some("eyes widened, mouth open"));
        assert_eq!(
            (a.heard.as_deref(), a.transcript.as_deref()),
            (Some("A loud voice."), Some("Oh – you’re here!"))
        );
        assert_eq!(a.meta.keys().collect::<Vec<_>>(), ["AU_list", "peak_index"]);
        assert!(a.features.contains_key("maeV_399_UTT"));
        let b = clip(&clips, "b");
        assert_eq!(
            (b.emotion.as_deref(), b.transcript.as_deref()),
            (Some("doubt"), Some("Really?"))
        );
        assert_eq!(clips.len(), 2);
        assert!(warnings.iter().any(|said| said.contains("2 clips have no description and are left out: `c`, `z`")), "{warnings:?}");
        let (clips, warnings) = import(Source::MerrFine, &root).unwrap();
        assert_eq!(
            clip(&clips, "a").reason.as_deref(),
            Some("She gasps, so she is surprised.")
        );
        assert_eq!(clip(&clips, "a").emotion.as_deref(), Some("surprise"));
        assert_eq!(
            clip(&clips, "b").reason.as_deref(),
            Some("He frowns: doubt.")
        );
        assert!(
            warnings[0].contains("`MERR_fine_grained.txt` is absent"),
            "{warnings:?}"
        );
    }

    #[test]
    fn absent_media_and_bad_files_are_said() {
        let root = corpus(
            &[("MERR_fine_grained.json", &annotations())],
            &["video/a.mp4"],
        );
        let (clips, warnings) = import(Source::MerrFine, &root).unwrap();
        assert_eq!(clips.len(), 1);
        assert!(
            warnings
                .iter()
                .any(|said| said.contains("no media file: `b`")),
            "{warnings:?}"
        );
        for (text, wanted) in [
            ("{\"a\": {\"caption\": ", "line 1 column"),
            ("[1]", "wanted an object of clips"),
            (
                r#"{"a": {"caption": "x", "pseu_emotion": "sda"}}"#,
                "`a`: `pseu_emotion` is `sda`, wanted one of neutral",
            ),
        ] {
            let root = corpus(&[("MERR_coarse_grained.json", text)], &["video/a.mp4"]);
            let message = refusal(Source::MerrCoarse, &root);
            assert!(
                message.contains(wanted) && message.contains("MERR_coarse_grained.json"),
                "{message}"
            );
        }
        let message = refusal(Source::MerrFine, &corpus(&[], &["video/a.mp4"]));
        assert!(
            message.contains("there is no `MERR_fine_grained.json`"),
            "{message}"
        );
    }
}

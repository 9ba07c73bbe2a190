//! MELD (Poria et al., ACL 2019): utterances of the series Friends with seven emotions. Tables name the dialogue and utterance,
//! and each split numbers them anew.

use std::path::Path;

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{Media, first_file};
use crate::sources::table::Table;

const CORPUS: &str = "meld";

/// The corpus's own words for its emotions.
pub(super) const EMOTIONS: [(&str, &str); 7] = [
    ("anger", "anger"),
    ("disgust", "disgust"),
    ("fear", "fear"),
    ("joy", "joy"),
    ("neutral", "neutral"),
    ("sadness", "sadness"),
    ("surprise", "surprise"),
];

/// Sentiments with their values.
const SENTIMENTS: [(&str, &str); 3] = [("negative", "-1"), ("neutral", "0"), ("positive", "1")];

/// Splits with the stem of their tables and the folder of their media, which `MELD.Raw.tar.gz` unpacks beside the tables or
/// into a folder of the split's name.
const SPLITS: [(Split, &str, &str); 3] = [
    (Split::Train, "train", "train_splits"),
    (Split::Validation, "dev", "dev_splits_complete"),
    (Split::Test, "test", "output_repeated_splits_test"),
];

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let mut media = Media::default();
    for (_, stem, folder) in SPLITS {
        for place in [
            folder.to_owned(),
            format!("{stem}/{folder}"),
            format!("{stem}/audio"),
        ] {
            media.add(&from.join(place), &format!("{stem}_"))?;
        }
    }
    let (mut clips, mut found) = (Vec::new(), false);
    for (split, stem, _) in SPLITS {
        let places = ["", stem, "data/MELD", "data"];
        let name = format!("{stem}_sent_emo.csv");
        let Some(path) = first_file(from, &places, &[&name]) else {
            warnings.push(format!("`{name}` is absent: no {split} clips"));
            continue;
        };
        found = true;
        for row in Table::read(CORPUS, &path, b',')?.rows() {
            let (dialogue, utterance) = (row.get("Dialogue_ID")?, row.get("Utterance_ID")?);
            let id = format!("{stem}_dia{dialogue}_utt{utterance}");
            let transcript = punctuated(row.get("Utterance")?);
            let mut clip = Clip {
                transcript: Some(transcript).filter(|text| !text.is_empty()),
                emotion: Some(row.coded("Emotion", &EMOTIONS)?.to_owned()),
                sentiment: row.coded("Sentiment", &SENTIMENTS)?.parse().ok(),
                speaker: Some(row.get("Speaker")?.to_owned()).filter(|name| !name.is_empty()),
                corpus: Some(CORPUS.to_owned()),
                licence: Some("GPL-3.0-only".to_owned()),
                language: Some("en".to_owned()),
                split: Some(split),
                ..Clip::default()
            };
            for (key, column) in [("season", "Season"), ("episode", "Episode")] {
                if let Some(number) = row.find(column) {
                    clip.meta.insert(key.to_owned(), json!(number));
                }
            }
            clip.meta.insert(
                "dialogue".to_owned(),
                json!(format!("{stem}_dia{dialogue}")),
            );
            clip.meta.insert("utterance".to_owned(), json!(utterance));
            clips.extend(media.give(
                &id,
                Clip {
                    id: id.clone(),
                    ..clip
                },
            ));
        }
    }
    if !found {
        return Err(DataError::Source {
            corpus: CORPUS,
            path: from.to_path_buf(),
            detail: "it holds none of `train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv`; give the folder that \
                     holds them"
                .to_owned(),
        });
    }
    media.report(CORPUS, from, clips, warnings)
}

/// The tables were Windows-1252 once: its punctuation stands in them as control characters.
fn punctuated(text: &str) -> String {
    let mark = |character| match character {
        '\u{85}' => '…',
        '\u{91}' => '‘',
        '\u{92}' => '’',
        '\u{93}' => '“',
        '\u{94}' => '”',
        '\u{96}' => '–',
        '\u{97}' => '—',
        other => other,
    };
    text.chars().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    const HEADING: &str = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n";

    fn table(rows: &str) -> String {
        format!("{HEADING}{rows}")
    }

    #[test]
    fn splits_number_their_dialogues_anew() {
        let root = corpus(
            &[
                (
                    "train/train_sent_emo.csv",
                    &table(
                        "1,\"Hes lost it, isn\u{92}t he?\",Phoebe,sadness,negative,0,0,4,7,\"00:20:57,256\",\"00:21:00,049\"\n2,What?,Monica,surprise,positive,0,1,4,7,a,b\n",
                    ),
                ),
                (
                    "dev_sent_emo.csv",
                    &table("1,Oh.,Ross,Joy,positive,0,0,4,7,a,b\n"),
                ),
                (
                    "test_sent_emo.csv",
                    &table("1,No.,Joey,anger,neutral,0,0,4,7,a,b\n"),
                ),
            ],
            &[
                "train/train_splits/dia0_utt0.mp4",
                "dev_splits_complete/dia0_utt0.mp4",
                "output_repeated_splits_test/dia0_utt0.mp4",
                "output_repeated_splits_test/dia9_utt9.mp4",
            ],
        );
        let (clips, warnings) = import(Source::Meld, &root).unwrap();
        assert_eq!(ids(&clips, Split::Train), ["train_dia0_utt0"]);
        assert_eq!(ids(&clips, Split::Validation), ["dev_dia0_utt0"]);
        assert_eq!(ids(&clips, Split::Test), ["test_dia0_utt0"]);
        let first = clip(&clips, "train_dia0_utt0");
        assert_eq!(first.transcript.as_deref(), Some("Hes lost it, isn’t he?"));
        assert_eq!(
            (first.emotion.as_deref(), first.sentiment),
            (Some("sadness"), Some(-1.0))
        );
        assert_eq!(
            (first.speaker.as_deref(), &first.meta["season"]),
            (Some("Phoebe"), &json!("4"))
        );
        assert!(
            first
                .video
                .as_ref()
                .unwrap()
                .ends_with("train/train_splits/dia0_utt0.mp4")
        );
        assert!(
            clip(&clips, "test_dia0_utt0")
                .video
                .as_ref()
                .unwrap()
                .ends_with("output_repeated_splits_test/dia0_utt0.mp4")
        );
        assert_eq!(
            warnings,
            [
                "1 labelled clips are left out, for they have no media file: `train_dia0_utt1`",
                "1 media files are left out, for they have no label: `test_dia9_utt9`",
            ]
        );
    }

    #[test]
    fn the_tables_alone_are_a_corpus_of_text() {
        let root = corpus(
            &[(
                "data/MELD/test_sent_emo.csv",
                &table("1,No.,Joey,fear,negative,3,2,4,7,a,b\n"),
            )],
            &[],
        );
        let (clips, warnings) = import(Source::Meld, &root).unwrap();
        let only = clip(&clips, "test_dia3_utt2");
        assert_eq!(
            (only.transcript.as_deref(), only.video.as_ref()),
            (Some("No."), None)
        );
        assert!(
            warnings
                .iter()
                .any(|said| said.contains("1 clips have their text alone")),
            "{warnings:?}"
        );
    }

    #[test]
    fn bad_tables_are_refused() {
        for (rows, wanted) in [
            (
                "1,No.,Joey,angry,negative,3,2,4,7,a,b\n",
                "line 2: `Emotion` is `angry`, wanted one of anger",
            ),
            ("1,No.,Joey\n", "line: 2"),
        ] {
            let message = refusal(
                Source::Meld,
                &corpus(&[("dev_sent_emo.csv", &table(rows))], &[]),
            );
            assert!(message.contains(wanted), "{message}");
        }
        let message = refusal(Source::Meld, &corpus(&[], &[]));
        assert!(
            message.contains("it holds none of `train_sent_emo.csv`"),
            "{message}"
        );
    }
}

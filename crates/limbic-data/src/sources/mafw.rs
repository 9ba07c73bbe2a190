//! MAFW (Liu et al., ACM Multimedia 2022): clips of films and short videos with one of eleven emotions, with compounds of them,
//! and with descriptions in Chinese and English. Single and compound labels have five folds each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{Media, first_file};
use crate::sources::table::{no_code, word_of};

const CORPUS: &str = "mafw";

/// The corpus's own words for its emotions.
pub(super) const EMOTIONS: [(&str, &str); 11] = [
    ("anger", "anger"),
    ("disgust", "disgust"),
    ("fear", "fear"),
    ("happiness", "happiness"),
    ("neutral", "neutral"),
    ("sadness", "sadness"),
    ("surprise", "surprise"),
    ("contempt", "contempt"),
    ("anxiety", "anxiety"),
    ("helplessness", "helplessness"),
    ("disappointment", "disappointment"),
];

/// Where the folders `single/` and `compound/` of the folds lie.
const FOLDS: [&str; 4] = ["Train & Test Set", "Train_Test_Set", "split", ""];

/// Folders of clips.
const CLIPS: [&str; 2] = ["clips", "data/clips"];

/// A line of a text: a clip, its emotions and what else it says.
struct Line {
    clip: String,
    emotions: Vec<&'static str>,
    rest: Vec<String>,
}

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let mut clips: BTreeMap<String, Clip> = BTreeMap::new();
    let mut found = false;
    for kind in ["single", "compound"] {
        for (name, split) in [("train", Split::Train), ("test", Split::Test)] {
            let Some(path) = fold(from, kind, 1, name) else {
                warnings.push(format!("`{kind}/no_caption/set_1/{name}.txt` is absent"));
                continue;
            };
            found = true;
            for line in lines(&path)? {
                let clip = clips.entry(line.clip.clone()).or_insert_with(|| Clip {
                    id: line.clip,
                    corpus: Some(CORPUS.to_owned()),
                    licence: Some("MAFW terms (research only)".to_owned()),
                    split: Some(split),
                    ..Clip::default()
                });
                if kind == "single" {
                    clip.emotion = line.emotions.first().map(|emotion| (*emotion).to_owned());
                    // A clip in two sets of one fold would be trained on and tested with.
                    if clip.split != Some(split) {
                        return Err(refused(
                            &path,
                            format!(
                                "`{}` is in the training set of this fold too; remove it from one",
                                clip.id
                            ),
                        ));
                    }
                }
                clip.open_vocabulary = line
                    .emotions
                    .iter()
                    .map(|emotion| (*emotion).to_owned())
                    .collect();
            }
        }
        for number in 1..=5 {
            let Some(path) = fold(from, kind, number, "test") else {
                continue;
            };
            for line in lines(&path)? {
                let Some(clip) = clips.get_mut(&line.clip) else {
                    continue;
                };
                if kind == "compound" {
                    clip.meta.insert("fold_compound".to_owned(), json!(number));
                }
                // That of the labels that `split` is of.
                if kind == "single" || clip.emotion.is_none() {
                    clip.meta.insert("fold".to_owned(), json!(number));
                }
            }
        }
    }
    if !found {
        return Err(refused(
            from,
            "it holds no fold: wanted `Train & Test Set/single/no_caption/set_1/train.txt` and so on; give the folder that holds \
             `Train & Test Set/`"
                .to_owned(),
        ));
    }
    for name in ["single_label.txt", "multi_label.txt"] {
        let places = [
            "",
            "caption-label",
            "caption-label/single_set",
            "caption-label/multi_Set",
        ];
        match first_file(from, &places, &[name]) {
            Some(path) => describe(&path, &mut clips)?,
            None => warnings.push(format!(
                "`caption-label/{name}` is absent: no descriptions from it"
            )),
        }
    }
    let mut media = Media::default();
    for folder in CLIPS {
        media.add(&from.join(folder), "")?;
    }
    let clips = clips
        .into_iter()
        .filter_map(|(name, clip)| media.give(&name, clip));
    let clips = clips.collect();
    media.report(CORPUS, from, clips, warnings)
}

/// A text of a fold; the one with captions lists the same clips where it is the only one.
fn fold(from: &Path, kind: &str, number: usize, name: &str) -> Option<PathBuf> {
    let names = ["no_caption", "with_caption"]
        .map(|captions| format!("{kind}/{captions}/set_{number}/{name}.txt"));
    first_file(from, &FOLDS, &[&names[0], &names[1]])
}

/// Puts the English description into `seen` and the Chinese one into `meta.seen_zh`.
fn describe(path: &Path, clips: &mut BTreeMap<String, Clip>) -> Result<(), DataError> {
    for line in lines(path)? {
        let Some(clip) = clips.get_mut(&line.clip) else {
            continue;
        };
        let [chinese, english] = &line.rest[..] else {
            return Err(refused(
                path,
                format!(
                    "`{}` has {} descriptions, wanted a Chinese and an English one with a tab between",
                    line.clip,
                    line.rest.len()
                ),
            ));
        };
        clip.seen = Some(english.clone());
        clip.meta.insert("seen_zh".to_owned(), json!(chinese));
    }
    Ok(())
}

/// Lines such as `20045.mp4 anger_disgust`, perhaps with descriptions after tabs (`<br>` in the README).
fn lines(path: &Path) -> Result<Vec<Line>, DataError> {
    let text = fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))?;
    let text = text.trim_start_matches('\u{feff}').lines().enumerate();
    let text = text.filter(|(_, line)| !line.trim().is_empty());
    let line = |(index, line): (usize, &str)| {
        let refused = |detail: String| refused(path, format!("line {}: {detail}", index + 1));
        let line = line.replace("<br>", "\t");
        let mut fields = line.trim().splitn(2, char::is_whitespace);
        let file = fields.next().unwrap_or_default();
        let after = fields.next().unwrap_or_default().trim_start();
        let label = after.split(char::is_whitespace).next().unwrap_or_default();
        let clip = file.strip_suffix(".mp4").filter(|_| !label.is_empty());
        let Some(clip) = clip else {
            return Err(refused(format!(
                "`{}`, wanted a clip and its emotion, as in `00025.mp4 anger`",
                line.trim()
            )));
        };
        let emotions = label.split('_').map(|code| {
            word_of(code, &EMOTIONS)
                .ok_or_else(|| refused(format!("the emotion is {}", no_code(code, &EMOTIONS))))
        });
        let rest = after[label.len()..]
            .split('\t')
            .map(|part| part.trim().to_owned());
        Ok(Line {
            clip: clip.to_owned(),
            emotions: emotions.collect::<Result<_, _>>()?,
            rest: rest.filter(|part| !part.is_empty()).collect(),
        })
    };
    text.map(line).collect()
}

fn refused(path: &Path, detail: String) -> DataError {
    DataError::Source {
        corpus: CORPUS,
        path: path.to_path_buf(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    #[test]
    fn single_and_compound_labels_meet_in_a_clip() {
        let root = corpus(
            &[
                (
                    "Train & Test Set/single/no_caption/set_1/train.txt",
                    "00001.mp4 anger\n00009.mp4 fear\n",
                ),
                (
                    "Train & Test Set/single/no_caption/set_1/test.txt",
                    "00002.mp4 helplessness\n",
                ),
                (
                    "Train & Test Set/single/no_caption/set_2/test.txt",
                    "00001.mp4 anger\n",
                ),
                (
                    "Train & Test Set/compound/no_caption/set_1/train.txt",
                    "00003.mp4 anger_disgust_anxiety\n",
                ),
                (
                    "Train & Test Set/compound/no_caption/set_2/test.txt",
                    "00003.mp4 anger_disgust_anxiety\n",
                ),
                (
                    "Train & Test Set/compound/with_caption/set_1/test.txt",
                    "00001.mp4\tanger_contempt\t他\tHe\n",
                ),
                (
                    "caption-label/single_label.txt",
                    "00001.mp4\tanger\t一个男人。\tA man shouts.\n00777.mp4\tfear\n",
                ),
                (
                    "caption-label/multi_label.txt",
                    "00003.mp4\tanger_disgust_anxiety\t<br>她。\t<br>She frowns.\n",
                ),
            ],
            &[
                "data/clips/00001.mp4",
                "data/clips/00002.mp4",
                "clips/00003.mp4",
                "clips/00004.mp4",
            ],
        );
        let (clips, warnings) = import(Source::Mafw, &root).unwrap();
        assert_eq!(
            (ids(&clips, Split::Train), ids(&clips, Split::Test)),
            (vec!["00001", "00003"], vec!["00002"])
        );
        let first = clip(&clips, "00001");
        assert_eq!(
            (first.emotion.as_deref(), first.seen.as_deref()),
            (Some("anger"), Some("A man shouts."))
        );
        assert_eq!(first.open_vocabulary, ["anger", "contempt"]);
        assert_eq!(
            (&first.meta["fold"], &first.meta["fold_compound"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(first.meta["seen_zh"], json!("一个男人。"));
        let compound = clip(&clips, "00003");
        assert_eq!(
            (compound.emotion.as_ref(), compound.seen.as_deref()),
            (None, Some("She frowns."))
        );
        assert_eq!(compound.open_vocabulary, ["anger", "disgust", "anxiety"]);
        assert_eq!(compound.meta["fold"], json!(2));
        assert_eq!(
            warnings,
            [
                "1 labelled clips are left out, for they have no media file: `00009`",
                "1 media files are left out, for they have no label: `00004`",
            ]
        );
    }

    #[test]
    fn bad_texts_are_refused() {
        let train = "split/single/no_caption/set_1/train.txt";
        for (text, wanted) in [
            (
                "00001.mp4 anger\n00002.mp4\n",
                "line 2: `00002.mp4`, wanted a clip and its emotion",
            ),
            (
                "00001.mp4 angry\n",
                "line 1: the emotion is `angry`, wanted one of anger",
            ),
            ("00001 anger\n", "line 1: `00001 anger`, wanted a clip"),
        ] {
            let message = refusal(
                Source::Mafw,
                &corpus(&[(train, text)], &["clips/00001.mp4"]),
            );
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
        let twice = [
            (train, "00001.mp4 anger\n"),
            (
                "split/single/no_caption/set_1/test.txt",
                "00001.mp4 anger\n",
            ),
        ];
        assert!(
            refusal(Source::Mafw, &corpus(&twice, &["clips/00001.mp4"]))
                .contains("`00001` is in the training set of this fold too")
        );
        let lone = [
            (train, "00001.mp4 anger\n"),
            ("caption-label/single_label.txt", "00001.mp4 anger one\n"),
        ];
        assert!(
            refusal(Source::Mafw, &corpus(&lone, &["clips/00001.mp4"]))
                .contains("`00001` has 1 descriptions")
        );
        assert!(refusal(Source::Mafw, &corpus(&[], &[])).contains("it holds no fold"));
    }
}

//! The Multimodal Emotion Recognition challenges of 2023 to 2026 (Lian et al.): one layout of videos, sounds, faces, subtitles
//! and tables of `name,discrete,valence`, under other names each year.

mod labels;
mod subtitles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{Media, first_few, first_file};

pub(super) use labels::{Label, labels};
pub(super) use subtitles::Subtitles;

/// The licence that the challenges' data sets state, beside an agreement that allows academic research only.
pub(super) const LICENCE: &str = "CC-BY-NC-4.0";

/// The emotions of the tables of every year, as MER2023 spells them and as the overview of MER2026 does.
pub(super) const EMOTIONS: [(&str, &str); 10] = [
    ("neutral", "neutral"),
    ("angry", "angry"),
    ("happy", "happy"),
    ("sad", "sad"),
    ("worried", "worried"),
    ("surprise", "surprise"),
    ("anger", "angry"),
    ("happiness", "happy"),
    ("sadness", "sad"),
    ("worry", "worried"),
];

/// Valences lie within this of 0.
const MOST_VALENCE: f32 = 5.0;

/// Folders of videos and sounds: as `video/` and `audio/` since 2025 and in every processed copy, by set in 2023, by what is
/// labelled in 2024.
const FOLDERS: [&str; 12] = [
    "video",
    "audio",
    "train",
    "test1",
    "test2",
    "test3",
    "mer2023train/train",
    "video-labeled",
    "video-unlabeled-with-test2noise",
    "video-unlabeled",
    "MER2024_semi",
    "MER2024_noise",
];

/// Where tables lie: beside the media, or in the folders that MER2023's archives unpack to.
const PLACES: [&str; 4] = ["", "mer2023train", "test-labels", "test_labels"];

/// A challenge of one year.
pub(super) struct Edition {
    corpus: &'static str,
    sets: &'static [Set],
}

/// The labelled clips of a set, in the first of `tables` that is there.
struct Set {
    name: &'static str,
    split: Split,
    tables: &'static [&'static str],
}

const fn set(name: &'static str, split: Split, tables: &'static [&'static str]) -> Set {
    Set {
        name,
        split,
        tables,
    }
}

pub(super) const MER2023: Edition = Edition {
    corpus: "mer2023",
    sets: &[
        set(
            "train",
            Split::Train,
            &["train-label.csv", "relative_train_NCEV.txt"],
        ),
        set("test1", Split::Test, &["test1-label.csv"]),
        set("test2", Split::Test, &["test2-label.csv"]),
        set(
            "test3",
            Split::Test,
            &["test3-label.csv", "relative_test3_NCEV.txt"],
        ),
    ],
};

pub(super) const MER2024: Edition = Edition {
    corpus: "mer2024",
    sets: &[
        set("train", Split::Train, &["label-disdim.csv"]),
        set("semi", Split::Test, &["reference-semi.csv"]),
        set("noise", Split::Test, &["reference-noise.csv"]),
    ],
};

pub(super) const MER2025: Edition = Edition {
    corpus: "mer2025",
    sets: &[
        set("train", Split::Train, &["track1_train_disdim.csv"]),
        set("test", Split::Test, &["track1_test_dis.csv"]),
    ],
};

pub(super) const MER2026: Edition = Edition {
    corpus: "mer2026",
    sets: &[set("train", Split::Train, &["track1_train.csv"])],
};

pub(super) fn clips(
    edition: &Edition,
    from: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Clip>, DataError> {
    let corpus = edition.corpus;
    let mut media = media(from)?;
    let subtitles = Subtitles::read(corpus, from)?;
    let mut seen = BTreeSet::new();
    let (mut clips, mut absent, mut far) = (Vec::new(), Vec::new(), Vec::new());
    for set in edition.sets {
        let Some(path) = first_file(from, &PLACES, set.tables) else {
            absent.push(set);
            continue;
        };
        for label in labels(corpus, &path, &EMOTIONS)? {
            let Label { line, name, .. } = &label;
            let refused = |detail| DataError::Source {
                corpus,
                path: path.clone(),
                detail: format!("line {line}: {detail}"),
            };
            if !seen.insert(name.clone()) {
                return Err(refused(format!(
                    "`{name}` was labelled before; remove one of the lines"
                )));
            }
            let mut clip = blank(corpus, name, set.split);
            clip.emotion = Some(label.emotion.to_owned());
            clip.meta.insert("set".to_owned(), json!(set.name));
            if let Some(valence) = label.valence {
                clip.meta.insert("valence".to_owned(), json!(valence));
                clip.valence = Some(valence / MOST_VALENCE).filter(|valence| valence.abs() <= 1.0);
                if clip.valence.is_none() {
                    far.push(name.clone());
                }
            }
            subtitles.add_to(name, &mut clip);
            clips.extend(media.give(name, clip));
        }
    }
    if seen.is_empty() {
        let tables: Vec<&str> = edition.sets.iter().map(|set| set.tables[0]).collect();
        return Err(DataError::Source {
            corpus,
            path: from.to_path_buf(),
            detail: format!(
                "it holds no labelled clip: wanted at least one of the tables {}; give the folder that holds them",
                first_few(&tables)
            ),
        });
    }
    for set in absent {
        warnings.push(format!(
            "`{}` is absent: no clips of the set `{}`",
            set.tables[0], set.name
        ));
    }
    if !far.is_empty() {
        warnings.push(format!(
            "{} clips have a valence beyond {MOST_VALENCE}, which is left out: {}",
            far.len(),
            first_few(&far)
        ));
    }
    subtitles.report(&clips, warnings);
    media.report(corpus, from, clips, warnings)
}

/// A clip of a challenge's data, with what is the same for all.
pub(super) fn blank(corpus: &str, name: &str, split: Split) -> Clip {
    Clip {
        id: name.to_owned(),
        corpus: Some(corpus.to_owned()),
        licence: Some(LICENCE.to_owned()),
        split: Some(split),
        ..Clip::default()
    }
}

/// The files of a challenge's folder.
pub(super) fn media(from: &Path) -> Result<Media, DataError> {
    let mut media = Media::default();
    for folder in FOLDERS {
        media.add(&from.join(folder), "")?;
    }
    media.add_features(from)?;
    Ok(media)
}

/// Which set of MER2023 each clip belongs to, by the tables that are there.
pub(super) fn sets_of_2023(from: &Path) -> Result<BTreeMap<String, &'static str>, DataError> {
    let mut sets = BTreeMap::new();
    for set in MER2023.sets {
        if let Some(path) = first_file(from, &PLACES, set.tables) {
            let labels = labels(MER2023.corpus, &path, &EMOTIONS)?;
            sets.extend(labels.into_iter().map(|label| (label.name, set.name)));
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    const SUBTITLE: &str = "name,chinese,english\na,你好,\"Hello, you.\"\nb,不,\n";

    #[test]
    fn mer2023_is_read_by_set() {
        let root = corpus(
            &[
                (
                    "train-label.csv",
                    "name,discrete,valence\na,happy,2.5\nb,worried,-10\nlost,sad,-1\n",
                ),
                (
                    "test-labels/test1-label.csv",
                    "name,discrete,valence\nc,angry,-6\n",
                ),
                ("test3-label.csv", "name,discrete\nd,surprise\n"),
                ("transcription-engchi-polish.csv", SUBTITLE),
            ],
            &[
                "train/a.avi",
                "train/b.avi",
                "test1/c.avi",
                "video/d.mp4",
                "video/e.mp4",
                "audio/a.wav",
                "HL-UTT/a.npy",
                "openface_face/a/a.npy",
            ],
        );
        let (clips, warnings) = import(Source::Mer2023, &root).unwrap();
        assert_eq!(ids(&clips, Split::Train), ["a", "b"]);
        assert_eq!(ids(&clips, Split::Test), ["c", "d"]);
        let a = clip(&clips, "a");
        assert_eq!(
            (a.emotion.as_deref(), a.valence),
            (Some("happy"), Some(0.5))
        );
        assert_eq!(a.meta["valence"], json!(2.5));
        assert_eq!(a.transcript.as_deref(), Some("Hello, you."));
        assert_eq!(a.meta["transcript_zh"], json!("你好"));
        assert!(a.audio.as_ref().unwrap().ends_with("audio/a.wav"));
        assert!(a.features["HL-UTT"].ends_with("HL-UTT/a.npy"));
        assert!(a.features["openface_face"].ends_with("openface_face/a/a.npy"));
        let b = clip(&clips, "b");
        assert_eq!((b.valence, b.transcript.as_deref()), (None, Some("不")));
        assert_eq!(b.language.as_deref(), Some("zh"));
        let c = clip(&clips, "c");
        assert_eq!((c.valence, &c.meta["set"]), (None, &json!("test1")));
        let said = warnings.join("\n");
        for wanted in [
            "`test2-label.csv` is absent",
            "1 clips have a valence beyond 5, which is left out: `c`",
            "1 clips have no English subtitle in it, so their transcript is Chinese",
            "2 clips have no subtitle in it",
            "1 labelled clips are left out, for they have no media file: `lost`",
            "1 media files are left out, for they have no label: `e`",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }

    #[test]
    fn the_texts_of_emotion_llama_serve_too() {
        let root = corpus(
            &[
                (
                    "relative_train_NCEV.txt",
                    "a 125 sad -10\n\nb 22 surprise -0.61\n",
                ),
                (
                    "transcription_en_all.csv",
                    "name,sentence\na,Hello.\nb,nan\n",
                ),
            ],
            &["video/a.mp4", "video/b.mp4"],
        );
        let (clips, _) = import(Source::Mer2023, &root).unwrap();
        assert_eq!(clip(&clips, "a").transcript.as_deref(), Some("Hello."));
        let b = clip(&clips, "b");
        assert_eq!(
            (b.transcript.as_ref(), b.valence),
            (None, Some(-0.61 / 5.0))
        );
    }

    #[test]
    fn later_years_are_read() {
        let label = "name,discrete,valence\na,neutral,0\n";
        let root = corpus(
            &[
                ("label-disdim.csv", label),
                ("reference-noise.csv", "name,discrete\nb,Happy\n"),
                ("track1_train_disdim.csv", label),
                ("track1_train.csv", "name,discrete\nb,worry\n"),
                ("subtitle_chieng.csv", SUBTITLE),
            ],
            &["video-labeled/a.mp4", "video/b.mp4", "audio/a.wav"],
        );
        let (clips, _) = import(Source::Mer2024, &root).unwrap();
        assert_eq!(
            (ids(&clips, Split::Train), ids(&clips, Split::Test)),
            (vec!["a"], vec!["b"])
        );
        assert_eq!(clip(&clips, "b").meta["set"], json!("noise"));
        let (clips, warnings) = import(Source::Mer2025, &root).unwrap();
        assert_eq!(ids(&clips, Split::Train), ["a"]);
        assert!(
            warnings[0].contains("`track1_test_dis.csv` is absent"),
            "{warnings:?}"
        );
        let (clips, _) = import(Source::Mer2026, &root).unwrap();
        assert_eq!(clip(&clips, "b").emotion.as_deref(), Some("worried"));
    }

    #[test]
    fn bad_tables_are_refused_with_their_line() {
        for (name, text, wanted) in [
            (
                "train-label.csv",
                "name,discrete,valence\na,hapy,1\n",
                "line 2: `discrete` is `hapy`, wanted one of neutral",
            ),
            (
                "train-label.csv",
                "name,discrete,valence\na,happy,x\n",
                "line 2: `valence` is `x`, wanted a number",
            ),
            (
                "train-label.csv",
                "name,discrete,valence\na,happy\n",
                "line: 2",
            ),
            (
                "train-label.csv",
                "name,discrete\na,sad\na,sad\n",
                "line 3: `a` was labelled before",
            ),
            (
                "train-label.csv",
                "name,emotion\na,sad\n",
                "no column `discrete`",
            ),
            (
                "relative_train_NCEV.txt",
                "a 3 sad 1\nb 3\n",
                "line 2: it has 2 fields, wanted name",
            ),
            (
                "relative_train_NCEV.txt",
                "a 3 sda 1\n",
                "line 1: the emotion is `sda`",
            ),
            (
                "relative_train_NCEV.txt",
                "a 3 sad low\n",
                "line 1: the valence is `low`",
            ),
            (
                "other.csv",
                "name\n",
                "wanted at least one of the tables `train-label.csv`",
            ),
        ] {
            let message = refusal(Source::Mer2023, &corpus(&[(name, text)], &["video/a.mp4"]));
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
    }
}

//! The sets of free emotion words and descriptions over the clips of the MER challenges: EMER (Lian et al. 2023), OV-MERD (its
//! second version), MER-Caption and MER-Caption+ (AffectGPT, ICML 2025) and Human-OV (MER2026).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{first_few, first_file};
use crate::sources::mer;
use crate::sources::table::{Row, Table};

/// A set, in the tables of its words and of its descriptions; one of the two may be absent.
pub(super) struct Set {
    corpus: &'static str,
    words: &'static [&'static str],
    reasons: &'static [&'static str],
}

pub(super) const EMER: Set = Set {
    corpus: "emer",
    words: &[],
    reasons: &["gt-eng.csv"],
};

pub(super) const OV_MERD: Set = Set {
    corpus: "ov-merd",
    words: &[
        "track2_train_ovmerd.csv",
        "check-openset.csv",
        "final-openset-english.csv",
        "openset.csv",
    ],
    reasons: &["track3_train_ovmerd.csv", "final-EMER-reason.csv"],
};

pub(super) const MER_CAPTION: Set = Set {
    corpus: "mer-caption",
    words: &["track2_train_mercaption.csv"],
    reasons: &["track3_train_mercaption.csv"],
};

pub(super) const MER_CAPTION_PLUS: Set = Set {
    corpus: "mer-caption-plus",
    words: &["track2_train_mercaptionplus.csv"],
    reasons: &["track3_train_mercaptionplus.csv"],
};

pub(super) const HUMAN_OV: Set = Set {
    corpus: "human-ov",
    words: &["track2_train_human.csv"],
    reasons: &[],
};

/// Where tables lie: beside the media, or as the repositories of the authors lay them out.
const PLACES: [&str; 5] = [
    "",
    "dataset-v1",
    "dataset-v2",
    "EMER/dataset-v1",
    "EMER/dataset-v2",
];

pub(super) fn clips(
    set: &Set,
    from: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Clip>, DataError> {
    let corpus = set.corpus;
    let mut clips: BTreeMap<String, Clip> = BTreeMap::new();
    let mut found = false;
    for tables in [set.words, set.reasons]
        .into_iter()
        .filter(|tables| !tables.is_empty())
    {
        let Some(path) = first_file(from, &PLACES, tables) else {
            warnings.push(format!("`{}` is absent", tables[0]));
            continue;
        };
        found = true;
        let table = Table::read(corpus, &path, b',')?;
        let mut seen = BTreeSet::new();
        for row in table.rows() {
            let name = row.find("names").map_or_else(|| row.get("name"), Ok)?;
            if !seen.insert(name.to_owned()) {
                return Err(row.refused(format!(
                    "`{name}` stands on a line before; remove one of them"
                )));
            }
            let clip = clips
                .entry(name.to_owned())
                .or_insert_with(|| mer::blank(corpus, name, Split::Train));
            if tables == set.words {
                clip.open_vocabulary = words(row.get("openset")?);
            } else {
                describe(clip, row)?;
            }
        }
    }
    if !found {
        let wanted: Vec<&str> = set.words.iter().chain(set.reasons).copied().collect();
        return Err(DataError::Source {
            corpus,
            path: from.to_path_buf(),
            detail: format!(
                "it holds none of the tables {}; give the folder that holds them",
                wanted.join(", ")
            ),
        });
    }
    add_chinese(set, from, &mut clips, warnings)?;
    add_sets(set, from, &mut clips, warnings)?;
    let mut media = mer::media(from)?;
    let subtitles = mer::Subtitles::read(corpus, from)?;
    let (mut kept, mut empty) = (Vec::new(), Vec::new());
    for (name, mut clip) in clips {
        if clip.open_vocabulary.is_empty() && clip.reason.is_none() {
            empty.push(name);
            continue;
        }
        if clip.transcript.is_none() {
            subtitles.add_to(&name, &mut clip);
        }
        kept.extend(media.give(&name, clip));
    }
    if !empty.is_empty() {
        warnings.push(format!(
            "{} clips are left out, for they have neither words nor a description: {}",
            empty.len(),
            first_few(&empty)
        ));
    }
    if kept
        .iter()
        .any(|clip| clip.language.as_deref() != Some("en"))
    {
        subtitles.report(&kept, warnings);
    }
    media.report(corpus, from, kept, warnings)
}

/// Takes a description over, and what EMER's table says besides.
fn describe(clip: &mut Clip, row: Row) -> Result<(), DataError> {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let reason = row
        .find("reason")
        .or(row.find("reasons"))
        .or(row.find("english"));
    clip.reason = text(reason.map_or_else(|| row.get("reason"), Ok)?);
    if let Some(chinese) = row.find("chinese").and_then(text) {
        clip.meta.insert("reason_zh".to_owned(), json!(chinese));
    }
    if row.find("emotions").is_some() {
        clip.emotion = Some(row.coded("emotions", &mer::EMOTIONS)?.to_owned());
    }
    if let Some(subtitle) = row.find("subtitles").and_then(text) {
        clip.transcript = Some(subtitle);
        clip.language = Some("en".to_owned());
    }
    Ok(())
}

/// EMER's Chinese table beside its English one.
fn add_chinese(
    set: &Set,
    from: &Path,
    clips: &mut BTreeMap<String, Clip>,
    warnings: &mut Vec<String>,
) -> Result<(), DataError> {
    if set.corpus != EMER.corpus {
        return Ok(());
    }
    let Some(path) = first_file(from, &PLACES, &["gt-chi.csv"]) else {
        warnings.push("`gt-chi.csv` is absent: no Chinese texts".to_owned());
        return Ok(());
    };
    for row in Table::read(set.corpus, &path, b',')?.rows() {
        let Some(clip) = clips.get_mut(row.get("names")?) else {
            continue;
        };
        for (key, column) in [("transcript_zh", "subtitles"), ("reason_zh", "reasons")] {
            clip.meta.insert(key.to_owned(), json!(row.get(column)?));
        }
    }
    Ok(())
}

/// The sets of MER2023 that the clips of EMER and OV-MERD come from, so that none is trained on and tested with.
fn add_sets(
    set: &Set,
    from: &Path,
    clips: &mut BTreeMap<String, Clip>,
    warnings: &mut Vec<String>,
) -> Result<(), DataError> {
    if ![EMER.corpus, OV_MERD.corpus].contains(&set.corpus) {
        return Ok(());
    }
    let sets = mer::sets_of_2023(from)?;
    if sets.is_empty() {
        warnings.push(
            "MER2023's tables (`train-label.csv` and so on) are not there, so `meta.set` does not say which clips are MER2023's \
             test clips: put them beside, or do not test on MER2023"
                .to_owned(),
        );
    }
    for (name, clip) in clips {
        if let Some(set) = sets.get(name) {
            clip.meta.insert("set".to_owned(), json!(set));
        }
    }
    Ok(())
}

/// The words of a list such as `['angry', "can't wait"]` or `angry, sad`, each once.
fn words(list: &str) -> Vec<String> {
    let list = list.trim().trim_end_matches('.');
    let inner = list
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'));
    let mut words: Vec<String> = Vec::new();
    let mut rest = inner.unwrap_or(list);
    loop {
        rest = rest.trim_start_matches(|character: char| {
            character.is_whitespace() || [',', ';', '、', '，'].contains(&character)
        });
        let Some(first) = rest.chars().next() else {
            return words;
        };
        // A quoted word ends at its own quote, so that the other kind may stand in it.
        let quoted = ['\'', '"']
            .contains(&first)
            .then(|| rest[1..].find(first))
            .flatten();
        let word = match quoted {
            Some(end) => {
                let word = &rest[1..=end];
                rest = &rest[end + 2..];
                word
            }
            None => {
                let end = rest.find([',', ';', '、', '，']).unwrap_or(rest.len());
                let word = &rest[..end];
                rest = &rest[end..];
                word
            }
        };
        let word = word.trim().to_lowercase();
        if !word.is_empty() && !words.contains(&word) {
            words.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, import, refusal};

    #[test]
    fn lists_of_words_are_read_however_they_are_quoted() {
        for (list, wanted) in [
            ("['angry', 'displeased']", vec!["angry", "displeased"]),
            (
                "[\"can't wait\", 'Happy', 'happy']",
                vec!["can't wait", "happy"],
            ),
            ("[calm, at ease].", vec!["calm", "at ease"]),
            ("sad; tired", vec!["sad", "tired"]),
            ("['serious']", vec!["serious"]),
            ("[]", vec![]),
            ("", vec![]),
            ("'tis odd, sad", vec!["'tis odd", "sad"]),
            ("悲伤、愤怒", vec!["悲伤", "愤怒"]),
        ] {
            assert_eq!(words(list), wanted, "{list}");
        }
    }

    #[test]
    fn emer_is_read_in_both_languages() {
        let root = corpus(
            &[
                (
                    "gt-eng.csv",
                    "names,emotions,subtitles,reasons\na,angry,\"No, go.\",\"He roars, \"\"no\"\".\"\nb,happy,,He smiles.\n",
                ),
                (
                    "gt-chi.csv",
                    "names,emotions,subtitles,reasons\na,angry,不,他吼。\n",
                ),
                ("train-label.csv", "name,discrete,valence\na,angry,-2\n"),
                ("test1-label.csv", "name,discrete,valence\nb,happy,2\n"),
            ],
            &["video/a.mp4", "video/b.mp4", "audio/a.wav"],
        );
        let (clips, warnings) = import(Source::Emer, &root).unwrap();
        let a = clip(&clips, "a");
        assert_eq!(
            (a.emotion.as_deref(), a.reason.as_deref()),
            (Some("angry"), Some("He roars, \"no\"."))
        );
        assert_eq!(
            (a.transcript.as_deref(), &a.meta["reason_zh"]),
            (Some("No, go."), &json!("他吼。"))
        );
        assert_eq!(
            (&a.meta["set"], &clip(&clips, "b").meta["set"]),
            (&json!("train"), &json!("test1"))
        );
        assert_eq!(clip(&clips, "b").transcript, None);
        assert!(
            !warnings
                .iter()
                .any(|said| said.contains("MER2023's tables")),
            "{warnings:?}"
        );
    }

    #[test]
    fn words_and_descriptions_meet() {
        let words = "name,openset\na,\"['angry', 'mad']\"\nb,[]\nlost,['sad']\n";
        let root = corpus(
            &[
                ("check-openset.csv", words),
                (
                    "dataset-v2/final-EMER-reason.csv",
                    "name,chinese,english\na,他,He shouts.\n",
                ),
                ("track2_train_mercaptionplus.csv", words),
                (
                    "track3_train_mercaptionplus.csv",
                    "name,reason\nb,She is calm.\n",
                ),
                ("track2_train_mercaption.csv", words),
                ("track2_train_human.csv", words),
                ("subtitle_chieng.csv", "name,chinese,english\na,喂,Hey.\n"),
            ],
            &["video/a.mp4", "video/b.mp4", "openface_face/a/a.npy"],
        );
        let (clips, warnings) = import(Source::OvMerd, &root).unwrap();
        let a = clip(&clips, "a");
        assert_eq!(a.open_vocabulary, ["angry", "mad"]);
        assert_eq!(
            (a.reason.as_deref(), a.transcript.as_deref()),
            (Some("He shouts."), Some("Hey."))
        );
        assert_eq!((clips.len(), a.corpus.as_deref()), (1, Some("ov-merd")));
        let said = warnings.join("\n");
        for wanted in [
            "MER2023's tables (`train-label.csv` and so on) are not there",
            "1 clips are left out, for they have neither words nor a description: `b`",
            "no media file: `lost`",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        let (clips, _) = import(Source::MerCaptionPlus, &root).unwrap();
        let b = clip(&clips, "b");
        assert_eq!(
            (b.reason.as_deref(), b.open_vocabulary.len()),
            (Some("She is calm."), 0)
        );
        for source in [Source::HumanOv, Source::MerCaption] {
            assert_eq!(import(source, &root).unwrap().0.len(), 1);
        }
    }

    #[test]
    fn bad_tables_are_refused() {
        for (name, text, wanted) in [
            (
                "track2_train_human.csv",
                "name,openset\na,x\na,y\n",
                "line 3: `a` stands on a line before",
            ),
            (
                "track2_train_human.csv",
                "name,labels\na,x\n",
                "no column `openset`",
            ),
            ("track2_train_human.csv", "name,openset\na\n", "line: 2"),
            (
                "other.csv",
                "name\n",
                "it holds none of the tables track2_train_human.csv",
            ),
        ] {
            let message = refusal(Source::HumanOv, &corpus(&[(name, text)], &["video/a.mp4"]));
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
        let root = corpus(
            &[(
                "gt-eng.csv",
                "names,emotions,subtitles,reasons\na,glad,,x\n",
            )],
            &["video/a.mp4"],
        );
        assert!(refusal(Source::Emer, &root).contains("line 2: `emotions` is `glad`"));
    }
}

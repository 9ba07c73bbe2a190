//! IEMOCAP (Busso et al., Language Resources and Evaluation 2008): five sessions of two actors each. A text file a dialogue
//! holds the raters' answers, another one the words; sentences are cut out as WAV files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{Media, first_few, folders};
use crate::sources::{files, stem};

/// The session that is tested on; the others are trained on.
const TEST_SESSION: u8 = 5;

/// Codes of the majority's emotion with the word that raters tick for it.
const RATED: [(&str, &str); 10] = [
    ("neu", "neutral state"),
    ("hap", "happiness"),
    ("sad", "sadness"),
    ("ang", "anger"),
    ("exc", "excited"),
    ("fru", "frustration"),
    ("sur", "surprise"),
    ("fea", "fear"),
    ("dis", "disgust"),
    ("oth", "other"),
];

/// How many emotions are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    /// Angry, happy (excited counts as happy), neutral, sad.
    Four,
    /// Those, excited for itself, and frustrated.
    Six,
}

impl Ways {
    fn corpus(self) -> &'static str {
        match self {
            Ways::Four => "iemocap-4",
            Ways::Six => "iemocap-6",
        }
    }

    fn emotion(self, code: &str) -> Option<&'static str> {
        match (code, self) {
            ("ang", _) => Some("angry"),
            ("hap", _) | ("exc", Ways::Four) => Some("happy"),
            ("neu", _) => Some("neutral"),
            ("sad", _) => Some("sad"),
            ("exc", Ways::Six) => Some("excited"),
            ("fru", Ways::Six) => Some("frustrated"),
            _ => None,
        }
    }
}

pub(super) fn clips(
    ways: Ways,
    from: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Clip>, DataError> {
    let corpus = ways.corpus();
    let mut media = Media::default();
    // Cut and cropped to the speaker by MERBench's script; the corpus's own videos show both actors.
    media.add(&from.join("subvideo-tgt"), "")?;
    let (mut clips, mut far) = (Vec::new(), Vec::new());
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    let mut turns = Vec::new();
    for session in 1..=5 {
        let folder = from.join(format!("Session{session}"));
        let ratings = folder.join("dialog/EmoEvaluation");
        if !ratings.is_dir() {
            warnings.push(format!(
                "`{}` is absent: no clips of this session",
                ratings.display()
            ));
            continue;
        }
        let sounds = folder.join("sentences/wav");
        if sounds.is_dir() {
            for dialogue in folders(&sounds)? {
                media.add(&dialogue, "")?;
            }
        }
        let mut said = HashMap::new();
        for path in texts(&folder.join("dialog/transcriptions"))? {
            read_words(&path, &mut said)?;
        }
        for path in texts(&ratings)? {
            let text = read(&path)?;
            for turn in read_turns(corpus, &path, &text)? {
                turns.push((session, said.remove(&turn.name), turn));
            }
        }
    }
    if turns.is_empty() {
        return Err(DataError::Source {
            corpus,
            path: from.to_path_buf(),
            detail: "it holds no rated turn: wanted `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt` and so on; give the \
                     folder that holds `Session1/`"
                .to_owned(),
        });
    }
    let silent: Vec<&str> = turns
        .iter()
        .filter(|(_, said, _)| said.is_none())
        .map(|(_, _, turn)| turn.name.as_str())
        .collect();
    if !silent.is_empty() {
        warnings.push(format!(
            "{} turns have no transcript: {}",
            silent.len(),
            first_few(&silent)
        ));
    }
    for (session, transcript, turn) in turns {
        let Some(emotion) = ways.emotion(&turn.code) else {
            *others.entry(turn.code).or_default() += 1;
            continue;
        };
        let mut clip = Clip {
            id: turn.name.clone(),
            transcript,
            emotion: Some(emotion.to_owned()),
            agreement: turn.agreement,
            speaker: speaker(&turn.name),
            corpus: Some(corpus.to_owned()),
            licence: Some(
                "IEMOCAP licence of SAIL, University of Southern California (research only)"
                    .to_owned(),
            ),
            language: Some("en".to_owned()),
            split: Some(if session == TEST_SESSION {
                Split::Test
            } else {
                Split::Train
            }),
            valence: Some((turn.scores[0] - 3.0) / 2.0).filter(|valence| valence.abs() <= 1.0),
            ..Clip::default()
        };
        let dialogue = turn
            .name
            .rsplit_once('_')
            .map_or("", |(dialogue, _)| dialogue);
        for (key, value) in [
            ("session", json!(session)),
            ("fold", json!(session)),
            ("dialogue", json!(dialogue)),
            ("label", json!(turn.code)),
            ("start", json!(turn.start)),
            ("end", json!(turn.end)),
            ("valence", json!(turn.scores[0])),
            ("activation", json!(turn.scores[1])),
            ("dominance", json!(turn.scores[2])),
        ] {
            clip.meta.insert(key.to_owned(), value);
        }
        // The scale is from 1 to 5; a few published means lie beside it.
        if clip.valence.is_none() {
            far.push(clip.id.clone());
        }
        clips.extend(media.give(&turn.name, clip));
    }
    if !far.is_empty() {
        warnings.push(format!(
            "{} turns have a valence that is not from 1 to 5, which is left out: {}",
            far.len(),
            first_few(&far)
        ));
    }
    if !others.is_empty() {
        let counts: Vec<String> = others
            .iter()
            .map(|(code, count)| format!("{code} {count}"))
            .collect();
        warnings.push(format!(
            "{} turns are left out, for their majority is none of the {} emotions: {}",
            others.values().sum::<usize>(),
            if ways == Ways::Four { "four" } else { "six" },
            counts.join(", ")
        ));
    }
    media.report(corpus, from, clips, warnings)
}

/// The text files of a folder that may be absent, without macOS's shadows.
fn texts(folder: &Path) -> Result<Vec<std::path::PathBuf>, DataError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = files(folder)?;
    paths.retain(|path| stem(path, "txt").is_some_and(|stem| stem.starts_with("Ses")));
    Ok(paths)
}

fn read(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))
}

/// Lines such as `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`; others comment on them.
fn read_words(path: &Path, said: &mut HashMap<String, String>) -> Result<(), DataError> {
    for line in read(path)?.lines() {
        if let Some((name, rest)) = line.split_once(" [")
            && let Some((_, words)) = rest.split_once("]:")
            && name.starts_with("Ses")
            && !words.trim().is_empty()
        {
            said.insert(name.to_owned(), words.trim().to_owned());
        }
    }
    Ok(())
}

/// A turn as its raters saw it.
struct Turn {
    name: String,
    start: f64,
    end: f64,
    code: String,
    /// Mean valence, activation and dominance.
    scores: [f32; 3],
    agreement: Option<f32>,
}

/// The turns of a dialogue: a line of times, name, emotion and scores, then one a rater (`C-E2:\tAnger; Sadness;\t()`), of which
/// those of the actors themselves (`C-F1`, `C-M1`) do not count.
fn read_turns(corpus: &'static str, path: &Path, text: &str) -> Result<Vec<Turn>, DataError> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut answers: Vec<&str> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some((rater, answer)) = line.split_once(':')
            && rater.starts_with("C-E")
        {
            answers.push(answer);
            if let Some(turn) = turns.last_mut() {
                turn.agreement = agreement(&turn.code, &answers);
            }
        } else if line.starts_with('[') {
            answers.clear();
            turns.push(turn(line).ok_or_else(|| DataError::Source {
                corpus,
                path: path.to_path_buf(),
                detail: format!(
                    "line {}: `{line}`, wanted `[start - end]`, the turn's name, its emotion and `[valence, activation, \
                     dominance]`, with tabs between",
                    index + 1
                ),
            })?);
        }
    }
    Ok(turns)
}

fn turn(line: &str) -> Option<Turn> {
    let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
    let [times, name, code, scores] = fields[..] else {
        return None;
    };
    let inner = |text: &'static str, field: &'_ str| {
        let field = field.strip_prefix('[')?.strip_suffix(']')?;
        let numbers: Option<Vec<f64>> = field
            .split(text)
            .map(|part| part.trim().parse().ok())
            .collect();
        numbers
    };
    let [start, end] = inner(" - ", times)?[..] else {
        return None;
    };
    let [valence, activation, dominance] = inner(",", scores)?[..] else {
        return None;
    };
    let scores = [valence as f32, activation as f32, dominance as f32];
    Some(Turn {
        name: name.to_owned(),
        start,
        end,
        code: code.to_owned(),
        scores,
        agreement: None,
    })
}

/// Share of the raters that ticked the word of a code.
fn agreement(code: &str, answers: &[&str]) -> Option<f32> {
    let (_, word) = RATED.iter().find(|(known, _)| *known == code)?;
    let agree = answers.iter().filter(|answer| {
        let ticked = answer.split('(').next().unwrap_or_default().split(';');
        ticked
            .into_iter()
            .any(|ticked| ticked.trim().eq_ignore_ascii_case(word))
    });
    Some(agree.count() as f32 / answers.len() as f32)
}

/// The actor: the session and the sex of who speaks, which the last part of a name begins with. The letter after the session
/// says who wore the markers.
fn speaker(name: &str) -> Option<String> {
    let session = name.get(..5)?;
    let sex = name.rsplit('_').next()?.chars().next()?;
    Some(format!("{session}{sex}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    const RATINGS: &str = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n\
        [6.2901 - 8.2357]\tSes01F_impro01_M000\texc\t[4.0000, 3.5000, 2.0000]\n\
        C-E2:\tExcited; Happiness;\t()\nC-E3:\tExcited;\t(x; y)\nC-E4:\tHappiness;\t()\nC-M1:\tNeutral;\t()\nA-E3:\tval 4; act 3; dom 2;\t()\n\n\
        [9.0 - 10.0]\tSes01F_impro01_F000\tfru\t[1.0, 2.5, 2.5]\n\
        C-E2:\tFrustration;\t()\n\
        [11.0 - 12.0]\tSes01F_impro01_F001\txxx\t[1.0, 2.5, 2.5]\n\
        [13.0 - 14.0]\tSes01F_impro01_F002\tneu\t[3.0, 2.5, 2.5]\n";

    fn sessions() -> tempfile::TempDir {
        corpus(
            &[
                ("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", RATINGS),
                (
                    "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt",
                    "shadow",
                ),
                (
                    "Session1/dialog/transcriptions/Ses01F_impro01.txt",
                    "Ses01F_impro01_M000 [006.2901-008.2357]: Excuse me.\nF: (laughs)\n",
                ),
                (
                    "Session5/dialog/EmoEvaluation/Ses05M_script01_1.txt",
                    "[0.5 - 1.0]\tSes05M_script01_1_F000\tsad\t[5.5, 2.0, 2.0]\n",
                ),
            ],
            &[
                "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
                "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
                "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F001.wav",
                "Session5/sentences/wav/Ses05M_script01_1/Ses05M_script01_1_F000.wav",
                "subvideo-tgt/Ses05M_script01_1_F000.avi",
            ],
        )
    }

    #[test]
    fn four_ways_take_excited_for_happy() {
        let (clips, warnings) = import(Source::Iemocap4, &sessions()).unwrap();
        assert_eq!(ids(&clips, Split::Train), ["Ses01F_impro01_M000"]);
        assert_eq!(ids(&clips, Split::Test), ["Ses05M_script01_1_F000"]);
        let first = clip(&clips, "Ses01F_impro01_M000");
        assert_eq!(
            (first.emotion.as_deref(), &first.meta["label"]),
            (Some("happy"), &json!("exc"))
        );
        // The man speaks, though the woman wore the markers.
        assert_eq!(
            (first.speaker.as_deref(), first.valence),
            (Some("Ses01M"), Some(0.5))
        );
        // Two of three raters ticked it; the actor's own answer does not count.
        assert_eq!(first.agreement, Some(2.0 / 3.0));
        assert_eq!(first.transcript.as_deref(), Some("Excuse me."));
        assert_eq!(
            (&first.meta["session"], &first.meta["dialogue"]),
            (&json!(1), &json!("Ses01F_impro01"))
        );
        assert_eq!(first.meta["fold"], first.meta["session"]);
        assert!(clip(&clips, "Ses05M_script01_1_F000").video.is_some());
        let said = warnings.join("\n");
        for wanted in [
            "Session2/dialog/EmoEvaluation` is absent",
            "4 turns have no transcript",
            "2 turns are left out, for their majority is none of the four emotions: fru 1, xxx 1",
            "1 turns have a valence that is not from 1 to 5, which is left out: `Ses05M_script01_1_F000`",
            "no media file: `Ses01F_impro01_F002`",
            "no label: `Ses01F_impro01_F000`, `Ses01F_impro01_F001`",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }

    #[test]
    fn six_ways_tell_them_apart() {
        let (clips, warnings) = import(Source::Iemocap6, &sessions()).unwrap();
        assert_eq!(
            clip(&clips, "Ses01F_impro01_M000").emotion.as_deref(),
            Some("excited")
        );
        let frustrated = clip(&clips, "Ses01F_impro01_F000");
        assert_eq!(
            (frustrated.emotion.as_deref(), frustrated.speaker.as_deref()),
            (Some("frustrated"), Some("Ses01F"))
        );
        assert!(
            warnings
                .iter()
                .any(|said| said.contains("six emotions: xxx 1")),
            "{warnings:?}"
        );
        let labels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/labels");
        for ways in [Ways::Four, Ways::Six] {
            let set = LabelSet::read(&labels.join(format!("{}.yaml", ways.corpus()))).unwrap();
            let emotions = RATED.iter().filter_map(|(code, _)| ways.emotion(code));
            let mut classes: Vec<_> = emotions
                .map(|emotion| set.index(emotion).unwrap())
                .collect();
            classes.sort_unstable();
            classes.dedup();
            assert_eq!(classes.len(), set.len());
        }
    }

    #[test]
    fn torn_lines_are_refused() {
        for line in [
            "[6.2 - 8.2]\tSes01F_impro01_M000\texc",
            "[6.2]\ta\tb\t[1, 2, 3]",
            "[1 - 2]\ta\tb\t[1, 2]",
        ] {
            let text = format!("% heading\n{line}\n");
            let root = corpus(
                &[("Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", &text)],
                &[],
            );
            let message = refusal(Source::Iemocap4, &root);
            assert!(
                message.contains("line 2: ") && message.contains("wanted `[start - end]`"),
                "{message}"
            );
        }
        let message = refusal(Source::Iemocap6, &corpus(&[], &[]));
        assert!(message.contains("it holds no rated turn"), "{message}");
    }
}

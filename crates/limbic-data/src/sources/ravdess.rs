//! RAVDESS (Livingstone and Russo, PLoS ONE 2018): 24 actors say or sing two sentences in eight emotions. A file's name says
//! all, in seven numbers: modality, channel, emotion, intensity, sentence, repetition, actor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::files;
use crate::sources::media::{first_few, folders};

const CORPUS: &str = "ravdess";

/// Deepest folder that is searched: the archives unpack to a folder an actor, perhaps inside one an archive.
const DEPTH: usize = 2;

/// The emotions in the order of their numbers, as in `configs/labels/ravdess-8.yaml`.
const EMOTIONS: [&str; 8] = [
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgusted",
    "surprised",
];

/// The files of a performance, by modality.
#[derive(Default)]
struct Performance {
    both: Option<PathBuf>,
    pictures: Option<PathBuf>,
    sound: Option<PathBuf>,
}

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let mut found = BTreeMap::<String, (Clip, Performance)>::new();
    let mut unnamed = Vec::new();
    let mut pending = vec![(from.to_path_buf(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        if depth < DEPTH {
            pending.extend(
                folders(&folder)?
                    .into_iter()
                    .map(|folder| (folder, depth + 1)),
            );
        }
        for path in files(&folder)? {
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if !matches!(extension, Some("wav" | "mp4")) || name.starts_with('.') {
                continue;
            }
            let Some((modality, performance)) = name.split_once('-') else {
                unnamed.push(name.to_owned());
                continue;
            };
            let Some(clip) = clip(performance) else {
                unnamed.push(name.to_owned());
                continue;
            };
            let (_, files) = found
                .entry(performance.to_owned())
                .or_insert_with(|| (clip, Performance::default()));
            let place = match modality {
                "01" => &mut files.both,
                "02" => &mut files.pictures,
                "03" => &mut files.sound,
                _ => {
                    unnamed.push(name.to_owned());
                    continue;
                }
            };
            place.get_or_insert(path);
        }
    }
    let clips = found.into_values().map(|(clip, files)| Clip {
        video: files.both.or(files.pictures),
        audio: files.sound,
        ..clip
    });
    // A name with a wrong modality leaves a performance without files.
    let clips: Vec<Clip> = clips.filter(|clip| clip.paths().next().is_some()).collect();
    if !unnamed.is_empty() {
        unnamed.sort();
        warnings.push(format!(
            "{} files are left out, for their names are not seven numbers as in `03-01-06-01-02-01-12`: {}",
            unnamed.len(),
            first_few(&unnamed)
        ));
    }
    if clips.is_empty() {
        return Err(DataError::Source {
            corpus: CORPUS,
            path: from.to_path_buf(),
            detail: "neither it nor its folders hold a file named like `03-01-06-01-02-01-12.wav`; give the folder that holds \
                     `Actor_01/` and so on"
                .to_owned(),
        });
    }
    Ok(clips)
}

/// What the last six numbers of a name say.
fn clip(name: &str) -> Option<Clip> {
    let parts: Vec<&str> = name.split('-').collect();
    let [channel, emotion, intensity, sentence, repetition, actor] = parts[..] else {
        return None;
    };
    let number: u8 = actor
        .parse()
        .ok()
        .filter(|number| (1..=24).contains(number))?;
    let (channel, intensity) = (
        pick(&["speech", "song"], channel)?,
        pick(&["normal", "strong"], intensity)?,
    );
    let sentence = pick(
        &[
            "Kids are talking by the door.",
            "Dogs are sitting by the door.",
        ],
        sentence,
    )?;
    let repetition: u8 = repetition
        .parse()
        .ok()
        .filter(|number| (1..=2).contains(number))?;
    let sex = if number % 2 == 1 { "male" } else { "female" };
    Some(Clip {
        id: name.to_owned(),
        transcript: Some(sentence.to_owned()),
        emotion: Some(pick(&EMOTIONS, emotion)?.to_owned()),
        speaker: Some(actor.to_owned()),
        corpus: Some(CORPUS.to_owned()),
        licence: Some("CC-BY-NC-SA-4.0".to_owned()),
        language: Some("en".to_owned()),
        split: Some(split(number)),
        meta: BTreeMap::from([
            ("channel".to_owned(), json!(channel)),
            ("intensity".to_owned(), json!(intensity)),
            ("repetition".to_owned(), json!(repetition)),
            ("speaker_sex".to_owned(), json!(sex)),
        ]),
        ..Clip::default()
    })
}

/// The word that a number of two digits, counted from 01, stands for.
fn pick<'a>(words: &[&'a str], number: &str) -> Option<&'a str> {
    let index = number.parse::<usize>().ok().filter(|_| number.len() == 2)?;
    words.get(index.checked_sub(1)?).copied()
}

/// Odd actors are men and even ones women, so that each split has as many of both.
fn split(actor: u8) -> Split {
    match actor {
        1..=20 => Split::Train,
        21 | 22 => Split::Validation,
        _ => Split::Test,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    #[test]
    fn files_of_one_performance_are_one_clip() {
        let root = corpus(
            &[("README.txt", "")],
            &[
                "Actor_12/03-01-06-01-02-01-12.wav",
                "Video_Speech_Actor_12/Actor_12/01-01-06-01-02-01-12.mp4",
                "Video_Speech_Actor_12/Actor_12/02-01-06-01-02-01-12.mp4",
                "Actor_21/02-02-03-02-01-02-21.mp4",
                "Actor_23/03-01-08-01-01-01-23.wav",
                "Actor_23/03-01-09-01-01-01-23.wav",
                "Actor_23/04-01-05-01-01-01-23.wav",
                "Actor_23/notes.wav",
            ],
        );
        let (clips, warnings) = import(Source::Ravdess, &root).unwrap();
        assert_eq!(ids(&clips, Split::Train), ["01-06-01-02-01-12"]);
        assert_eq!(ids(&clips, Split::Validation), ["02-03-02-01-02-21"]);
        assert_eq!(ids(&clips, Split::Test), ["01-08-01-01-01-23"]);
        let first = clip(&clips, "01-06-01-02-01-12");
        assert_eq!(
            (first.emotion.as_deref(), first.speaker.as_deref()),
            (Some("fearful"), Some("12"))
        );
        assert!(
            first
                .video
                .as_ref()
                .unwrap()
                .ends_with("01-01-06-01-02-01-12.mp4")
        );
        assert!(
            first
                .audio
                .as_ref()
                .unwrap()
                .ends_with("03-01-06-01-02-01-12.wav")
        );
        assert_eq!(
            first.transcript.as_deref(),
            Some("Dogs are sitting by the door.")
        );
        assert_eq!(
            (&first.meta["speaker_sex"], &first.meta["intensity"]),
            (&json!("female"), &json!("normal"))
        );
        let sung = clip(&clips, "02-03-02-01-02-21");
        assert_eq!(
            (&sung.meta["channel"], sung.emotion.as_deref()),
            (&json!("song"), Some("happy"))
        );
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("3 files are left out")
                && warnings[0].contains("`03-01-09-01-01-01-23`, `04-01-05-01-01-01-23`, `notes`"),
            "{warnings:?}"
        );
    }

    #[test]
    fn the_label_set_has_the_emotions_in_their_order() {
        let path = "../../configs/labels/ravdess-8.yaml";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        assert_eq!(LabelSet::read(&path).unwrap().names(), EMOTIONS);
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let message = refusal(Source::Ravdess, &corpus(&[], &["Actor_01/a.wav"]));
        assert!(
            message.contains("a file named like `03-01-06-01-02-01-12.wav`"),
            "{message}"
        );
    }
}

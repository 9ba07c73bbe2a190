//! CREMA-D: 91 actors say twelve sentences in six emotions. A clip is a stem such as `1001_DFA_ANG_XX` (actor, sentence,
//! emotion, level) under which video and sound lie in folders of their own; tables add the votes of the raters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::table::{Row, Table};
use crate::sources::{files, stem};

/// Folders of media with the extension of their files.
const VIDEO: (&str, &str) = ("VideoFlash", "flv");
const WAV: (&str, &str) = ("AudioWAV", "wav");
const MP3: (&str, &str) = ("AudioMP3", "mp3");

/// Fewer actors than this cannot be split by actor.
const MIN_ACTORS: usize = 10;

/// The twelve sentences, by the codes of the corpus's own description.
const SENTENCES: [(&str, &str); 12] = [
    ("DFA", "Don't forget a jacket."),
    ("IEO", "It's eleven o'clock."),
    ("IOM", "I'm on my way to the meeting."),
    ("ITH", "I think I have a doctor's appointment."),
    ("ITS", "I think I've seen this before."),
    ("IWL", "I would like a new alarm clock."),
    ("IWW", "I wonder what this is about."),
    ("MTI", "Maybe tomorrow it will be cold."),
    ("TAI", "The airplane is almost full."),
    ("TIE", "That is exactly what happened."),
    ("TSI", "The surface is slick."),
    ("WSI", "We'll stop in a couple of minutes."),
];

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let videos = media(from, VIDEO, warnings)?;
    let wavs = media(from, WAV, warnings)?;
    let mp3s = media(from, MP3, warnings)?;
    let votes = table(from, "processedResults/summaryTable.csv", warnings)?;
    let votes = rows_by(votes.as_ref(), "FileName")?;
    let actors = table(from, "VideoDemographics.csv", warnings)?;
    let actors = rows_by(actors.as_ref(), "ActorID")?;

    let stems: BTreeSet<&String> = videos
        .keys()
        .chain(wavs.keys())
        .chain(mp3s.keys())
        .collect();
    let mut clips = Vec::new();
    for stem in stems {
        let Some(clip) = clip(stem) else { continue };
        clips.push(Clip {
            video: videos.get(stem).cloned(),
            audio: wavs.get(stem).or(mp3s.get(stem)).cloned(),
            meta: meta(stem, votes.get(stem.as_str()), actors.get(&stem[..4]))?,
            ..clip
        });
    }
    if clips.is_empty() {
        return Err(DataError::Source {
            corpus: "crema-d",
            path: from.to_path_buf(),
            detail: "neither `VideoFlash/`, `AudioWAV/` nor `AudioMP3/` holds a file named like `1001_DFA_ANG_XX.flv`; give \
                     the folder that holds them"
                .to_owned(),
        });
    }
    assign_splits(&mut clips, warnings);
    Ok(clips)
}

/// The files of one folder by stem; the folder may be absent.
fn media(
    from: &Path,
    (folder, extension): (&str, &str),
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let folder = from.join(folder);
    let mut found = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for path in files(&folder)? {
        match stem(&path, extension).filter(|stem| clip(stem).is_some()) {
            Some(stem) => {
                found.insert(stem.to_owned(), path.clone());
            }
            None => warnings.push(format!(
                "`{}` is left out: its name is not actor, sentence, emotion and level, as in `1001_DFA_ANG_XX.{extension}`",
                path.display()
            )),
        }
    }
    Ok(found)
}

/// What a stem says.
fn clip(stem: &str) -> Option<Clip> {
    let parts: Vec<&str> = stem.split('_').collect();
    let [actor, sentence, emotion, level] = parts.as_slice() else {
        return None;
    };
    level_name(level)?;
    if actor.len() != 4 || !actor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Clip {
        id: stem.to_owned(),
        transcript: Some(
            SENTENCES
                .iter()
                .find(|(code, _)| code == sentence)?
                .1
                .to_owned(),
        ),
        emotion: Some(emotion_name(emotion)?.to_owned()),
        speaker: Some((*actor).to_owned()),
        licence: Some("ODbL-1.0".to_owned()),
        language: Some("en".to_owned()),
        ..Clip::default()
    })
}

fn emotion_name(code: &str) -> Option<&'static str> {
    match code {
        "ANG" => Some("angry"),
        "DIS" => Some("disgusted"),
        "FEA" => Some("fearful"),
        "HAP" => Some("happy"),
        "NEU" => Some("neutral"),
        "SAD" => Some("sad"),
        _ => None,
    }
}

/// How strongly the actor was asked to show the emotion. One published file says `X` where all others say `XX`.
fn level_name(code: &str) -> Option<&'static str> {
    match code {
        "LO" => Some("low"),
        "MD" => Some("medium"),
        "HI" => Some("high"),
        "XX" | "X" => Some("unspecified"),
        _ => None,
    }
}

/// Level, the raters' majority votes (letters joined by `:` are a tie) and what is known of the actor.
fn meta(
    stem: &str,
    votes: Option<&Row>,
    actor: Option<&Row>,
) -> Result<BTreeMap<String, Value>, DataError> {
    let mut meta = BTreeMap::new();
    if let Some(level) = stem.rsplit('_').next().and_then(level_name) {
        meta.insert("level".to_owned(), json!(level));
    }
    if let Some(row) = votes {
        let (voice, face) = (row.get("VoiceVote")?, row.get("FaceVote")?);
        let both = row.get("MultiModalVote")?;
        meta.insert(
            "votes".to_owned(),
            json!({"voice": voice, "face": face, "voice_and_face": both}),
        );
    }
    if let Some(row) = actor {
        meta.insert("speaker_age".to_owned(), json!(row.get("Age")?));
        meta.insert("speaker_sex".to_owned(), json!(row.get("Sex")?));
    }
    Ok(meta)
}

/// A table of the corpus; that it is absent is reported.
fn table(from: &Path, name: &str, warnings: &mut Vec<String>) -> Result<Option<Table>, DataError> {
    let path = from.join(name);
    if !path.is_file() {
        warnings.push(format!(
            "`{}` is absent: its columns are left out of `meta`",
            path.display()
        ));
        return Ok(None);
    }
    Table::read("crema-d", &path, b',').map(Some)
}

/// A table's rows by the value of one column.
fn rows_by<'a>(
    table: Option<&'a Table>,
    column: &str,
) -> Result<BTreeMap<&'a str, Row<'a>>, DataError> {
    let rows = table.into_iter().flat_map(Table::rows);
    rows.map(|row| Ok((row.get(column)?, row))).collect()
}

fn assign_splits(clips: &mut [Clip], warnings: &mut Vec<String>) {
    let actors = clips
        .iter()
        .filter_map(|clip| clip.speaker.clone())
        .collect::<BTreeSet<_>>()
        .len();
    if actors < MIN_ACTORS {
        warnings.push(format!("every clip is `train`: {actors} actors are too few to split by actor, {MIN_ACTORS} are needed"));
    }
    for clip in clips {
        let place = clip
            .speaker
            .as_deref()
            .and_then(|actor| actor.bytes().last());
        clip.split = Some(match place {
            _ if actors < MIN_ACTORS => Split::Train,
            Some(b'9') => Split::Validation,
            Some(b'0') => Split::Test,
            _ => Split::Train,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::manifest::Manifest;
    use crate::sources::Source;

    fn touch(root: &Path, name: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn each_stem_is_one_clip_and_wav_comes_before_mp3() {
        let from = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let message = Source::CremaD
            .import(from.path(), out.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains("VideoFlash"), "{message}");
        for name in [
            "VideoFlash/1001_DFA_ANG_XX.flv",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            "AudioMP3/1001_DFA_ANG_XX.mp3",
            "AudioMP3/1002_IEO_HAP_HI.mp3",
            "VideoFlash/1003_TSI_SAD_LO.flv",
            "VideoFlash/1003_TSI_JOY_LO.flv",
            "AudioWAV/notes.txt",
        ] {
            touch(from.path(), name);
        }
        let report = Source::CremaD.import(from.path(), out.path()).unwrap();
        // Two names, two tables and the split.
        assert_eq!(
            (report.clips, report.warnings.len()),
            (3, 5),
            "{:?}",
            report.warnings
        );
        let clips = Manifest::read(&report.manifest).unwrap().clips;
        assert!(
            clips[0]
                .audio
                .as_ref()
                .unwrap()
                .ends_with("AudioWAV/1001_DFA_ANG_XX.wav")
        );
        assert!(
            clips[1]
                .audio
                .as_ref()
                .unwrap()
                .ends_with("AudioMP3/1002_IEO_HAP_HI.mp3")
        );
        assert_eq!(clips[2].audio, None);
        assert_eq!(
            clips[2].transcript.as_deref(),
            Some("The surface is slick.")
        );
        assert_eq!(clips[2].meta["level"], "low");
    }

    #[test]
    fn ten_actors_are_split_by_actor() {
        let from = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        for actor in 1001..=1020 {
            touch(from.path(), &format!("AudioWAV/{actor}_DFA_ANG_XX.wav"));
        }
        let report = Source::CremaD.import(from.path(), out.path()).unwrap();
        let speakers = |split: Split| -> Vec<String> {
            let manifest = Manifest::read(&report.manifest).unwrap();
            manifest
                .split(split)
                .into_iter()
                .filter_map(|clip| clip.speaker.clone())
                .collect()
        };
        assert_eq!(speakers(Split::Validation), ["1009", "1019"]);
        assert_eq!(speakers(Split::Test), ["1010", "1020"]);
        assert_eq!(report.counts[&Split::Train]["angry"], 16);
    }

    #[test]
    fn the_published_corpus_is_read() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/crema-d");
        if !corpus.is_dir() {
            eprintln!("skipped: no CREMA-D in ../shared/data");
            return;
        }
        let out = tempfile::tempdir().unwrap();
        let report = Source::CremaD.import(&corpus, out.path()).unwrap();
        assert_eq!(report.clips, 12);
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        let clips = Manifest::read(&report.manifest).unwrap().clips;
        assert_eq!(clips.iter().filter(|clip| clip.video.is_some()).count(), 6);
        let angry = &clips[0];
        assert_eq!(angry.id, "1001_DFA_ANG_XX");
        assert_eq!(
            angry.meta["votes"],
            json!({"voice": "A", "face": "A", "voice_and_face": "A"})
        );
        assert_eq!(
            (&angry.meta["speaker_age"], &angry.meta["speaker_sex"]),
            (&json!("51"), &json!("Male"))
        );
        assert!(
            clips
                .iter()
                .flat_map(|clip| clip.video.iter().chain(&clip.audio))
                .all(|path| path.is_file())
        );
    }
}

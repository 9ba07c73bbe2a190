//! EMO-DB: one folder of WAV files whose names say all: speaker (2 digits), sentence (3), emotion (1 letter), version (1 letter).

use std::path::Path;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::{files, stem};

/// The ten sentences that every speaker reads, by their codes (Burkhardt et al. 2005, table 1).
const SENTENCES: [(&str, &str); 10] = [
    ("a01", "Der Lappen liegt auf dem Eisschrank."),
    ("a02", "Das will sie am Mittwoch abgeben."),
    ("a04", "Heute abend könnte ich es ihm sagen."),
    (
        "a05",
        "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    ),
    ("a07", "In sieben Stunden wird es soweit sein."),
    (
        "b01",
        "Was sind denn das für Tüten, die da unter dem Tisch stehen.",
    ),
    (
        "b02",
        "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    ),
    (
        "b03",
        "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    ),
    (
        "b09",
        "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    ),
    (
        "b10",
        "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
    ),
];

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let folder = from.join("wav");
    let refused = |detail: &str| DataError::Source {
        corpus: "emodb",
        path: folder.clone(),
        detail: detail.to_owned(),
    };
    if !folder.is_dir() {
        return Err(refused(
            "there is no such folder; give the folder that holds `wav/`",
        ));
    }
    let mut clips = Vec::new();
    for path in files(&folder)? {
        match stem(&path, "wav").and_then(clip) {
            Some(clip) => clips.push(Clip { audio: Some(path), ..clip }),
            None => warnings.push(format!(
                "`{}` is left out: its name is not speaker, sentence, emotion and version, as in `03a01Fa.wav`",
                path.display()
            )),
        }
    }
    if clips.is_empty() {
        return Err(refused("it holds no file named like `03a01Fa.wav`"));
    }
    Ok(clips)
}

/// What a file's name says.
fn clip(stem: &str) -> Option<Clip> {
    // Every part of a valid name is ASCII, so the cuts below fall between characters.
    if stem.len() != 7 || !stem.is_ascii() {
        return None;
    }
    let (speaker, sentence, emotion, version) = (&stem[..2], &stem[2..5], &stem[5..6], &stem[6..]);
    let is_speaker = speaker.bytes().all(|byte| byte.is_ascii_digit());
    let is_version = version.bytes().all(|byte| byte.is_ascii_lowercase());
    if !is_speaker || !is_version {
        return None;
    }
    let transcript = SENTENCES.iter().find(|(code, _)| *code == sentence)?.1;
    Some(Clip {
        id: stem.to_owned(),
        transcript: Some(transcript.to_owned()),
        emotion: Some(emotion_name(emotion)?.to_owned()),
        speaker: Some(speaker.to_owned()),
        licence: Some("CC0-1.0".to_owned()),
        language: Some("de".to_owned()),
        split: Some(split(speaker)),
        ..Clip::default()
    })
}

/// The letters are the initials of the German words, for example W for Wut.
fn emotion_name(letter: &str) -> Option<&'static str> {
    match letter {
        "W" => Some("angry"),
        "L" => Some("bored"),
        "E" => Some("disgusted"),
        "A" => Some("fearful"),
        "F" => Some("happy"),
        "N" => Some("neutral"),
        "T" => Some("sad"),
        _ => None,
    }
}

fn split(speaker: &str) -> Split {
    match speaker {
        "15" | "16" => Split::Test,
        "14" => Split::Validation,
        _ => Split::Train,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::labels::LabelSet;
    use crate::manifest::Manifest;
    use crate::sources::Source;
    use crate::sources::table::Table;

    #[test]
    fn names_that_say_nothing_are_reported() {
        let from = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let wav = from.path().join("wav");
        assert!(
            Source::Emodb
                .import(from.path(), out.path())
                .unwrap_err()
                .to_string()
                .contains("holds `wav/`")
        );
        fs::create_dir(&wav).unwrap();
        assert!(
            Source::Emodb
                .import(from.path(), out.path())
                .unwrap_err()
                .to_string()
                .contains("named like")
        );
        for name in [
            "15b10Tb.wav",
            "03a01Xa.wav",
            "03c01Fa.wav",
            "0xa01Fa.wav",
            "03a01Fa.txt",
            "äa01Faa.wav",
        ] {
            fs::write(wav.join(name), b"").unwrap();
        }
        let report = Source::Emodb.import(from.path(), out.path()).unwrap();
        assert_eq!(
            (report.clips, report.warnings.len()),
            (1, 5),
            "{:?}",
            report.warnings
        );
        let manifest = Manifest::read(&report.manifest).unwrap();
        let clip = &manifest.clips[0];
        assert_eq!(
            (clip.id.as_str(), clip.emotion.as_deref(), clip.split),
            ("15b10Tb", Some("sad"), Some(Split::Test))
        );
        assert!(clip.audio.as_ref().unwrap().is_file());
    }

    #[test]
    fn the_published_corpus_is_read() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/emodb");
        if !corpus.is_dir() {
            eprintln!("skipped: no EMO-DB in ../shared/data");
            return;
        }
        let out = tempfile::tempdir().unwrap();
        let report = Source::Emodb.import(&corpus, out.path()).unwrap();
        assert_eq!(
            (report.clips, report.warnings.as_slice()),
            (362, [].as_slice())
        );
        let clips = Manifest::read(&report.manifest).unwrap().clips;
        assert!(
            clips
                .iter()
                .all(|clip| clip.audio.as_ref().is_some_and(|path| path.is_file()))
        );

        let sentences = Table::read("emodb", &corpus.join("sentences.csv"), b',').unwrap();
        let sentences: BTreeMap<_, _> = sentences
            .rows()
            .map(|row| (row.get("code").unwrap(), row.get("de").unwrap()))
            .collect();
        assert!(
            clips
                .iter()
                .all(|clip| clip.transcript.as_deref() == sentences.get(&clip.id[2..5]).copied())
        );

        let labels = LabelSet::read(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/labels/emodb-7.yaml"),
        )
        .unwrap();
        assert!(
            clips
                .iter()
                .all(|clip| labels.names().contains(&clip.emotion.as_deref().unwrap()))
        );
        // The counts of the folder, by file name: `ls wav | cut -c6 | sort | uniq -c`.
        let total = |emotion: &str| {
            report
                .counts
                .values()
                .filter_map(|counts| counts.get(emotion))
                .sum::<usize>()
        };
        let totals = [
            "fearful",
            "disgusted",
            "happy",
            "bored",
            "neutral",
            "sad",
            "angry",
        ]
        .map(total);
        assert_eq!(totals, [5, 9, 71, 9, 79, 62, 127]);
        for clip in &clips {
            let wanted = match clip.speaker.as_deref() {
                Some("15" | "16") => Split::Test,
                Some("14") => Split::Validation,
                _ => Split::Train,
            };
            assert_eq!(clip.split, Some(wanted));
        }
    }
}

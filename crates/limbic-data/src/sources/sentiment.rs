//! CMU-MOSI (Zadeh et al. 2016), CMU-MOSEI (Zadeh et al., ACL 2018), CH-SIMS (Yu et al., ACL 2020) and CH-SIMS v2.0 (Liu et al.,
//! ICMI 2022) in the layout that THUIAR's MMSA publishes all four in: a table of `video_id,clip_id,text,label,...,mode` and
//! `Raw/video_id/clip_id.mp4`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::media::{Media, first_file, folders};
use crate::sources::table::Table;

/// One of the four.
pub(super) struct Corpus {
    name: &'static str,
    licence: &'static str,
    language: &'static str,
    /// Labels lie within this of 0.
    most: f32,
}

pub(super) const MOSI: Corpus = Corpus {
    name: "cmu-mosi",
    licence: "CMU-MultimodalSDK terms (research only)",
    language: "en",
    most: 3.0,
};

pub(super) const MOSEI: Corpus = Corpus {
    name: "cmu-mosei",
    licence: "CMU-MultimodalSDK terms (research only)",
    language: "en",
    most: 3.0,
};

pub(super) const SIMS: Corpus = Corpus {
    name: "ch-sims",
    licence: "CH-SIMS terms (research only)",
    language: "zh",
    most: 1.0,
};

pub(super) const SIMS_V2: Corpus = Corpus {
    name: "ch-sims-v2",
    licence: "CH-SIMS terms (research only)",
    language: "zh",
    most: 1.0,
};

/// Folders of clips named `video_id` and `clip_id` with a line between: CMU-MOSI's own, and those that MERBench copies to.
const FLAT: [&str; 4] = [
    "Raw/Video/Segmented",
    "Raw/Audio/WAV_16000/Segmented",
    "subvideo",
    "subaudio",
];

const MODES: [(&str, &str); 4] = [
    ("train", "train"),
    ("valid", "validation"),
    ("val", "validation"),
    ("test", "test"),
];

pub(super) fn clips(
    corpus: &Corpus,
    from: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Clip>, DataError> {
    // CH-SIMS v2.0 unpacks into a folder of its own and calls its table `meta.csv`.
    let places = ["", "Raw", "ch-simsv2s"];
    let Some(path) = first_file(from, &places, &["label.csv", "meta.csv"]) else {
        return Err(DataError::Source {
            corpus: corpus.name,
            path: from.to_path_buf(),
            detail: "there is neither `label.csv` nor `meta.csv`; give the folder that holds it and `Raw/`".to_owned(),
        });
    };
    let mut media = Media::default();
    for name in ["Raw", "wav", "ch-simsv2s/Raw"] {
        let folder = from.join(name);
        let mut videos = if folder.is_dir() {
            folders(&folder)?
        } else {
            Vec::new()
        };
        if videos.is_empty() {
            videos.push(folder);
        }
        for video in videos {
            let name = video
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            media.add(&video, &format!("{name}/"))?;
        }
    }
    for folder in FLAT {
        media.add(&from.join(folder), "")?;
    }
    let (mut clips, mut seen) = (Vec::new(), BTreeSet::new());
    for row in Table::read(corpus.name, &path, b',')?.rows() {
        let (video, number) = (row.get("video_id")?, row.get("clip_id")?);
        let id = format!("{video}_{number}");
        if !seen.insert(id.clone()) {
            return Err(row.refused(format!(
                "clip `{number}` of `{video}` stands on a line before; remove one of them"
            )));
        }
        // Spreadsheets strip the zeros that CH-SIMS pads its file names with; CMU's own folders are flat.
        let names = [
            format!("{video}/{number}"),
            format!("{video}/{number:0>4}"),
            id.clone(),
        ];
        let name = names.iter().find(|name| media.has(name)).unwrap_or(&id);
        let Some(label) = row.number("label")? else {
            return Err(row.refused("`label` is empty, wanted a number"));
        };
        if label.abs() > corpus.most {
            return Err(row.refused(format!(
                "`label` is {label}, wanted a number from -{0} to {0}",
                corpus.most
            )));
        }
        let text = row.get("text")?.to_owned();
        let mut clip = Clip {
            id: id.clone(),
            transcript: Some(text).filter(|text| !text.is_empty()),
            sentiment: Some(label / corpus.most),
            corpus: Some(corpus.name.to_owned()),
            licence: Some(corpus.licence.to_owned()),
            language: Some(corpus.language.to_owned()),
            split: Some(row.coded("mode", &MODES)?.parse::<Split>()?),
            ..Clip::default()
        };
        clip.meta.insert("video_id".to_owned(), json!(video));
        clip.meta.insert("label".to_owned(), json!(label));
        for (key, column) in [
            ("label_text", "label_T"),
            ("label_audio", "label_A"),
            ("label_video", "label_V"),
        ] {
            if row.find(column).is_some() {
                clip.meta.extend(
                    row.number(column)?
                        .map(|label| (key.to_owned(), json!(label))),
                );
            }
        }
        if let Some(annotation) = row
            .find("annotation")
            .filter(|annotation| !annotation.is_empty())
        {
            clip.meta
                .insert("annotation".to_owned(), Value::from(annotation));
        }
        clips.extend(media.give(name, clip));
    }
    media.report(corpus.name, from, clips, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    const HEADING: &str = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n";

    #[test]
    fn sentiment_is_scaled_and_the_original_kept() {
        let rows = "v,1,\"Well, no.\",-1.5,,,,Negative,train\nv,2,Yes.,3.0,,,,Positive,valid\nw,1,So.,0,,,,Neutral,test\nw,9,So.,0,,,,Neutral,test\n";
        let root = corpus(
            &[("label.csv", &format!("{HEADING}{rows}"))],
            &[
                "Raw/v/1.mp4",
                "Raw/v/2.mp4",
                "Raw/w/1.mp4",
                "Raw/w/3.mp4",
                "wav/v/1.wav",
            ],
        );
        for source in [Source::CmuMosi, Source::CmuMosei] {
            let (clips, warnings) = import(source, &root).unwrap();
            assert_eq!(ids(&clips, Split::Train), ["v_1"]);
            assert_eq!(
                (ids(&clips, Split::Validation), ids(&clips, Split::Test)),
                (vec!["v_2"], vec!["w_1"])
            );
            let first = clip(&clips, "v_1");
            assert_eq!(
                (first.sentiment, &first.meta["label"]),
                (Some(-0.5), &json!(-1.5))
            );
            assert_eq!(
                (first.transcript.as_deref(), first.language.as_deref()),
                (Some("Well, no."), Some("en"))
            );
            assert!(first.audio.as_ref().unwrap().ends_with("wav/v/1.wav"));
            assert_eq!(first.meta.get("label_text"), None);
            assert_eq!(
                warnings,
                [
                    "1 labelled clips are left out, for they have no media file: `w_9`",
                    "1 media files are left out, for they have no label: `w/3`",
                ]
            );
        }
    }

    #[test]
    fn the_flat_folders_of_cmu_serve_too() {
        let rows = "v,1,Yes.,3.0,,,,Positive,test\n";
        let media = [
            "Raw/Video/Segmented/v_1.mp4",
            "Raw/Audio/WAV_16000/Segmented/v_1.wav",
        ];
        let root = corpus(&[("label.csv", &format!("{HEADING}{rows}"))], &media);
        let (clips, warnings) = import(Source::CmuMosi, &root).unwrap();
        assert!(clips[0].video.is_some() && clips[0].audio.is_some());
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn ch_sims_has_a_label_for_each_modality() {
        let rows = "video_0001,1,好。,-0.8,-0.6,0.0,-1.0,Negative,train\n";
        let root = corpus(
            &[("label.csv", &format!("{HEADING}{rows}"))],
            &["Raw/video_0001/0001.mp4"],
        );
        let (clips, _) = import(Source::ChSims, &root).unwrap();
        let only = clip(&clips, "video_0001_1");
        assert_eq!(
            (only.sentiment, &only.meta["label_video"]),
            (Some(-0.8), &json!(-1.0))
        );
        assert_eq!(
            (only.language.as_deref(), &only.meta["annotation"]),
            (Some("zh"), &json!("Negative"))
        );
        let root = corpus(
            &[("ch-simsv2s/meta.csv", &format!("{HEADING}{rows}"))],
            &["ch-simsv2s/Raw/video_0001/0001.mp4"],
        );
        let (clips, warnings) = import(Source::ChSimsV2, &root).unwrap();
        assert_eq!(
            (clips[0].corpus.as_deref(), warnings.len()),
            (Some("ch-sims-v2"), 0)
        );
    }

    #[test]
    fn bad_tables_are_refused() {
        for (rows, wanted) in [
            (
                "v,1,a,3.5,,,,x,train\n",
                "line 2: `label` is 3.5, wanted a number from -3 to 3",
            ),
            ("v,1,a,,,,,x,train\n", "line 2: `label` is empty"),
            (
                "v,1,a,1,,,,x,dev\n",
                "line 2: `mode` is `dev`, wanted one of train, valid",
            ),
            (
                "v,1,a,1,,,,x,test\nv,1,a,1,,,,x,test\n",
                "line 3: clip `1` of `v` stands on a line before",
            ),
            ("v,1,a\n", "line: 2"),
        ] {
            let root = corpus(
                &[("label.csv", &format!("{HEADING}{rows}"))],
                &["Raw/v/1.mp4"],
            );
            let message = refusal(Source::CmuMosi, &root);
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
        assert!(
            refusal(Source::ChSims, &corpus(&[], &[]))
                .contains("there is neither `label.csv` nor `meta.csv`")
        );
    }
}

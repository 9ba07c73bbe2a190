//! DFEW (Jiang et al., ACM Multimedia 2020): clips of films with one of seven expressions, in five folds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::sources::files;
use crate::sources::media::{Media, first_file, folders};
use crate::sources::table::Table;

const CORPUS: &str = "dfew";

/// The numbers of the expressions.
pub(super) const EMOTIONS: [(&str, &str); 7] = [
    ("1", "happy"),
    ("2", "sad"),
    ("3", "neutral"),
    ("4", "angry"),
    ("5", "surprise"),
    ("6", "disgust"),
    ("7", "fear"),
];

/// Folders of videos: as in the release, and as flat copies of it.
const VIDEOS: [&str; 5] = [
    "Clip/original",
    "original",
    "Clip/clip_224x224_avi",
    "clip_224x224_avi",
    "videos",
];

/// Folders that hold a folder of pictures a clip.
const PICTURES: [&str; 5] = [
    "Clip/clip_224x224",
    "clip_224x224",
    "Clip/clip_224x224_16f",
    "clip_224x224_16f",
    "data",
];

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let mut fold_of = BTreeMap::new();
    for fold in 1..=5 {
        match table(from, "test", fold) {
            Some(path) => fold_of.extend(labels(&path)?.into_keys().map(|number| (number, fold))),
            None if fold > 1 => warnings.push(format!(
                "the test set of fold {fold} is absent: its clips have no `meta.fold`"
            )),
            None => {}
        }
    }
    let mut labelled = BTreeMap::new();
    for (phase, split) in [("train", Split::Train), ("test", Split::Test)] {
        let Some(path) = table(from, phase, 1) else {
            return Err(DataError::Source {
                corpus: CORPUS,
                path: from.to_path_buf(),
                detail: format!(
                    "there is neither `EmoLabel_DataSplit/{phase}(single-labeled)/set_1.csv` nor \
                     `label/single_{phase}set_1.csv`; give the folder that holds them"
                ),
            });
        };
        for (number, emotion) in labels(&path)? {
            if labelled.insert(number, (emotion, split)).is_some() {
                return Err(DataError::Source {
                    corpus: CORPUS,
                    path,
                    detail: format!(
                        "clip {number} is in the training set of fold 1 too; remove it from one"
                    ),
                });
            }
        }
    }
    let mut media = Media::default();
    for name in VIDEOS {
        let folder = from.join(name);
        media.add(&folder, "")?;
        // Some copies keep the originals in parts.
        if folder.is_dir() {
            for part in folders(&folder)? {
                media.add(&part, "")?;
            }
        }
    }
    let (mut clips, mut stills) = (Vec::new(), 0);
    for (number, (emotion, split)) in labelled {
        let padded = format!("{number:05}");
        let mut clip = Clip {
            id: padded.clone(),
            emotion: Some(emotion.to_owned()),
            corpus: Some(CORPUS.to_owned()),
            licence: Some("DFEW terms (research only)".to_owned()),
            split: Some(split),
            ..Clip::default()
        };
        clip.meta.extend(
            fold_of
                .get(&number)
                .map(|fold| ("fold".to_owned(), json!(fold))),
        );
        let name = [padded.clone(), number.to_string()];
        let name = name
            .into_iter()
            .find(|name| media.has(name))
            .unwrap_or(padded);
        if !media.has(&name)
            && let Some(picture) = middle_picture(from, &name)?
        {
            stills += 1;
            clip.video = Some(picture);
            clips.push(clip);
        } else {
            clips.extend(media.give(&name, clip));
        }
    }
    if stills > 0 {
        warnings.push(format!(
            "{stills} clips have a folder of pictures but no video: the picture in the middle stands for each"
        ));
    }
    media.report(CORPUS, from, clips, warnings)
}

/// The table of a phase and fold, as in the release or as the authors' training code lays it out.
fn table(from: &Path, phase: &str, fold: usize) -> Option<PathBuf> {
    let release = format!("EmoLabel_DataSplit/{phase}(single-labeled)/set_{fold}.csv");
    let code = format!("label/single_{phase}set_{fold}.csv");
    first_file(from, &[""], &[&release, &code])
}

/// The labels by the clips' numbers, which the tables write with or without leading zeros.
fn labels(path: &Path) -> Result<BTreeMap<u32, &'static str>, DataError> {
    let mut labels = BTreeMap::new();
    for row in Table::read(CORPUS, path, b',')?.rows() {
        let name = row.get("video_name")?;
        let Ok(number) = name.parse::<u32>() else {
            return Err(row.refused(format!("`video_name` is `{name}`, wanted a number")));
        };
        if labels
            .insert(number, row.coded("label", &EMOTIONS)?)
            .is_some()
        {
            return Err(row.refused(format!(
                "clip {number} stands on a line before; remove one of them"
            )));
        }
    }
    Ok(labels)
}

/// The middle one of a clip's pictures.
fn middle_picture(from: &Path, name: &str) -> Result<Option<PathBuf>, DataError> {
    for folder in PICTURES {
        let folder = from.join(folder).join(name);
        if folder.is_dir() {
            let mut pictures = files(&folder)?;
            pictures.retain(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "jpg" || extension == "png")
            });
            if !pictures.is_empty() {
                return Ok(Some(pictures.swap_remove(pictures.len() / 2)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, ids, import, refusal};

    const TRAIN: &str = "video_name,label\n00001,1\n2,7\n00009,4\n";
    const TEST: &str = "video_name,label\n3,3\n";

    #[test]
    fn fold_one_is_the_split_and_all_folds_are_kept() {
        let root = corpus(
            &[
                ("EmoLabel_DataSplit/train(single-labeled)/set_1.csv", TRAIN),
                ("EmoLabel_DataSplit/test(single-labeled)/set_1.csv", TEST),
                (
                    "EmoLabel_DataSplit/test(single-labeled)/set_2.csv",
                    "video_name,label\n1,1\n",
                ),
            ],
            &[
                "Clip/original/part_1/1.mp4",
                "Clip/clip_224x224_avi/00002.avi",
                "Clip/original/3.mp4",
                "Clip/original/4.mp4",
            ],
        );
        let (clips, warnings) = import(Source::Dfew, &root).unwrap();
        assert_eq!(
            (ids(&clips, Split::Train), ids(&clips, Split::Test)),
            (vec!["00001", "00002"], vec!["00003"])
        );
        assert_eq!(clip(&clips, "00001").emotion.as_deref(), Some("happy"));
        assert_eq!(clip(&clips, "00002").emotion.as_deref(), Some("fear"));
        let folds: Vec<_> = clips.iter().map(|clip| clip.meta.get("fold")).collect();
        assert_eq!(folds, [Some(&json!(2)), None, Some(&json!(1))]);
        let said = warnings.join("\n");
        for wanted in [
            "the test set of fold 3 is absent",
            "no media file: `00009`",
            "no label: `4`",
        ] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }

    #[test]
    fn folders_of_pictures_give_their_middle_one() {
        let root = corpus(
            &[
                ("label/single_trainset_1.csv", TRAIN),
                ("label/single_testset_1.csv", TEST),
            ],
            &[
                "data/00001/00001_00001.jpg",
                "data/00001/00001_00002.jpg",
                "data/00001/00001_00003.jpg",
                "videos/00003.mp4",
            ],
        );
        let (clips, warnings) = import(Source::Dfew, &root).unwrap();
        assert!(
            clip(&clips, "00001")
                .video
                .as_ref()
                .unwrap()
                .ends_with("data/00001/00001_00002.jpg")
        );
        assert!(
            warnings
                .iter()
                .any(|said| said.contains("1 clips have a folder of pictures")),
            "{warnings:?}"
        );
        assert!(
            warnings
                .iter()
                .any(|said| said.contains("no media file: `00002`, `00009`")),
            "{warnings:?}"
        );
    }

    #[test]
    fn bad_tables_are_refused() {
        for (test, wanted) in [
            (
                "video_name,label\n3,8\n",
                "line 2: `label` is `8`, wanted one of 1, 2",
            ),
            (
                "video_name,label\nx,1\n",
                "line 2: `video_name` is `x`, wanted a number",
            ),
            (
                "video_name,label\n3,1\n3,1\n",
                "line 3: clip 3 stands on a line before",
            ),
            ("video_name,label\n3\n", "line: 2"),
            (
                "video_name,label\n1,1\n",
                "clip 1 is in the training set of fold 1 too",
            ),
        ] {
            let root = corpus(
                &[
                    ("label/single_trainset_1.csv", TRAIN),
                    ("label/single_testset_1.csv", test),
                ],
                &["videos/00003.mp4"],
            );
            let message = refusal(Source::Dfew, &root);
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
        let message = refusal(
            Source::Dfew,
            &corpus(&[("label/single_trainset_1.csv", TRAIN)], &[]),
        );
        assert!(
            message.contains("nor `label/single_testset_1.csv`"),
            "{message}"
        );
    }
}

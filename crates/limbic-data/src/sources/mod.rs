//! Published corpora in their own layouts, each turned into a manifest. Media are neither copied nor opened: the manifest
//! points at the originals.

mod crema_d;
mod dfew;
mod emer;
mod emo_prefer;
mod emodb;
#[cfg(test)]
mod fixture;
mod iemocap;
mod mafw;
mod media;
mod meld;
mod mer;
mod merr;
mod ravdess;
mod sentiment;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clip::{Clip, Split};
use crate::error::{DataError, Names};
use crate::manifest::Manifest;

/// A corpus whose published layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Berlin Database of Emotional Speech (Burkhardt et al., Interspeech 2005): `wav/03a01Fa.wav` and so on.
    ///
    /// Split by speaker: 15 and 16 are `test`, 14 is `validation`, the others are `train`. Emotions are those of
    /// `configs/labels/emodb-7.yaml`.
    Emodb,
    /// CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014): `VideoFlash/`, `AudioWAV/`, `AudioMP3/` and tables.
    ///
    /// The corpus has no split of its own. By actor: of each ten successive actor numbers from 1001 on, the ninth is
    /// `validation`, the tenth `test` and the others `train`; if fewer than ten actors are present, everything is `train`.
    /// Emotions are those that the actors were asked for, as in `configs/labels/crema-d-6.yaml`.
    CremaD,
    /// MER 2023 (Lian et al., ACM Multimedia 2023): Chinese films and series, six emotions and valence, sets `train` and
    /// `test1` to `test3` in `meta.set`.
    Mer2023,
    /// MER 2024 (Lian et al., MRAC 2024): `train`, and the test sets `semi` and `noise`.
    Mer2024,
    /// MER 2025 (Lian et al., ACM Multimedia 2025), the first track.
    Mer2025,
    /// MER 2026, the first track; its test labels are not published.
    Mer2026,
    /// The coarse descriptions of MERR (Cheng et al., NeurIPS 2024), all of them `train`.
    MerrCoarse,
    /// The fine descriptions of MERR, all of them `train`.
    MerrFine,
    /// EMER (Lian et al. 2023), the first version: descriptions of a hundred clips, all of them `train`.
    Emer,
    /// OV-MERD (Lian et al., ICML 2025), the second version of EMER: free words and descriptions, all of them `train`.
    OvMerd,
    /// MER-Caption (Lian et al., AffectGPT, ICML 2025): words and descriptions by machine, all of them `train`.
    MerCaption,
    /// MER-Caption+, the part of MER-Caption that two filters left.
    MerCaptionPlus,
    /// Human-OV of MER 2026: free words by people, all of them `train`.
    HumanOv,
    /// EmoPrefer and EmoPrefer V2 of MER 2026: pairs of descriptions with the preferred one, all of them `train`.
    EmoPrefer,
    /// MELD (Poria et al., ACL 2019): Friends, seven emotions and sentiment, split officially.
    Meld,
    /// IEMOCAP (Busso et al. 2008) with four emotions, excited counting as happy; session 5 is `test`.
    #[serde(rename = "iemocap-4")]
    Iemocap4,
    /// IEMOCAP with six emotions; session 5 is `test`.
    #[serde(rename = "iemocap-6")]
    Iemocap6,
    /// CMU-MOSI (Zadeh et al. 2016) as MMSA lays it out, sentiment from -3 to 3 divided by 3, split officially.
    CmuMosi,
    /// CMU-MOSEI (Zadeh et al., ACL 2018) likewise.
    CmuMosei,
    /// CH-SIMS (Yu et al., ACL 2020) likewise, sentiment from -1 to 1.
    ChSims,
    /// CH-SIMS v2.0 (Liu et al., ICMI 2022) likewise.
    ChSimsV2,
    /// DFEW (Jiang et al., ACM Multimedia 2020): seven expressions, split as in fold 1.
    Dfew,
    /// MAFW (Liu et al., ACM Multimedia 2022): eleven emotions and compounds of them, split as in fold 1.
    Mafw,
    /// RAVDESS (Livingstone and Russo 2018): speech and song, sound and pictures.
    ///
    /// The corpus has no split of its own. By actor: 21 and 22 are `validation`, 23 and 24 `test`, the others `train`.
    Ravdess,
}

/// What an import wrote, and what it could not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The manifest that was written.
    pub manifest: PathBuf,
    /// How many clips it has.
    pub clips: usize,
    /// How many clips each split has of each emotion.
    pub counts: BTreeMap<Split, BTreeMap<String, usize>>,
    /// Files that were not recognised, tables that are absent, and choices that the user should know of.
    pub warnings: Vec<String>,
}

impl Source {
    /// Every corpus with its name.
    pub const ALL: &[(Source, &str)] = &[
        (Source::Emodb, "emodb"),
        (Source::CremaD, "crema-d"),
        (Source::Mer2023, "mer2023"),
        (Source::Mer2024, "mer2024"),
        (Source::Mer2025, "mer2025"),
        (Source::Mer2026, "mer2026"),
        (Source::MerrCoarse, "merr-coarse"),
        (Source::MerrFine, "merr-fine"),
        (Source::Emer, "emer"),
        (Source::OvMerd, "ov-merd"),
        (Source::MerCaption, "mer-caption"),
        (Source::MerCaptionPlus, "mer-caption-plus"),
        (Source::HumanOv, "human-ov"),
        (Source::EmoPrefer, "emo-prefer"),
        (Source::Meld, "meld"),
        (Source::Iemocap4, "iemocap-4"),
        (Source::Iemocap6, "iemocap-6"),
        (Source::CmuMosi, "cmu-mosi"),
        (Source::CmuMosei, "cmu-mosei"),
        (Source::ChSims, "ch-sims"),
        (Source::ChSimsV2, "ch-sims-v2"),
        (Source::Dfew, "dfew"),
        (Source::Mafw, "mafw"),
        (Source::Ravdess, "ravdess"),
    ];

    /// Reads the corpus in folder `from` and writes `out/manifest.jsonl`.
    ///
    /// # Errors
    /// [`DataError::Source`] if `from` is not laid out as published, [`DataError::Io`] if files cannot be read or written.
    pub fn import(&self, from: &Path, out: &Path) -> Result<ImportReport, DataError> {
        let mut warnings = Vec::new();
        let clips = match self {
            Source::Emodb => emodb::clips(from, &mut warnings)?,
            Source::CremaD => crema_d::clips(from, &mut warnings)?,
            Source::Mer2023 => mer::clips(&mer::MER2023, from, &mut warnings)?,
            Source::Mer2024 => mer::clips(&mer::MER2024, from, &mut warnings)?,
            Source::Mer2025 => mer::clips(&mer::MER2025, from, &mut warnings)?,
            Source::Mer2026 => mer::clips(&mer::MER2026, from, &mut warnings)?,
            Source::MerrCoarse => merr::clips(&merr::COARSE, from, &mut warnings)?,
            Source::MerrFine => merr::clips(&merr::FINE, from, &mut warnings)?,
            Source::Emer => emer::clips(&emer::EMER, from, &mut warnings)?,
            Source::OvMerd => emer::clips(&emer::OV_MERD, from, &mut warnings)?,
            Source::MerCaption => emer::clips(&emer::MER_CAPTION, from, &mut warnings)?,
            Source::MerCaptionPlus => emer::clips(&emer::MER_CAPTION_PLUS, from, &mut warnings)?,
            Source::HumanOv => emer::clips(&emer::HUMAN_OV, from, &mut warnings)?,
            Source::EmoPrefer => emo_prefer::clips(from, &mut warnings)?,
            Source::Meld => meld::clips(from, &mut warnings)?,
            Source::Iemocap4 => iemocap::clips(iemocap::Ways::Four, from, &mut warnings)?,
            Source::Iemocap6 => iemocap::clips(iemocap::Ways::Six, from, &mut warnings)?,
            Source::CmuMosi => sentiment::clips(&sentiment::MOSI, from, &mut warnings)?,
            Source::CmuMosei => sentiment::clips(&sentiment::MOSEI, from, &mut warnings)?,
            Source::ChSims => sentiment::clips(&sentiment::SIMS, from, &mut warnings)?,
            Source::ChSimsV2 => sentiment::clips(&sentiment::SIMS_V2, from, &mut warnings)?,
            Source::Dfew => dfew::clips(from, &mut warnings)?,
            Source::Mafw => mafw::clips(from, &mut warnings)?,
            Source::Ravdess => ravdess::clips(from, &mut warnings)?,
        };
        fs::create_dir_all(out).map_err(|error| DataError::io("create", out, error))?;
        let manifest = Manifest {
            path: out.join("manifest.jsonl"),
            clips,
        };
        manifest.write(&manifest.path)?;
        Ok(ImportReport {
            clips: manifest.clips.len(),
            counts: count(&manifest.clips),
            manifest: manifest.path,
            warnings,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Self::ALL.iter();
        let (_, name) = all.find(|(source, _)| source == self).ok_or(fmt::Error)?;
        formatter.write_str(name)
    }
}

impl FromStr for Source {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let mut all = Self::ALL.iter();
        match all.find(|(_, name)| *name == text) {
            Some((source, _)) => Ok(*source),
            None => Err(DataError::UnknownName {
                kind: "corpus",
                got: text.to_owned(),
                wanted: Names(NAMES),
            }),
        }
    }
}

const NAMES: &[&str] = &{
    let mut names = [""; Source::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Source::ALL[index].1;
        index += 1;
    }
    names
};

fn count(clips: &[Clip]) -> BTreeMap<Split, BTreeMap<String, usize>> {
    let mut counts: BTreeMap<Split, BTreeMap<String, usize>> = BTreeMap::new();
    for clip in clips {
        if let (Some(split), Some(emotion)) = (clip.split, &clip.emotion) {
            *counts
                .entry(split)
                .or_default()
                .entry(emotion.clone())
                .or_default() += 1;
        }
    }
    counts
}

/// The files of a folder, sorted by name, so that a manifest does not depend on the file system's order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = entries.map_err(|error| DataError::io("list", folder, error))?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// A file's name without its extension, if it has this extension.
fn stem<'a>(path: &'a Path, extension: &str) -> Option<&'a str> {
    let matches = path
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension));
    if matches {
        path.file_stem()?.to_str()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;

    #[test]
    fn every_corpus_has_a_page() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let older = fs::read_to_string(docs.join("datasets.md")).unwrap();
        let lacking = Source::ALL.iter().filter(|(_, name)| {
            let page = fs::read_to_string(docs.join(format!("sources/{name}.md")));
            let command = format!("limbic data import {name} --from");
            !page.as_ref().unwrap_or(&older).contains(&command)
        });
        let lacking: Vec<&str> = lacking.map(|(_, name)| *name).collect();
        assert!(
            lacking.is_empty(),
            "no page docs/sources/NAME.md with the command for {lacking:?}"
        );
    }

    #[test]
    fn emotions_of_corpora_are_in_their_label_sets() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/labels");
        let sets: [(&str, &[(&str, &str)]); 8] = [
            ("mer2023-6", &mer::EMOTIONS),
            ("mer2024-6", &mer::EMOTIONS),
            ("mer2025-6", &mer::EMOTIONS),
            ("mer2026-6", &mer::EMOTIONS),
            ("merr-9", &merr::EMOTIONS),
            ("meld-7", &meld::EMOTIONS),
            ("dfew-7", &dfew::EMOTIONS),
            ("mafw-11", &mafw::EMOTIONS),
        ];
        for (name, emotions) in sets {
            let set = LabelSet::read(&folder.join(format!("{name}.yaml"))).unwrap();
            for (code, emotion) in emotions {
                let index = set.index(emotion);
                assert!(index.is_some(), "`{emotion}` of {name}");
                // Numbers are no words that a model answers with.
                if code.parse::<u8>().is_err() {
                    assert_eq!(set.index(code), index, "`{code}` of {name}");
                }
            }
            let known = |name: &&str| emotions.iter().any(|(_, emotion)| emotion == name);
            assert!(set.names().iter().all(known), "{name}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (source, name) in Source::ALL {
            assert_eq!(source.to_string(), *name);
            assert_eq!(name.parse::<Source>().unwrap(), *source);
            assert_eq!(serde_json::to_value(source).unwrap(), *name);
        }
        assert!(
            "crema"
                .parse::<Source>()
                .unwrap_err()
                .to_string()
                .contains("did you mean `crema-d`?")
        );
    }
}

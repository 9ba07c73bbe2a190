//! Published corpora in their own layouts, each turned into a manifest. Media are neither copied nor opened: the manifest
//! points at the originals.

mod crema_d;
mod emodb;
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
    pub const ALL: &[(Source, &str)] = &[(Source::Emodb, "emodb"), (Source::CremaD, "crema-d")];

    /// Reads the corpus in folder `from` and writes `out/manifest.jsonl`.
    ///
    /// # Errors
    /// [`DataError::Source`] if `from` is not laid out as published, [`DataError::Io`] if files cannot be read or written.
    pub fn import(&self, from: &Path, out: &Path) -> Result<ImportReport, DataError> {
        let mut warnings = Vec::new();
        let clips = match self {
            Source::Emodb => emodb::clips(from, &mut warnings)?,
            Source::CremaD => crema_d::clips(from, &mut warnings)?,
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

/// The rows of a comma-separated table below its heading, fields unquoted (RFC 4180 without line breaks inside fields).
fn table(path: &Path) -> Result<Vec<Vec<String>>, DataError> {
    let text = fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))?;
    Ok(text
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(fields)
        .collect())
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields
                    .last_mut()
                    .into_iter()
                    .for_each(|field| field.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields
                .last_mut()
                .into_iter()
                .for_each(|field| field.push(character)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unquoted() {
        assert_eq!(
            fields(r#"1,"a, b","say ""oh""","#),
            ["1", "a, b", "say \"oh\"", ""]
        );
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

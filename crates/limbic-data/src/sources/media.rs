//! The media files of a corpus by the names that its tables call them, and what is said of those that do not meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::clip::Clip;
use crate::error::DataError;
use crate::sources::files;

/// Extensions of files with pictures.
const VIDEO: [&str; 9] = [
    "mp4", "avi", "mkv", "mov", "webm", "flv", "mpg", "m4v", "wmv",
];
/// Extensions of files with sound alone.
const SOUND: [&str; 7] = ["wav", "flac", "mp3", "m4a", "ogg", "opus", "aac"];

/// How many names a message gives.
const SHOWN: usize = 3;

/// The files of a corpus by name.
#[derive(Debug, Default)]
pub(crate) struct Media {
    videos: BTreeMap<String, PathBuf>,
    sounds: BTreeMap<String, PathBuf>,
    features: Vec<(String, PathBuf)>,
    looked_in: Vec<PathBuf>,
    taken: BTreeSet<String>,
    absent: Vec<String>,
    alone: usize,
}

impl Media {
    /// Adds the videos and sounds of a folder, each named `prefix` and its stem. A folder that is absent adds nothing; of two
    /// files of one name and kind the first counts.
    pub(crate) fn add(&mut self, folder: &Path, prefix: &str) -> Result<(), DataError> {
        self.looked_in.push(folder.to_path_buf());
        if !folder.is_dir() {
            return Ok(());
        }
        for path in files(folder)? {
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let extension = path.extension().and_then(|extension| extension.to_str());
            let (Some(name), Some(extension)) = (name, extension) else {
                continue;
            };
            let extension = extension.to_lowercase();
            // macOS leaves `._name` beside the files of an archive.
            let kind = match extension.as_str() {
                _ if name.starts_with('.') => continue,
                extension if VIDEO.contains(&extension) => &mut self.videos,
                extension if SOUND.contains(&extension) => &mut self.sounds,
                _ => continue,
            };
            kind.entry(format!("{prefix}{name}")).or_insert(path);
        }
        Ok(())
    }

    /// Lets clips have a file of features, `NAME.npy` or `NAME/NAME.npy`, of each folder in `from` that has one for them and was
    /// not searched for media; the folder's name is that of the feature.
    pub(crate) fn add_features(&mut self, from: &Path) -> Result<(), DataError> {
        for folder in folders(from)? {
            if !self.looked_in.contains(&folder)
                && let Some(name) = folder.file_name().and_then(|name| name.to_str())
            {
                self.features.push((name.to_owned(), folder.clone()));
            }
        }
        Ok(())
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.videos.contains_key(name) || self.sounds.contains_key(name)
    }

    /// The clip with the files of `name`. Without any it is left out, and [`Media::report`] says so; but where the corpus has no
    /// media at all, a clip with a transcript stays for its text.
    pub(crate) fn give(&mut self, name: &str, clip: Clip) -> Option<Clip> {
        let features = self.features.iter().filter_map(|(feature, folder)| {
            let file = format!("{name}.npy");
            let mut places = [folder.join(&file), folder.join(name).join(&file)].into_iter();
            Some((feature.clone(), places.find(|place| place.is_file())?))
        });
        let clip = Clip {
            video: self.videos.get(name).cloned(),
            audio: self.sounds.get(name).cloned(),
            features: features.collect(),
            ..clip
        };
        if clip.paths().next().is_some() {
            self.taken.insert(name.to_owned());
            return Some(clip);
        }
        let no_media = self.videos.is_empty() && self.sounds.is_empty();
        if no_media && clip.transcript.is_some() {
            self.alone += 1;
            return Some(clip);
        }
        self.absent.push(clip.id);
        None
    }

    /// The clips, or an error if there are none; adds to `warnings` what has no file, no label or nothing but text.
    ///
    /// # Errors
    /// [`DataError::Source`] if no clip is left.
    pub(crate) fn report(
        self,
        corpus: &'static str,
        from: &Path,
        clips: Vec<Clip>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Clip>, DataError> {
        let looked_in = || {
            let places = self.looked_in.iter();
            let places = places.map(|place| format!("`{}`", place.display()));
            places.collect::<Vec<_>>().join(", ")
        };
        if clips.is_empty() {
            return Err(DataError::Source {
                corpus,
                path: from.to_path_buf(),
                detail: format!(
                    "no clip is left: {} labelled clips have no media file ({}); looked in {}; put the files there",
                    self.absent.len(),
                    first_few(&self.absent),
                    looked_in()
                ),
            });
        }
        if self.alone > 0 {
            warnings.push(format!(
                "no media file is there, so {} clips have their text alone; looked in {}",
                self.alone,
                looked_in()
            ));
        }
        if !self.absent.is_empty() {
            warnings.push(format!(
                "{} labelled clips are left out, for they have no media file: {}",
                self.absent.len(),
                first_few(&self.absent)
            ));
        }
        let names: BTreeSet<&String> = self.videos.keys().chain(self.sounds.keys()).collect();
        let unlabelled: Vec<&String> = names
            .into_iter()
            .filter(|name| !self.taken.contains(*name))
            .collect();
        if !unlabelled.is_empty() {
            warnings.push(format!(
                "{} media files are left out, for they have no label: {}",
                unlabelled.len(),
                first_few(&unlabelled)
            ));
        }
        Ok(clips)
    }
}

/// The folders of a folder, sorted by name.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = entries.map_err(|error| DataError::io("list", folder, error))?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

/// The first file that is there, of `names` in each of `places` below `from`; the first name is looked for everywhere first.
pub(crate) fn first_file(from: &Path, places: &[&str], names: &[&str]) -> Option<PathBuf> {
    let mut paths = names
        .iter()
        .flat_map(|name| places.iter().map(move |place| from.join(place).join(name)));
    paths.find(|path| path.is_file())
}

/// The first names of a list, and an ellipsis if there are more.
pub(crate) fn first_few<T: AsRef<str>>(names: &[T]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    if names.len() > SHOWN {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(id: &str) -> Clip {
        Clip {
            id: id.to_owned(),
            ..Clip::default()
        }
    }

    #[test]
    fn files_meet_their_labels() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "video/a.mp4",
            "video/._a.mp4",
            "video/b.AVI",
            "video/notes.txt",
            "audio/a.wav",
            "face/a.npy",
            "face/c/c.npy",
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let mut media = Media::default();
        for folder in ["video", "audio", "elsewhere"] {
            media.add(&root.path().join(folder), "").unwrap();
        }
        media.add_features(root.path()).unwrap();
        let a = media.give("a", clip("a")).unwrap();
        assert_eq!(a.video, Some(root.path().join("video/a.mp4")));
        assert_eq!(a.audio, Some(root.path().join("audio/a.wav")));
        assert_eq!(a.features["face"], root.path().join("face/a.npy"));
        let c = media.give("c", clip("c")).unwrap();
        assert_eq!(c.features["face"], root.path().join("face/c/c.npy"));
        let spoken = Clip {
            transcript: Some("oh".into()),
            ..clip("d")
        };
        assert_eq!(media.give("d", spoken), None);
        let mut warnings = Vec::new();
        let clips = media.report("ours", root.path(), vec![a, c], &mut warnings);
        assert_eq!(clips.unwrap().len(), 2);
        assert_eq!(
            warnings,
            [
                "1 labelled clips are left out, for they have no media file: `d`",
                "1 media files are left out, for they have no label: `b`",
            ]
        );
    }

    #[test]
    fn text_stands_alone_only_where_there_are_no_media() {
        let root = tempfile::tempdir().unwrap();
        let mut media = Media::default();
        media.add(&root.path().join("video"), "").unwrap();
        let spoken = Clip {
            transcript: Some("oh".into()),
            ..clip("a")
        };
        let spoken = media.give("a", spoken).unwrap();
        assert_eq!(media.give("b", clip("b")), None);
        let mut warnings = Vec::new();
        media
            .report("ours", root.path(), vec![spoken], &mut warnings)
            .unwrap();
        assert!(
            warnings[0].contains("1 clips have their text alone; looked in"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("`b`"), "{warnings:?}");
        let mut media = Media::default();
        assert_eq!(media.give("b", clip("b")), None);
        let error = media.report("ours", root.path(), Vec::new(), &mut warnings);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("no clip is left: 1 labelled clips"),
            "{error}"
        );
    }
}

//! A data set as JSON Lines, one [`Clip`] a line. Media paths are relative to the manifest's folder on disk and resolved in
//! memory, so a folder with its manifest can be moved as a whole. Reading checks every line and opens no media file.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::clip::{Clip, KEYS, Split};
use crate::error::{DataError, SHOWN_PROBLEMS, hint};

/// The clips of one manifest file, in file order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The file that the clips were read from or will be written to.
    pub path: PathBuf,
    /// The clips; their media paths are usable from the working folder.
    pub clips: Vec<Clip>,
}

impl Manifest {
    /// Reads and checks a manifest; blank lines and a byte-order mark are ignored.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read, [`DataError::Manifest`] with every bad line otherwise.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path)
            .map_err(|error| DataError::io("read the manifest", path, error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut problems = Problems::new(path);
        let mut clips = Vec::new();
        let mut first_lines: HashMap<String, usize> = HashMap::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let number = index + 1;
            if line.trim().is_empty() {
                continue;
            }
            let mut clip = match parse(line) {
                Ok(clip) => clip,
                Err(messages) => {
                    problems.extend(number, messages);
                    continue;
                }
            };
            problems.extend(number, clip.problems());
            if let Some(first) = first_lines.get(&clip.id) {
                problems.extend(
                    number,
                    vec![format!("`id` is `{}`, which line {first} already has: give one of them another name", clip.id)],
                );
            }
            first_lines.entry(clip.id.clone()).or_insert(number);
            for file in clip.paths_mut() {
                *file = folder.join(&*file);
            }
            clips.push(clip);
        }
        problems.into_result()?;
        Ok(Manifest {
            path: path.to_path_buf(),
            clips,
        })
    }

    /// Writes the clips to `path` with media paths relative to its folder; the file appears whole or not at all.
    ///
    /// # Errors
    /// [`DataError::Manifest`] if a clip would be refused by [`Manifest::read`], [`DataError::Io`] if writing fails.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut problems = Problems::new(path);
        let mut text = String::new();
        let mut first_lines: HashMap<&str, usize> = HashMap::new();
        for (index, clip) in self.clips.iter().enumerate() {
            problems.extend(index + 1, clip.problems());
            if let Some(first) = first_lines.insert(&clip.id, index + 1) {
                problems.extend(
                    index + 1,
                    vec![format!(
                        "`id` is `{}`, which clip {first} already has",
                        clip.id
                    )],
                );
            }
            let mut clip = clip.clone();
            for file in clip.paths_mut() {
                *file =
                    relative(file, folder).map_err(|error| DataError::io("locate", file, error))?;
            }
            match serde_json::to_string(&clip) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(error) => problems.extend(index + 1, vec![error.to_string()]),
            }
        }
        problems.into_result()?;
        write_whole(path, text.as_bytes())
    }

    /// The clips of one split, in file order.
    pub fn split(&self, split: Split) -> Vec<&Clip> {
        self.clips
            .iter()
            .filter(|clip| clip.split == Some(split))
            .collect()
    }
}

/// One line to one clip, or everything that is wrong with its keys.
fn parse(line: &str) -> Result<Clip, Vec<String>> {
    let object: Map<String, Value> = serde_json::from_str(line)
        .map_err(|error| vec![format!("not a JSON object: {error}; wanted one clip a line, like {{\"id\": \"c1\", \"video\": \"c1.mp4\"}}")])?;
    let unknown: Vec<String> = object
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| {
            format!(
                "unknown key `{key}`{}; put what is not a known key under `meta`",
                hint(key, KEYS)
            )
        })
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    // The line is parsed again because a map keeps the last of two equal keys and the struct refuses both.
    serde_json::from_str(line).map_err(|error| vec![error.to_string()])
}

/// The problems of one file, counted beyond those shown.
struct Problems<'a> {
    path: &'a Path,
    shown: Vec<String>,
    count: usize,
}

impl<'a> Problems<'a> {
    fn new(path: &'a Path) -> Self {
        Problems {
            path,
            shown: Vec::new(),
            count: 0,
        }
    }

    fn extend(&mut self, line: usize, messages: Vec<String>) {
        for message in messages {
            self.count += 1;
            if self.shown.len() < SHOWN_PROBLEMS {
                self.shown
                    .push(format!("{}:{line}: {message}", self.path.display()));
            }
        }
    }

    fn into_result(mut self) -> Result<(), DataError> {
        if self.count == 0 {
            return Ok(());
        }
        if self.count > self.shown.len() {
            self.shown
                .push(format!("and {} more", self.count - self.shown.len()));
        }
        Err(DataError::Manifest {
            path: self.path.to_path_buf(),
            problems: self.shown,
            count: self.count,
        })
    }
}

/// `path` as seen from `folder`. Links in both folders are resolved first, because `..` means the real parent to the system.
fn relative(path: &Path, folder: &Path) -> std::io::Result<PathBuf> {
    let from = real(folder)?;
    let to = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            real(parent)?.join(name)
        }
        _ => real(path)?,
    };
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    Ok(up.chain(to.components().skip(shared)).collect())
}

/// A folder that need not exist, absolute and free of `..` and links as far as it exists.
fn real(folder: &Path) -> std::io::Result<PathBuf> {
    match fs::canonicalize(folder) {
        Ok(folder) => Ok(folder),
        Err(_) => std::path::absolute(folder),
    }
}

/// Writes a file under a temporary name beside its place, then renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // A leftover is harmless and the first error is the one worth telling.
        let _ = fs::remove_file(&temporary);
        DataError::io("write", path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Manifest, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        fs::write(&path, text).unwrap();
        Manifest::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("set")).unwrap();
        fs::create_dir_all(root.join("media")).unwrap();
        let path = root.join("set/manifest.jsonl");
        let clip = Clip {
            id: "c1".into(),
            video: Some(root.join("set/clips/c1.mp4")),
            audio: Some(root.join("media/c1.wav")),
            split: Some(Split::Test),
            ..Clip::default()
        };
        let other = Clip {
            id: "c2".into(),
            transcript: Some("oh\n".into()),
            ..Clip::default()
        };
        let manifest = Manifest {
            path: path.clone(),
            clips: vec![clip, other],
        };
        manifest.write(&path).unwrap();

        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(
                r#"{"id":"c1","video":"clips/c1.mp4","audio":"../media/c1.wav","split":"test"}"#
            ),
            "{text}"
        );
        assert_eq!(
            fs::read_dir(root.join("set")).unwrap().count(),
            1,
            "no temporary file stays"
        );

        let mut read = Manifest::read(&path).unwrap();
        assert_eq!(read.clips[0].audio, Some(root.join("set/../media/c1.wav")));
        assert_eq!(read.split(Split::Test).len(), 1);
        assert_eq!(read.split(Split::Train).len(), 0);
        read.clips[0].audio = manifest.clips[0].audio.clone();
        assert_eq!(read, manifest);
    }

    #[test]
    fn blank_lines_and_a_byte_order_mark_are_ignored() {
        let manifest = read_text("\u{feff}{\"id\": \"a\", \"audio\": \"a.wav\"}\r\n\n  \n{\"id\": \"b\", \"audio\": \"b.wav\"}\n").unwrap();
        assert_eq!(manifest.clips.len(), 2);
    }

    #[test]
    fn every_bad_line_is_named_with_its_remedy() {
        let cases = [
            (r#"{"id": "a""#, "not a JSON object"),
            (
                r#"{"id": "a", "audio": "a.wav", "emotoin": "sad"}"#,
                "unknown key `emotoin`; did you mean `emotion`?",
            ),
            (
                r#"{"id": "a", "id": "b", "audio": "a.wav"}"#,
                "duplicate field `id`",
            ),
            (r#"{"audio": "a.wav"}"#, "missing field `id`"),
            (r#"{"id": " ", "audio": "a.wav"}"#, "`id` is empty"),
            (r#"{"id": "a"}"#, "no medium"),
            (r#"{"id": "a", "transcript": "  "}"#, "no medium"),
            (r#"{"id": "a", "video": ""}"#, "`video` is an empty path"),
            (
                r#"{"id": "a", "audio": "a.wav", "start": 2.0, "end": 2.0}"#,
                "`end` is 2 but `start` is 2",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "start": -1}"#,
                "`start` is -1",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "end": 1e7}"#,
                "`end` is 10000000",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "start": NaN}"#,
                "not a JSON object",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "start": 1e999}"#,
                "number out of range",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "split": "trian"}"#,
                "did you mean `train`?",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "valence": 1.5}"#,
                "`valence` is 1.5",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "agreement": -0.5}"#,
                "`agreement` is -0.5: wanted a number from 0 to 1",
            ),
            (
                r#"{"id": "a", "dialogue": [{"question": "Who?", "answer": " "}]}"#,
                "`dialogue` has an empty answer at place 1",
            ),
            (
                r#"{"id": "a", "features": {"face": ""}}"#,
                "`face` is an empty path",
            ),
            (
                r#"{"id": "a", "audio": "a.wav", "ambiguous": ["vidoe"]}"#,
                "did you mean `video`?",
            ),
        ];
        for (line, wanted) in cases {
            let message = read_text(&format!(
                "{{\"id\": \"first\", \"audio\": \"a.wav\"}}\n{line}\n"
            ))
            .unwrap_err();
            assert!(message.contains(wanted), "{line}\n{message}");
            assert!(message.contains("manifest.jsonl:2: "), "{message}");
        }
        let message = read_text(
            "{\"id\": \"a\", \"audio\": \"a.wav\"}\n\n{\"id\": \"a\", \"audio\": \"b.wav\"}\n",
        )
        .unwrap_err();
        assert!(
            message.contains(":3: `id` is `a`, which line 1 already has"),
            "{message}"
        );
    }

    #[test]
    fn problems_beyond_those_shown_are_counted() {
        let message = read_text(&"{}\n".repeat(25)).unwrap_err();
        assert!(
            message.contains("25 problem(s)") && message.ends_with("and 5 more"),
            "{message}"
        );
        assert_eq!(message.lines().count(), 22);
    }

    #[test]
    fn a_clip_that_could_not_be_read_back_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.jsonl");
        let clip = Clip {
            id: "a".into(),
            audio: Some("a.wav".into()),
            start: Some(f64::NAN),
            ..Clip::default()
        };
        let twice = Clip {
            id: "b".into(),
            transcript: Some("oh".into()),
            ..Clip::default()
        };
        for clips in [vec![clip], vec![twice.clone(), twice]] {
            let manifest = Manifest {
                path: path.clone(),
                clips,
            };
            assert!(matches!(
                manifest.write(&path),
                Err(DataError::Manifest { .. })
            ));
            assert!(!path.exists());
        }
    }
}

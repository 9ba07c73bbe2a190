//! The crate's errors. Each names the file, line or clip, what was found, what was wanted and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Everything that can go wrong between a manifest or media file and a sample.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was being done, for example `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A manifest holds lines that are not valid clips; every problem is listed (the first [`SHOWN_PROBLEMS`] in words).
    #[error("`{}` has {count} problem(s):\n{}", path.display(), problems.join("\n"))]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// One message a problem, each beginning with `file:line`.
        problems: Vec<String>,
        /// How many problems there are, also those not shown.
        count: usize,
    },
    /// A label set is not usable.
    #[error("label set `{}`: {detail}", path.display())]
    Labels {
        /// The YAML file.
        path: PathBuf,
        /// What was got and wanted.
        detail: String,
    },
    /// A clip's media cannot be used. The trainer turns it into a line of `quarantine.jsonl`.
    #[error("media file `{}` is unusable ({reason}): {detail}", path.display())]
    Media {
        /// The media file.
        path: PathBuf,
        /// The kind of damage.
        reason: Reason,
        /// What was got and wanted.
        detail: String,
    },
    /// A corpus does not lie on disk as its publisher lays it out.
    #[error("{corpus} at `{}`: {detail}", path.display())]
    Source {
        /// The corpus, for example `emodb`.
        corpus: &'static str,
        /// The file or folder that was expected or refused.
        path: PathBuf,
        /// What was got and wanted.
        detail: String,
    },
    /// Clips cannot be synthesised as asked.
    #[error("synthetic clips in `{}`: {detail}", path.display())]
    Synth {
        /// The folder that was to be written.
        path: PathBuf,
        /// What was got and wanted.
        detail: String,
    },
    /// A prompt cannot be compiled, for example because its media do not match its slots.
    #[error("prompt: {detail}")]
    Prompt {
        /// What was got and wanted.
        detail: String,
    },
    /// A tokenizer cannot be trained, read or used.
    #[error("tokenizer: {detail}")]
    Tokenizer {
        /// What was got and wanted.
        detail: String,
    },
    /// A name that belongs to no member of a closed set.
    #[error("`{got}` is no {kind}: expected one of {wanted}{}", hint(.got, .wanted.0))]
    UnknownName {
        /// What is being named, for example `split`.
        kind: &'static str,
        /// The name that was found.
        got: String,
        /// The names that exist.
        wanted: Names,
    },
}

/// How many problems of one manifest are put into words.
pub const SHOWN_PROBLEMS: usize = 20;

/// Why a media file was refused: the vocabulary of `quarantine.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is no such file.
    Missing,
    /// The file has zero bytes.
    Empty,
    /// The file's content is no audio or video container that FFmpeg knows.
    NotMedia,
    /// The file ends more than a tenth before the duration that it declares, or before the asked span does.
    Truncated,
    /// There is a video stream, but the asked span holds no picture.
    NoFrames,
    /// There is an audio stream, but the asked span holds no sample.
    NoSamples,
    /// A picture is wider or higher than [`crate::media::MAX_DIMENSION`] pixels.
    TooLarge,
    /// The asked span is longer than [`crate::media::MAX_SECONDS`].
    TooLong,
    /// The clip gives another number of features than what reads them takes.
    WrongLength,
    /// The container is readable but its streams do not decode to finite pictures and samples.
    Decode,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Reason::Missing => "missing",
            Reason::Empty => "empty",
            Reason::NotMedia => "not_media",
            Reason::Truncated => "truncated",
            Reason::NoFrames => "no_frames",
            Reason::NoSamples => "no_samples",
            Reason::TooLarge => "too_large",
            Reason::TooLong => "too_long",
            Reason::WrongLength => "wrong_length",
            Reason::Decode => "decode",
        })
    }
}

/// The names of a closed set, shown as `` `a`, `b` ``.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names(pub &'static [&'static str]);

impl fmt::Display for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}`{name}`")?;
        }
        Ok(())
    }
}

/// The member of `known` most like `got`, if any is near enough to be a misspelling of it.
pub fn nearest<'a>(got: &str, known: &[&'a str]) -> Option<&'a str> {
    let got = got.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&got, name), *name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

pub(crate) fn hint(got: &str, known: &[&str]) -> String {
    nearest(got, known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        DataError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn media(path: &Path, reason: Reason, detail: impl Into<String>) -> Self {
        DataError::Media {
            path: path.to_path_buf(),
            reason,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_written_as_it_is_displayed() {
        for reason in [
            Reason::Missing,
            Reason::Empty,
            Reason::NotMedia,
            Reason::Truncated,
            Reason::NoFrames,
            Reason::NoSamples,
            Reason::TooLarge,
            Reason::TooLong,
            Reason::Decode,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
    }

    #[test]
    fn nearest_finds_misspellings_only() {
        assert_eq!(nearest("emotoin", &["emotion", "id"]), Some("emotion"));
        assert_eq!(nearest("Train", &["train", "test"]), Some("train"));
        assert_eq!(nearest("zzz", &["emotion", "id"]), None);
    }
}

//! The folder of a synthetic set: it appears whole or not at all, and says what it holds.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SynthConfig;
use crate::error::DataError;
use crate::manifest::Manifest;

/// The media files, inside the folder.
pub(super) const CLIPS: &str = "clips";

/// The manifest, inside the folder.
pub(super) const MANIFEST: &str = "manifest.jsonl";

/// What the folder holds; written last.
const MARKER: &str = "synth.json";

/// Raised whenever the same settings give other clips than before.
const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    version: u32,
    clips: usize,
    seed: u64,
}

impl Marker {
    fn of(config: &SynthConfig) -> Self {
        Self {
            version: VERSION,
            clips: config.clips,
            seed: config.seed,
        }
    }
}

/// Whether `out` holds the complete set of `config` already; false if it is absent or empty.
///
/// # Errors
/// [`DataError::Synth`] if it holds anything else, which is never overwritten.
pub(super) fn holds(out: &Path, config: &SynthConfig) -> Result<bool, DataError> {
    let refuse = |detail: String| {
        Err(DataError::Synth {
            path: out.to_path_buf(),
            detail,
        })
    };
    match fs::read_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DataError::io("read the folder", out, error)),
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(false);
            }
        }
    }
    let wanted = Marker::of(config);
    let marker = out.join(MARKER);
    let Ok(text) = fs::read_to_string(&marker) else {
        return refuse(format!(
            "the folder holds files but no `{MARKER}`: choose an empty or new folder"
        ));
    };
    let found: Marker = match serde_json::from_str(&text) {
        Ok(found) => found,
        Err(error) => {
            return refuse(format!(
                "`{MARKER}` is damaged ({error}): remove the folder or choose another"
            ));
        }
    };
    if found != wanted {
        return refuse(format!(
            "the folder holds {} clips of seed {} (version {}), asked for were {} of seed {} (version {}): \
             remove the folder or choose another",
            found.clips, found.seed, found.version, wanted.clips, wanted.seed, wanted.version
        ));
    }
    let manifest = Manifest::read(&out.join(MANIFEST))?;
    let missing = manifest
        .clips
        .iter()
        .filter_map(|clip| clip.video.as_deref())
        .find(|video| !video.is_file());
    if let Some(video) = missing {
        return refuse(format!(
            "`{}` is missing: remove the folder and run again",
            video.display()
        ));
    }
    if manifest.clips.len() != config.clips {
        return refuse(format!(
            "`{MANIFEST}` has {} clips, wanted are {}: remove the folder and run again",
            manifest.clips.len(),
            config.clips
        ));
    }
    Ok(true)
}

/// Lets `fill` write into a temporary sibling of `out`, adds the marker and renames.
pub(super) fn write_whole(
    out: &Path,
    config: &SynthConfig,
    fill: impl FnOnce(&Path) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let staging = Staging::create(out)?;
    fill(&staging.path)?;
    let marker = staging.path.join(MARKER);
    let text = serde_json::to_string(&Marker::of(config)).map_err(|error| DataError::Synth {
        path: marker.clone(),
        detail: error.to_string(),
    })?;
    fs::write(&marker, text + "\n").map_err(|error| DataError::io("write", &marker, error))?;
    fs::rename(&staging.path, out)
        .map_err(|error| DataError::io("rename the finished folder to", out, error))
}

/// A folder beside the final one, removed on the way out of a failure.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn create(out: &Path) -> Result<Self, DataError> {
        let Some(name) = out
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|_| out.to_str().is_some())
        else {
            let detail = "wanted is a path in UTF-8 that ends in a folder's name".to_owned();
            return Err(DataError::Synth {
                path: out.to_path_buf(),
                detail,
            });
        };
        // The process id keeps two runs apart that write the same set at once.
        let path = out.with_file_name(format!("{name}.tmp-{}", std::process::id()));
        let clips = path.join(CLIPS);
        fs::create_dir_all(&clips)
            .map_err(|error| DataError::io("create the folder", &clips, error))?;
        Ok(Self { path })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After the rename there is nothing here; after a failure the first error is the one to report.
        let _ = fs::remove_dir_all(&self.path);
    }
}

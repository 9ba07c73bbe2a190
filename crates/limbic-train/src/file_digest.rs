//! SHA-256 of files, remembered between runs: gigabytes of weights are hashed once, not at each start.
//!
//! A digest is remembered beside the file's path, size, inode and both of its times, and holds as long as all of them
//! do. On a local file system no program can set the time of change (`ctime`), so a file with other bytes has another one;
//! some network file systems set it by the clock of a client, and there a file that is replaced by one of the same size
//! and times may be taken for the first. As in git's index, a file that changed shortly before it was hashed is not
//! remembered, because it could change again within the same tick. What is remembered carries a digest of itself. Times
//! decide only whether a file is hashed again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use limbic_weights::{file_digest, hex_digest};
use serde::{Deserialize, Serialize};

use crate::loose_file::write_loose;

/// How long a file has been as it is before its digest is remembered: more than a tick of any file system's clock, and
/// the part of a second that is left out of the reckoning.
const SETTLED: Duration = Duration::from_secs(3);

/// The digests of files that were hashed before.
#[derive(Debug)]
pub(crate) struct FileDigests {
    folder: PathBuf,
    /// Those of this process, which serve where the folder cannot be written to.
    known: Mutex<HashMap<PathBuf, (FileState, String)>>,
}

/// What a file system says of a file; two states that are equal are of the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    path: PathBuf,
    size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    state: FileState,
    sha256: String,
}

impl FileState {
    /// # Errors
    /// No such file, or none that may be looked at.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            path: std::path::absolute(path)?,
            size: found.size(),
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    fn is_settled(&self) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        changed.elapsed().is_ok_and(|since| since > SETTLED)
    }
}

impl FileDigests {
    /// Remembers in `folder`, which need not exist.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            known: Mutex::default(),
        }
    }

    /// SHA-256 of a file in hex, and the state it was in when that was begun.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn of_file(&self, path: &Path) -> io::Result<(String, FileState)> {
        let state = FileState::of(path)?;
        if let Some((known, sha256)) = self.known().get(&state.path)
            && *known == state
        {
            return Ok((sha256.clone(), state));
        }
        let place = self.place(&state);
        if let Some(sha256) = remembered(&place, &state) {
            self.know(&state, &sha256);
            return Ok((sha256, state));
        }
        let sha256 = file_digest(path)?;
        if state.is_settled() && FileState::of(path)? == state {
            self.know(&state, &sha256);
            // Not remembering costs time and nothing else.
            let _ = remember(&place, &state, &sha256);
        }
        Ok((sha256, state))
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn know(&self, state: &FileState, sha256: &str) {
        let known = (state.clone(), sha256.to_string());
        self.known().insert(state.path.clone(), known);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, (FileState, String)>> {
        self.known.lock().expect("nobody panics while holding it")
    }

    /// The same of a file, or of all files in a folder with their names; folders in it and hidden files are left out.
    ///
    /// # Errors
    /// Something that cannot be read.
    pub(crate) fn of_file_or_folder(&self, path: &Path) -> io::Result<String> {
        if !fs::metadata(path)?.is_dir() {
            return Ok(self.of_file(path)?.0);
        }
        let mut lines = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Through links too: the cache of a hub is made of them.
            if !name.starts_with('.') && fs::metadata(entry.path())?.is_file() {
                lines.push(format!("{name:?} {}\n", self.of_file(&entry.path())?.0));
            }
        }
        lines.sort_unstable();
        Ok(format!("folder {}", hex_digest(lines.concat().as_bytes())))
    }

    fn place(&self, state: &FileState) -> PathBuf {
        let name = hex_digest(state.path.as_os_str().as_encoded_bytes());
        self.folder.join(&name[..2]).join(name)
    }
}

fn remembered(place: &Path, state: &FileState) -> Option<String> {
    let text = fs::read_to_string(place).ok()?;
    let (json, digest) = text.split_once('\n')?;
    if digest != hex_digest(json.as_bytes()) {
        return None;
    }
    let remembered: Remembered = serde_json::from_str(json).ok()?;
    (remembered.state == *state).then_some(remembered.sha256)
}

fn remember(place: &Path, state: &FileState, sha256: &str) -> io::Result<()> {
    let json = serde_json::to_string(&Remembered {
        state: state.clone(),
        sha256: sha256.to_string(),
    })?;
    let digest = hex_digest(json.as_bytes());
    write_loose(place, &[format!("{json}\n{digest}").as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(path: &Path) {
        let old = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(path).unwrap().set_modified(old).unwrap();
    }

    #[test]
    fn a_digest_holds_as_long_as_the_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let digests = FileDigests::new(folder.path().join("digests"));
        let path = folder.path().join("weights");
        fs::write(&path, b"one").unwrap();
        settle(&path);
        // As another process finds it.
        let of_file = |path: &Path| {
            let digests = FileDigests::new(digests.folder().to_path_buf());
            digests.of_file(path).unwrap().0
        };
        let (one, state) = digests.of_file(&path).unwrap();
        assert_eq!(one, hex_digest(b"one"));
        let place = digests.place(&state);
        assert!(
            !place.exists(),
            "what changed a moment ago may change again"
        );

        // What is remembered is believed for this state of the file, whole, and for no other.
        remember(&place, &state, "remembered").unwrap();
        assert_eq!(of_file(&path), "remembered");
        let text = fs::read_to_string(&place).unwrap();
        fs::write(&place, text.replacen("remem", "rEmem", 1)).unwrap();
        assert_eq!(of_file(&path), one);
        fs::write(&place, text).unwrap();
        // As long as before, and as old as it was made to look.
        fs::write(&path, b"two").unwrap();
        settle(&path);
        assert_eq!(of_file(&path), hex_digest(b"two"));
    }

    #[test]
    fn a_process_knows_its_own_digests_without_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, b"one").unwrap();
        fs::write(folder.path().join("file"), b"no folder").unwrap();
        let digests = FileDigests::new(folder.path().join("file"));
        let state = FileState::of(&path).unwrap();
        digests.know(&state, "known");
        assert_eq!(digests.of_file(&path).unwrap(), ("known".into(), state));
        fs::write(&path, b"other").unwrap();
        assert_eq!(digests.of_file(&path).unwrap().0, hex_digest(b"other"));
    }

    #[test]
    fn a_folder_is_its_files_and_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let digests = FileDigests::new(folder.path().join(".digests"));
        let digest = || digests.of_file_or_folder(folder.path()).unwrap();
        fs::write(folder.path().join("a"), b"1").unwrap();
        let first = digest();
        fs::write(folder.path().join(".b"), b"2").unwrap();
        assert_eq!(digest(), first);
        fs::rename(folder.path().join("a"), folder.path().join("c")).unwrap();
        assert_ne!(digest(), first);
        assert!(
            digests
                .of_file_or_folder(&folder.path().join("none"))
                .is_err()
        );
    }
}

//! Directories that appear whole or not at all.
//!
//! Everything is written into a hidden sibling, hashed into `MANIFEST.json`, synced, and renamed into place. A reader
//! that finds the name finds all of it; a crash leaves a hidden sibling that the next write clears away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use limbic_weights::file_digest;

use crate::ModelError;

/// The file that lists SHA-256 of all others.
const MANIFEST: &str = "MANIFEST.json";

/// Writes `target` through `fill`, which gets an empty folder. An existing `target` is replaced once the new one is complete.
///
/// # Errors
/// What `fill` says, or a file system that refuses; `target` is then as it was.
pub fn write_directory<E: From<ModelError>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    recover_directory(target)?;
    let (partial, old) = (sibling(target, "partial")?, sibling(target, "old")?);
    for leftover in [&partial, &old] {
        remove(leftover)?;
    }
    fs::create_dir_all(&partial).map_err(ModelError::io(&partial))?;
    if let Err(error) = fill(&partial) {
        remove(&partial)?;
        return Err(error);
    }
    seal(&partial)?;
    if target.exists() {
        fs::rename(target, &old).map_err(ModelError::io(target))?;
    }
    fs::rename(&partial, target).map_err(ModelError::io(target))?;
    let parent = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))?;
    remove(&old)?;
    Ok(())
}

/// Puts back what a crash in the middle of replacing `target` left beside it.
///
/// # Errors
/// A file system that refuses.
pub fn recover_directory(target: &Path) -> Result<(), ModelError> {
    let old = sibling(target, "old")?;
    if old.exists() && !target.exists() {
        fs::rename(&old, target).map_err(ModelError::io(&old))?;
    }
    Ok(())
}

/// Checks every file of `folder` against its manifest.
///
/// # Errors
/// A missing manifest, and the first file that is absent or differs.
pub fn verify_directory(folder: &Path) -> Result<(), ModelError> {
    let manifest = folder.join(MANIFEST);
    let text = fs::read_to_string(&manifest).map_err(ModelError::io(&manifest))?;
    let listed: BTreeMap<String, String> = serde_json::from_str(&text)
        .map_err(|error| ModelError::directory(&manifest, error.to_string()))?;
    for (name, wanted) in listed {
        let path = folder.join(&name);
        let got = file_digest(&path).map_err(ModelError::io(&path))?;
        if got != wanted {
            return Err(ModelError::directory(
                &path,
                format!("its SHA-256 is not the one in {MANIFEST}: the file was damaged or edited"),
            ));
        }
    }
    Ok(())
}

fn seal(folder: &Path) -> Result<(), ModelError> {
    let mut hashes = BTreeMap::new();
    for path in entries_below(folder)? {
        sync(&path)?;
        if path.is_dir() {
            continue;
        }
        let hash = file_digest(&path).map_err(ModelError::io(&path))?;
        let name = path.strip_prefix(folder).unwrap_or(&path);
        hashes.insert(name.to_string_lossy().into_owned(), hash);
    }
    let manifest = folder.join(MANIFEST);
    let text = serde_json::to_string_pretty(&hashes)
        .map_err(|error| ModelError::directory(&manifest, error.to_string()))?;
    fs::write(&manifest, text + "\n").map_err(ModelError::io(&manifest))?;
    sync(&manifest)?;
    sync(folder)
}

fn entries_below(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(ModelError::io(folder))? {
        let path = entry.map_err(ModelError::io(folder))?.path();
        if path.is_dir() {
            entries.extend(entries_below(&path)?);
        }
        entries.push(path);
    }
    Ok(entries)
}

fn sibling(target: &Path, kind: &str) -> Result<PathBuf, ModelError> {
    let name = target
        .file_name()
        .ok_or_else(|| ModelError::directory(target, "this is no name for a directory"))?;
    Ok(target.with_file_name(format!(".{}.{kind}", name.to_string_lossy())))
}

fn remove(path: &Path) -> Result<(), ModelError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ModelError::io(path)(error))
        }
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), ModelError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(ModelError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, text: &str) -> Result<(), ModelError> {
        write_directory(target, |folder| {
            fs::create_dir(folder.join("sub")).map_err(ModelError::io(folder))?;
            fs::write(folder.join("sub/a.txt"), text).map_err(ModelError::io(folder))
        })
    }

    #[test]
    fn a_directory_is_replaced_whole_and_damage_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("step-1");
        write(&target, "one").unwrap();
        write(&target, "two").unwrap();
        verify_directory(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("sub/a.txt")).unwrap(), "two");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        fs::write(target.join("sub/a.txt"), "tw0").unwrap();
        let message = verify_directory(&target).unwrap_err().to_string();
        assert!(
            message.contains("a.txt") && message.contains("SHA-256"),
            "{message}"
        );
        fs::remove_file(target.join(MANIFEST)).unwrap();
        assert!(verify_directory(&target).is_err());
    }

    #[test]
    fn a_crash_between_the_renames_is_mended() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("best");
        write(&target, "one").unwrap();
        fs::rename(&target, root.path().join(".best.old")).unwrap();
        recover_directory(&target).unwrap();
        verify_directory(&target).unwrap();
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("step-1");
        write(&target, "one").unwrap();
        let failed = write_directory(&target, |_| Err(ModelError::Config("no".into())));
        assert!(failed.is_err());
        verify_directory(&target).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}

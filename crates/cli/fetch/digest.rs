//! What a hub says of a file's content, and whether it is true.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use limbic_weights::file_digest;
use sha1::{Digest as _, Sha1};

/// A digest by which a hub names a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// Of large files (git LFS): SHA-256.
    Sha256(String),
    /// Of the others: git's own, SHA-1 over a header with the length and the content.
    GitBlob(String),
}

impl Digest {
    /// What an ETag is by its form. Servers that are no hub may give 40 digits that mean anything.
    pub(super) fn of_etag(etag: &str, is_hub: bool) -> Option<Self> {
        let hex = etag.to_ascii_lowercase();
        match (hex.len(), hex.chars().all(|c| c.is_ascii_hexdigit())) {
            (64, true) => Some(Self::Sha256(hex)),
            (40, true) if is_hub => Some(Self::GitBlob(hex)),
            _ => None,
        }
    }

    /// What is wrong with a file, if anything.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn complaint(&self, path: &Path) -> anyhow::Result<Option<String>> {
        let (kind, got, wanted) = match self {
            Self::Sha256(wanted) => ("SHA-256", file_digest(path), wanted),
            Self::GitBlob(wanted) => ("git SHA-1", git_blob(path), wanted),
        };
        let got = got.with_context(|| path.display().to_string())?;
        Ok((got != *wanted).then(|| format!("its {kind} is {got}, but the hub says {wanted}")))
    }
}

fn git_blob(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", file.metadata()?.len()));
    std::io::copy(&mut file, &mut hasher)?;
    let digest = hasher.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_digest_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` of the same.
        let etag = "ce013625030ba8dba906f756967f9e9ca394464a";
        let digest = Digest::of_etag(etag, true).unwrap();
        assert_eq!(digest.complaint(&path).unwrap(), None);
        std::fs::write(&path, "hellO\n").unwrap();
        assert!(digest.complaint(&path).unwrap().unwrap().contains(etag));
        assert_eq!(Digest::of_etag(etag, false), None);
        assert_eq!(Digest::of_etag("\"abc\"", true), None);
    }
}

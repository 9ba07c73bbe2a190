//! Hugging Face's cache: contents under `blobs/` by their ETag, names under `snapshots/COMMIT/` as links to them, revisions under
//! `refs/`. `hf-hub` knows where these lie.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hf_hub::{Cache, CacheRepo, Repo};
use limbic_train::RunError;

use super::digest::Digest;
use super::select::{is_weights, select};

/// A repository's place in the cache.
pub(super) struct Snapshot {
    repo: CacheRepo,
    revision: String,
    root: PathBuf,
    /// Whether ETags of git's form are git's.
    is_hub: bool,
}

/// Files of a commit that the cache holds.
pub(super) struct Held {
    folder: PathBuf,
    names: Vec<String>,
}

impl Snapshot {
    pub(super) fn new(cache: &Cache, repo: Repo, is_hub: bool) -> Self {
        Self {
            is_hub,
            revision: repo.revision().to_string(),
            root: cache.path().join(repo.folder_name()),
            repo: cache.repo(repo),
        }
    }

    /// Where the content of this ETag lies, or shall lie; the folder is there.
    pub(super) fn blob(&self, etag: &str) -> anyhow::Result<PathBuf> {
        let blobs = self.root.join("blobs");
        fs::create_dir_all(&blobs).with_context(|| blobs.display().to_string())?;
        Ok(blobs.join(etag))
    }

    /// Lets a name of a commit point to a content.
    pub(super) fn point(&self, commit: &str, name: &str, blob: &Path) -> anyhow::Result<()> {
        let link = self.repo.pointer_path(commit).join(name);
        let at = || link.display().to_string();
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder).with_context(at)?;
        }
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).with_context(at)?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        let blob_name = blob.file_name().unwrap_or_default().to_string_lossy();
        symlink(&format!("{up}blobs/{blob_name}"), blob, &link).with_context(at)
    }

    /// Lets the revision stand for a commit.
    pub(super) fn remember(&self, commit: &str) -> anyhow::Result<()> {
        let at = || self.root.join("refs").display().to_string();
        self.repo.create_ref(commit).with_context(at)
    }

    pub(super) fn hold(&self, commit: &str, names: Vec<String>) -> Held {
        Held {
            folder: self.repo.pointer_path(commit),
            names,
        }
    }

    /// What the cache holds of the wanted files.
    ///
    /// # Errors
    /// Nothing, not all that an index lists, or something damaged.
    pub(super) fn find(&self, what: &str, include: &[&str]) -> anyhow::Result<Held> {
        let by_ref = fs::read_to_string(self.root.join("refs").join(&self.revision));
        let commit = by_ref.map_or_else(|_| self.revision.clone(), |text| text.trim().to_string());
        let folder = self.repo.pointer_path(&commit);
        let absent = |detail: String| {
            RunError::recipe(format!(
                "{what}, revision `{}`, is not in the cache {}{detail}; fetch it once without --offline and HF_HUB_OFFLINE",
                self.revision,
                self.root.display()
            ))
        };
        if !folder.is_dir() {
            return Err(absent(String::new()));
        }
        let mut all = Vec::new();
        files_below(&folder, &folder, &mut all)?;
        let names = select(all, include);
        if names.is_empty() || (include.is_empty() && !names.iter().any(|name| is_weights(name))) {
            return Err(absent(": it holds no weights of it".into()));
        }
        for name in &names {
            let blob = folder.join(name);
            let blob = fs::canonicalize(&blob).with_context(|| blob.display().to_string())?;
            let etag = blob.file_name().unwrap_or_default().to_string_lossy();
            if let Some(digest) = Digest::of_etag(&etag, self.is_hub)
                && let Some(complaint) = digest.complaint(&blob)?
            {
                return Err(absent(format!(" undamaged: of `{name}`, {complaint}")));
            }
        }
        for index in names.iter().filter(|name| name.ends_with(".index.json")) {
            let path = folder.join(index);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let index: serde_json::Value =
                serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            let shards = index["weight_map"].as_object().into_iter().flatten();
            for shard in shards.filter_map(|(_, shard)| shard.as_str()) {
                if !names.iter().any(|name| name == shard) {
                    return Err(absent(format!(": `{shard}` is missing")));
                }
            }
        }
        Ok(Held { folder, names })
    }
}

impl Held {
    /// Names and bytes.
    pub(super) fn sizes(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let size = |name: &String| {
            let path = self.folder.join(name);
            let metadata = fs::metadata(&path).with_context(|| path.display().to_string())?;
            Ok((name.clone(), metadata.len()))
        };
        self.names.iter().map(size).collect()
    }

    /// Makes `target` a folder of these files, which appears whole or not at all. `true` if it was that already.
    ///
    /// # Errors
    /// A folder that holds anything else, a disk that cannot be written.
    pub(super) fn lay_out(&self, target: &Path) -> anyhow::Result<bool> {
        let at = || target.display().to_string();
        if target.exists() {
            return if self.is_at(target)? {
                Ok(true)
            } else {
                Err(in_the_way(target))
            };
        }
        let partial = partial_of(target)?;
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
        }
        for name in &self.names {
            link_or_copy(name, &self.folder.join(name), &partial.join(name))?;
        }
        fs::rename(&partial, target).with_context(at)?;
        Ok(false)
    }

    /// As [`lay_out`](Self::lay_out), for the one file that this is.
    ///
    /// # Errors
    /// Something else at `target`, a disk that cannot be written.
    pub(super) fn lay_out_file(&self, target: &Path) -> anyhow::Result<bool> {
        let Some((name, size)) = self.sizes()?.pop() else {
            bail!("{} holds no file", self.folder.display());
        };
        if target.exists() {
            return if is_file_of(target, size) && is_same(&self.folder.join(&name), target)? {
                Ok(true)
            } else {
                Err(in_the_way(target))
            };
        }
        let partial = partial_of(target)?;
        if partial.exists() {
            fs::remove_file(&partial).with_context(|| partial.display().to_string())?;
        }
        link_or_copy(&name, &self.folder.join(&name), &partial)?;
        fs::rename(&partial, target).with_context(|| target.display().to_string())?;
        Ok(false)
    }

    fn is_at(&self, target: &Path) -> anyhow::Result<bool> {
        let mut there = Vec::new();
        if target.is_dir() {
            files_below(target, target, &mut there)?;
        }
        let mut wanted = self.sizes()?;
        wanted.sort();
        there.sort();
        let have_sizes = wanted
            .iter()
            .all(|(name, size)| is_file_of(&target.join(name), *size));
        if there.len() != wanted.len() || !have_sizes {
            return Ok(false);
        }
        // Another revision of a model differs in its values, and not in its names and sizes.
        for (name, _) in &wanted {
            if !is_same(&self.folder.join(name), &target.join(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn in_the_way(target: &Path) -> anyhow::Error {
    RunError::recipe(format!(
        "{} is there already and holds something else; name another place with --to, or move it away",
        target.display()
    ))
}

/// The hidden sibling that becomes `target` once it is complete.
fn partial_of(target: &Path) -> anyhow::Result<PathBuf> {
    match target.file_name() {
        Some(name) => Ok(target.with_file_name(format!(".{}.partial", name.to_string_lossy()))),
        None => bail!("{} is no name for a folder", target.display()),
    }
}

/// Links cost no space, but stay within one file system, and whoever writes into one writes into the cache: they are for
/// weights, which are large, and which nobody edits by hand.
fn link_or_copy(name: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
    let at = || format!("{} to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(at)?;
    }
    let from = fs::canonicalize(from).with_context(at)?;
    let is_linked = is_weights(name) && fs::hard_link(&from, to).is_ok();
    if !is_linked {
        fs::copy(&from, to).with_context(at)?;
        let copied = File::open(to).and_then(|file| file.sync_all());
        copied.with_context(at)?;
    }
    Ok(())
}

/// Whether two files of one size hold the same.
fn is_same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let at = || format!("{} and {}", one.display(), other.display());
    if is_one_file(one, other) {
        return Ok(true);
    }
    let open = |path: &Path| File::open(path).map(|file| BufReader::with_capacity(CHUNK, file));
    let (mut one, mut other) = (open(one).with_context(at)?, open(other).with_context(at)?);
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    loop {
        mine.clear();
        others.clear();
        let chunk = CHUNK as u64;
        (&mut one).take(chunk).read_to_end(&mut mine)?;
        (&mut other).take(chunk).read_to_end(&mut others)?;
        if mine != others {
            return Ok(false);
        }
        if mine.is_empty() {
            return Ok(true);
        }
    }
}

const CHUNK: usize = 1 << 20;

/// Whether both are links to one content.
#[cfg(unix)]
fn is_one_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    place(one).is_some_and(|one| place(other) == Some(one))
}

#[cfg(not(unix))]
fn is_one_file(_one: &Path, _other: &Path) -> bool {
    false
}

/// Whether there is a file of this size.
pub(super) fn is_file_of(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// The files below `folder`, as paths from `root` on with `/` between their parts.
fn files_below(root: &Path, folder: &Path, found: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.is_dir() {
            files_below(root, &path, found)?;
        } else if path.exists() {
            let name = path.strip_prefix(root).unwrap_or(&path);
            let parts: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
            found.push(parts.join("/"));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(relative: &str, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

#[cfg(not(unix))]
fn symlink(_relative: &str, blob: &Path, link: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(drop))
}

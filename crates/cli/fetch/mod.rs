//! Published models, downloaded into a cache and laid out as a plain folder, or file.
//!
//! The cache is the one that Hugging Face's Python tools use, through the `hf-hub` crate: what they have downloaded is not
//! downloaded again. The transfer itself is ours, because that crate checks no hash, appends to a half file whatever the
//! server answers, and sends the token along to the storage that the hub points to.

mod cache;
mod digest;
mod download;
mod hub;
mod names;
mod select;

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};
use limbic_train::RunError;
use limbic_weights::hex_digest;

use cache::Snapshot;
use hub::{Address, Hub, Listing};
use names::Source;

/// What is to be fetched.
pub(crate) struct Wish<'a> {
    /// A short name, a repository or an address.
    pub(crate) model: &'a str,
    /// Branch, tag or commit.
    pub(crate) revision: &'a str,
    /// Patterns in place of the usual files.
    pub(crate) include: &'a [String],
    /// The folder, or file, to make.
    pub(crate) to: Option<&'a Path>,
    /// Whether the network is left alone.
    pub(crate) offline: bool,
}

/// What was fetched.
pub(crate) struct Fetched {
    /// The folder, or the file where the model is one.
    pub(crate) place: PathBuf,
    /// Its files, and their sizes in bytes.
    pub(crate) files: Vec<(String, u64)>,
    /// Whether it was there before, the same.
    pub(crate) existed: bool,
}

/// Fetches a model into a folder or file, which appears whole or not at all.
///
/// # Errors
/// A name that means nothing, a hub that refuses or is not there, a file that is not what the hub says, something in the way.
pub(crate) fn fetch(wish: &Wish<'_>) -> anyhow::Result<Fetched> {
    let source = names::resolve(wish.model)?;
    let place = match wish.to {
        Some(place) => place.to_path_buf(),
        None => Path::new("weights").join(source.default_name()),
    };
    let home = Cache::from_env();
    let hub_cache = std::env::var_os("HF_HUB_CACHE");
    let hub_cache = hub_cache.map_or_else(|| home.clone(), |path| Cache::new(path.into()));
    let offline = wish.offline || is_on("HF_HUB_OFFLINE");
    let snapshot = match &source {
        Source::Hub(repo) => {
            let model = Repo::with_revision(repo.clone(), RepoType::Model, wish.revision.into());
            let include: Vec<&str> = wish.include.iter().map(String::as_str).collect();
            let cached = Snapshot::new(&hub_cache, model, true);
            if offline {
                cached.find(repo, &include)?
            } else {
                let hub = Hub::from_env(&home)?;
                let listing = hub.list(repo, wish.revision, |all| select::select(all, &include))?;
                if listing.files.is_empty() {
                    return Err(RunError::recipe(format!(
                        "`{repo}` has no file that {}",
                        match include.as_slice() {
                            [] => "limbic would read: no safetensors, no PyTorch file".to_string(),
                            given => format!("matches {}", given.join(", ")),
                        }
                    )));
                }
                get(&hub, &cached, &listing)?
            }
        }
        Source::Address(url) => {
            // A cache of its own, laid out alike: a repository of one file, named by its address.
            let root = home.path().with_file_name("limbic");
            let name = hex_digest(url.as_bytes());
            let cached = Snapshot::new(&Cache::new(root), Repo::new(name, RepoType::Model), false);
            if offline {
                cached.find(url, &["*"])?
            } else {
                let hub = Hub::from_env(&home)?;
                let listing = hub.one(&Address::new(url)?)?;
                if listing.files.iter().any(|file| file.digest.is_none()) {
                    eprintln!(
                        "note: the server tells no SHA-256 of it, so that its length alone can be checked"
                    );
                }
                get(&hub, &cached, &listing)?
            }
        }
    };
    let files = snapshot.sizes()?;
    let existed = match source {
        Source::Hub(_) => snapshot.lay_out(&place)?,
        Source::Address(_) => snapshot.lay_out_file(&place)?,
    };
    Ok(Fetched {
        place,
        files,
        existed,
    })
}

/// Downloads what the cache lacks.
fn get(hub: &Hub, cached: &Snapshot, listing: &Listing) -> anyhow::Result<cache::Held> {
    for file in &listing.files {
        let blob = cached.blob(&file.etag)?;
        // What lies in the cache may have been changed there by whoever else has a link to it.
        let is_whole = cache::is_file_of(&blob, file.size)
            && match &file.digest {
                Some(digest) => digest.complaint(&blob)?.is_none(),
                None => true,
            };
        if !is_whole {
            download::download(hub, file, &blob)?;
        }
        cached.point(&listing.commit, &file.name, &blob)?;
    }
    cached.remember(&listing.commit)?;
    let names = listing.files.iter().map(|file| file.name.clone());
    Ok(cached.hold(&listing.commit, names.collect()))
}

fn is_on(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| {
        ["1", "on", "true", "yes"].contains(&value.to_ascii_lowercase().as_str())
    })
}

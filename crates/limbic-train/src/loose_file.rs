//! Files of a folder that several processes write at once, and of which none is missed when it is lost.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the names of files that are being written end with.
pub(crate) const PARTIAL: &str = ".partial";

/// Writes a file that appears whole or not at all, from any number of processes and threads; its folder is made. It is
/// not synced: after a power cut it may be gone, or be noticed to be damaged.
///
/// # Errors
/// When the file system refuses; what stood at `path` is then untouched.
pub(crate) fn write_loose(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let partial = folder.join(unused_name());
    let written = File::create_new(&partial).and_then(|mut file| {
        for part in parts {
            file.write_all(part)?;
        }
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // Where even that is refused, the next sweep of the cache finds it.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// A name that no other thread, process or machine gives. Chance decides nothing but this.
fn unused_name() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(".{:016x}-{number}{PARTIAL}", *PROCESS)
}

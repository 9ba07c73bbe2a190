//! Features on disk, addressed by all that they are a function of. Any number of processes may fill and read one cache.
//!
//! ```text
//! features/ab/abcd....features    one encoder's view of one clip (see `cache_entry.rs`)
//! digests/12/12ab...              SHA-256 of a file of weights or media (see `file_digest.rs`)
//! ```
//!
//! Nothing that goes wrong here ends a run: what cannot be read is made again, what cannot be written is made again the
//! next time, and both are told. Clips that are unusable have no entry, so that they are looked at anew in each run.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use limbic_encoders::Features;

use crate::cache_entry::{self, Unread};
use crate::file_digest::FileDigests;
use crate::loose_file::PARTIAL;
use crate::recipe::CacheRecipe;

/// What the names of entries end with.
const ENTRY: &str = ".features";
/// Uses of an entry that are closer than this count as one: a read need not write.
const SAME_USE: Duration = Duration::from_secs(3600);
/// No file takes so long to be written: whoever began it has been killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// Room that is made at once, as a share of the whole, so that it is not made for every file.
const MARGIN: u64 = 16;
const GIB: f64 = (1u64 << 30) as f64;

/// The cache of a recipe.
#[derive(Debug)]
pub(crate) struct FeatureCache {
    folder: PathBuf,
    most_bytes: u64,
    pub(crate) digests: FileDigests,
    /// Bytes of all entries when they were last counted and of what was added since; `None` before that.
    size: Mutex<Option<Size>>,
    /// Since it was last asked for.
    report: Mutex<CacheReport>,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    counted: u64,
    added: u64,
}

/// What a cache was good for since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Entries that were found, whole.
    pub found: u64,
    /// Features that were made and written.
    pub made: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Entries that were removed to make room.
    pub removed: u64,
    /// Entries that were not as they had been written, and therefore made again.
    pub damaged: Problems,
    /// Entries that could not be read, and therefore made again.
    pub unread: Problems,
    /// Entries that could not be written.
    pub unwritten: Problems,
    /// Entries that could not be removed to make room.
    pub unremoved: Problems,
}

/// Entries with which the same went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// How many there are.
    pub count: u64,
    /// The first few of them, and what went wrong.
    pub first: Vec<String>,
}

impl FeatureCache {
    /// The cache that `recipe` describes; `None` where it is turned off. Nothing is touched yet.
    pub(crate) fn new(recipe: &CacheRecipe) -> Option<Self> {
        recipe.enabled.then(|| Self {
            folder: recipe.directory.join("features"),
            most_bytes: (recipe.max_gib * GIB) as u64,
            digests: FileDigests::new(recipe.directory.join("digests")),
            size: Mutex::default(),
            report: Mutex::default(),
        })
    }

    /// The features under `key`, and `None` in their place for a clip that has nothing of the medium.
    pub(crate) fn get(&self, key: &str) -> Option<Option<Features>> {
        self.find(key, cache_entry::read)
    }

    /// Number and size of the features under `key`, likewise. The values are verified when they are read.
    pub(crate) fn shape(&self, key: &str) -> Option<Option<(usize, usize)>> {
        self.find(key, cache_entry::shape)
    }

    /// Counts an entry that spared its clip the encoder.
    pub(crate) fn count_found(&self) {
        lock(&self.report).found += 1;
    }

    fn find<T>(&self, key: &str, read: fn(&Path, &str) -> Result<T, Unread>) -> Option<T> {
        let path = self.path(key);
        match read(&path, key) {
            Ok(found) => {
                note_use(&path);
                Some(found)
            }
            Err(Unread::Absent) => None,
            Err(Unread::Damaged(problem)) => {
                lock(&self.report).damaged.add(&path, &problem);
                None
            }
            Err(Unread::Refused(error)) => {
                lock(&self.report).unread.add(&path, &error);
                None
            }
        }
    }

    /// Writes features under `key`, and makes room for them where the cache is full.
    pub(crate) fn put(&self, key: &str, features: Option<&Features>) {
        let path = self.path(key);
        match cache_entry::write(&path, key, features) {
            Ok(bytes) => {
                let mut report = lock(&self.report);
                report.made += 1;
                report.bytes += bytes;
                drop(report);
                self.grow(bytes);
            }
            Err(error) => lock(&self.report).unwritten.add(&path, &error),
        }
    }

    /// What it was good for since this was last called.
    pub(crate) fn report(&self) -> CacheReport {
        std::mem::take(&mut *lock(&self.report))
    }

    fn path(&self, key: &str) -> PathBuf {
        let folder = self.folder.join(&key[..2]);
        folder.join(format!("{key}{ENTRY}"))
    }

    /// Counts what was added. Others add too, so all is counted anew from time to time.
    fn grow(&self, bytes: u64) {
        let mut size = lock(&self.size);
        let is_due = match &mut *size {
            Some(Size { counted, added }) => {
                *added += bytes;
                // Where removing was refused, it is not tried again for every file.
                let is_full = *counted <= self.most_bytes && *counted + *added > self.most_bytes;
                *added > self.most_bytes / MARGIN || is_full
            }
            None => true,
        };
        if is_due {
            *size = Some(Size {
                counted: self.sweep(),
                added: 0,
            });
        }
    }

    /// Removes the entries that were not used for longest until the rest fits; the bytes that are left. What is being
    /// written is none of its business, but for what was abandoned long ago.
    fn sweep(&self) -> u64 {
        let mut entries = Vec::new();
        let mut total = 0;
        for file in files(&self.folder).chain(files(self.digests.folder())) {
            let path = file.path();
            let name = path.to_string_lossy();
            let is_partial = name.ends_with(PARTIAL);
            // Whatever else lies there is somebody's.
            if !is_partial && !name.ends_with(ENTRY) {
                continue;
            }
            let Ok(found) = file.metadata() else { continue };
            let Ok(used) = found.modified() else { continue };
            if is_partial {
                if is_older(used, ABANDONED) {
                    // Another process may have been quicker.
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            total += found.len();
            entries.push((used, path, found.len()));
        }
        if total <= self.most_bytes {
            return total;
        }
        entries.sort();
        let wanted = self.most_bytes - self.most_bytes / MARGIN;
        for (_, path, bytes) in entries {
            if total <= wanted {
                break;
            }
            match fs::remove_file(&path) {
                Ok(()) => lock(&self.report).removed += 1,
                // Another process was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    lock(&self.report).unremoved.add(&path, &error);
                    continue;
                }
            }
            total -= bytes;
        }
        total
    }
}

impl CacheReport {
    /// What was found and made, in words.
    pub fn line(&self) -> String {
        format!(
            "features: {} found in the cache, {} made",
            self.found, self.made
        )
    }

    /// What went wrong or had to be removed, in words; nothing where nothing did.
    pub fn problems(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, problems) in [
            ("damaged, made again", &self.damaged),
            ("not readable, made again", &self.unread),
            ("not written, so made again next time", &self.unwritten),
            (
                "not removed, so the cache outgrows `cache.max_gib`",
                &self.unremoved,
            ),
        ] {
            if problems.count > 0 {
                lines.push(format!("features: {} entries were {what}:", problems.count));
                lines.extend(problems.first.iter().map(|problem| format!("  {problem}")));
            }
        }
        if self.removed > 0 {
            lines.push(format!(
                "features: {} entries, the longest unused, were removed to keep within `cache.max_gib`",
                self.removed
            ));
        }
        lines
    }
}

impl Problems {
    fn add(&mut self, path: &Path, problem: &dyn fmt::Display) {
        const SHOWN: usize = 3;
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(format!("{}: {problem}", path.display()));
        }
    }
}

/// The files one level below `folder`.
fn files(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    below(folder.to_path_buf()).flat_map(move |folder| below(folder.path()))
}

/// Marks an entry as used now. In a folder that belongs to another this may be refused, and then others do it.
fn note_use(path: &Path) {
    let used = fs::metadata(path).and_then(|found| found.modified());
    if used.is_ok_and(|used| is_older(used, SAME_USE)) {
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

fn is_older(time: SystemTime, than: Duration) -> bool {
    time.elapsed().is_ok_and(|since| since > than)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("nobody panics while holding a lock of the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, max_bytes: u64) -> FeatureCache {
        let recipe = CacheRecipe {
            directory: folder.to_path_buf(),
            max_gib: max_bytes as f64 / GIB,
            ..CacheRecipe::default()
        };
        FeatureCache::new(&recipe).unwrap()
    }

    fn features(value: f32) -> Features {
        Features {
            length: 250,
            dim: 1,
            data: vec![value; 250],
        }
    }

    #[test]
    fn the_longest_unused_entries_make_room_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<String> = (0..12).map(|number| format!("{number:064}")).collect();
        // Each takes between 1000 and 1500 bytes.
        let filled = cache(folder.path(), 1 << 30);
        for (number, key) in keys[..8].iter().enumerate() {
            filled.put(key, Some(&features(number as f32)));
            let age = Duration::from_secs(100_000 - 10_000 * number as u64);
            let file = File::open(filled.path(key)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let partial = |name: &str, age: u64| {
            let path = folder.path().join("features/00").join(name);
            let file = File::create(&path).unwrap();
            let age = Duration::from_secs(age);
            file.set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let other = partial("notes.txt", 1_000_000);
        let [young, old] = [
            partial(".a.partial", 3000),
            partial(".b.partial", 1_000_000),
        ];
        fs::create_dir_all(folder.path().join("digests/00")).unwrap();
        let digest = partial("../../digests/00/.c.partial", 1_000_000);
        // The first is the oldest, but it is used again.
        assert!(filled.get(&keys[0]).is_some_and(|found| found.is_some()));
        let small = cache(folder.path(), 6000);
        small.put(&keys[8], Some(&features(8.0)));
        let left: Vec<bool> = keys.iter().map(|key| small.path(key).exists()).collect();
        assert!(left[0] && left[8] && !left[1] && !left[2], "{left:?}");
        let size: u64 = files(&small.folder)
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!((3000..=6000).contains(&size), "{size}");
        assert!(small.report().removed >= 4);
        assert!(young.exists() && other.exists() && !old.exists());
        assert!(!digest.exists());
        // It goes on within its bound.
        for key in &keys {
            small.put(key, Some(&features(1.0)));
        }
        let size: u64 = files(&small.folder)
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(size <= 6000, "{size}");
    }

    #[test]
    fn what_cannot_be_written_is_told_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("features"), b"no folder").unwrap();
        let cache = cache(folder.path(), 1 << 30);
        let key = "0".repeat(64);
        cache.put(&key, Some(&features(1.0)));
        assert!(cache.get(&key).is_none());
        let report = cache.report();
        assert_eq!((report.made, report.unwritten.count), (0, 1));
        assert_eq!((report.damaged.count, report.unread.count), (0, 1));
        let told =
            |problems: &[String], what: &str| problems.iter().any(|line| line.contains(what));
        assert!(told(&report.problems(), "not written"), "{report:?}");
        assert!(told(&report.problems(), "not readable"), "{report:?}");
        assert_eq!(cache.report(), CacheReport::default(), "it is told once");
        // However many there are, few are named.
        for _ in 0..100 {
            cache.put(&key, Some(&features(1.0)));
        }
        let report = cache.report();
        assert_eq!(
            (report.unwritten.count, report.unwritten.first.len()),
            (100, 3)
        );
    }

    #[test]
    fn what_cannot_be_removed_is_counted_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<String> = (0..6).map(|number| format!("{number:064}")).collect();
        let small = cache(folder.path(), 6000);
        // A folder in an entry's place is refused to whoever would remove a file.
        let stuck = small.path(&"f".repeat(64));
        fs::create_dir_all(&stuck).unwrap();
        let old = SystemTime::now() - Duration::from_secs(100_000);
        File::open(&stuck).unwrap().set_modified(old).unwrap();
        let taken = fs::metadata(&stuck).unwrap().len();
        for key in &keys {
            small.put(key, Some(&features(1.0)));
        }
        let report = small.report();
        assert!(
            report.unremoved.count > 0 && report.removed > 0,
            "{report:?}"
        );
        let size = small.sweep();
        let found: u64 = files(&small.folder)
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert_eq!(size, found);
        assert!(size >= taken && size <= 6000 + 1500, "{size}");
    }

    #[test]
    fn several_fill_one_cache_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<String> = (0..20).map(|number| format!("{number:064}")).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = cache(folder.path(), 1 << 30);
                    for (number, key) in keys.iter().enumerate() {
                        let wanted = features(number as f32);
                        match cache.get(key) {
                            Some(found) => assert_eq!(found, Some(wanted)),
                            None => cache.put(key, Some(&wanted)),
                        }
                    }
                    assert_eq!(cache.report().damaged, Problems::default());
                });
            }
        });
        assert_eq!(files(&folder.path().join("features")).count(), keys.len());
    }
}

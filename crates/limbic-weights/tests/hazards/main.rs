//! Damaged and hostile files: each an error that says what is wrong, within a second and in little memory.

#[path = "../common/mod.rs"]
mod common;
/// Damage at random.
mod damage;
/// Files and folders of safetensors.
mod safetensors;
/// Files of `torch.save`.
mod torch;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::memory_peak;
use limbic_weights::Checkpoint;
use tempfile::TempDir;

/// Opens and reads everything, which must fail in time, and gives the message. A machine that is busy with something
/// else is given two more chances.
fn refused(path: &Path) -> String {
    let mut took = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let result = Checkpoint::open(path).and_then(|checkpoint| checkpoint.weights());
        took.push(began.elapsed());
        let message = result
            .expect_err("a hazard was read as weights")
            .to_string();
        let peak = memory_peak();
        assert!(peak < 512 << 20, "{peak} bytes: {message}");
        assert!(message.len() < 2000, "{message}");
        if took.last() < Some(&Duration::from_secs(1)) {
            return message;
        }
    }
    panic!("{took:?} for {}", path.display());
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` not in: {message}");
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

//! From a path to the tensors that lie there: a file, or a folder in Hugging Face's layout.

use std::collections::BTreeMap;
use std::path::Path;

use crate::WeightsError;
use crate::header::{UniqueMap, read_safetensors};
use crate::source::{Access, SourceFile};
use crate::stored::Stored;
use crate::torch::{is_legacy_pickle, read_torch};

/// An index of a thousand shards has a tenth of this.
const LONGEST_INDEX: u64 = 16 << 20;

/// What a file or folder holds.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, Stored>,
    /// Values that are no tensors: step counters, settings, words.
    pub(crate) passed_over: usize,
}

pub(crate) fn open(path: &Path) -> Result<Contents, WeightsError> {
    if !path.is_dir() {
        return open_file(path);
    }
    for (single, index) in [
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ] {
        let (single, index) = (path.join(single), path.join(index));
        if single.is_file() {
            return open_file(&single);
        } else if index.is_file() {
            return open_shards(path, &index);
        }
    }
    Err(WeightsError::Absent(path.to_path_buf()))
}

/// The first bytes tell what a file is; its name need not.
fn open_file(path: &Path) -> Result<Contents, WeightsError> {
    let file = SourceFile::open(path)?;
    let first = file.window(0..file.length().min(16), Access::Whole)?;
    if first.starts_with(b"PK\x03\x04") {
        return read_torch(&file);
    }
    if is_legacy_pickle(&first) {
        return Err(WeightsError::Pickle {
            path: path.to_path_buf(),
            detail: "it was written by a PyTorch before 1.6, or with `_use_new_zipfile_serialization=False`; read it \
                     with `torch.load` where you trust it, and write it again with `torch.save`"
                .into(),
        });
    }
    Ok(Contents {
        tensors: read_safetensors(&file)?,
        passed_over: 0,
    })
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

fn open_shards(folder: &Path, index: &Path) -> Result<Contents, WeightsError> {
    let format = |path: &Path, detail: String| WeightsError::Format {
        path: path.to_path_buf(),
        detail,
    };
    let file = SourceFile::open(index)?;
    if file.length() > LONGEST_INDEX {
        let detail = format!(
            "it has {} bytes, more than the {LONGEST_INDEX} allowed",
            file.length()
        );
        return Err(format(index, detail));
    }
    let text = file.window(0..file.length(), Access::Whole)?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|error| format(index, error.to_string()))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in &parsed.weight_map.0 {
        if shard.is_empty() || shard == ".." || shard.contains(['/', '\\', '\0']) {
            let detail = format!(
                "it maps `{name}` to `{shard}`, wanted the name of a file in the same folder"
            );
            return Err(format(index, detail));
        }
        shards.entry(shard).or_default().push(name);
    }
    let mut all = Contents::default();
    for (shard, names) in shards {
        let path = folder.join(shard);
        let mut part = open_file(&path)?;
        for name in names {
            let tensor = part.tensors.remove(name).ok_or_else(|| {
                let detail = format!("`{name}` is missing, which {} promises", index.display());
                format(&path, detail)
            })?;
            all.tensors.insert(name.to_string(), tensor);
        }
        if let Some(name) = part.tensors.keys().next() {
            let detail = format!("it holds `{name}`, which {} does not list", index.display());
            return Err(format(&path, detail));
        }
        all.passed_over += part.passed_over;
    }
    Ok(all)
}

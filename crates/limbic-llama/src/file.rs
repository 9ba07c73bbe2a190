//! Small files that appear whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::LlamaError;

/// Writes `value` as indented JSON with sorted keys through a temporary sibling.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), LlamaError> {
    let json = |error: serde_json::Error| LlamaError::json(path, error);
    let value = serde_json::to_value(value).map_err(json)?;
    let sorted: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(value).map_err(json)?;
    write_sorted(path, &sorted)
}

/// Writes a mapping as indented JSON through a temporary sibling; what its values hold keeps its order.
pub(crate) fn write_sorted(
    path: &Path,
    keys: &BTreeMap<String, impl Serialize>,
) -> Result<(), LlamaError> {
    let json = |error: serde_json::Error| LlamaError::json(path, error);
    let text = serde_json::to_string_pretty(keys).map_err(json)? + "\n";
    limbic_weights::write_whole(path, text.as_bytes()).map_err(LlamaError::io(path))
}

/// The temporary sibling of `path`.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    PathBuf::from(partial)
}

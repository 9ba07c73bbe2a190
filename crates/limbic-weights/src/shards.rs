//! A folder of safetensors written tensor by tensor, so that a model larger than memory can be written.
//!
//! Names, shapes and precisions are said first, since a file's header stands before its data; then the writer asks for
//! one tensor after the other, whose values go to the disk at once.
//!
//! The layout is Hugging Face's: `model.safetensors`, or `model-00001-of-0000N.safetensors` and an index. A shard is
//! filled up to the limit in the order of the plan; a tensor larger than the limit has a shard of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{Precision, WeightsError};

/// The largest shard that transformers writes, in bytes.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// Values that are encoded at once.
const CHUNK: usize = 1 << 16;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its name in the file.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// How its values are written.
    pub precision: Precision,
}

impl Planned {
    fn num_values(&self) -> usize {
        self.shape.iter().product()
    }

    fn num_bytes(&self) -> u64 {
        (self.num_values() * self.precision.size()) as u64
    }
}

/// Writes planned tensors one after the other: as long as [`next`](Self::next) names one, [`write`](Self::write) its values.
#[derive(Debug)]
pub struct ShardWriter {
    folder: PathBuf,
    /// Shards that are not full yet, the next one last.
    shards: Vec<Shard>,
    /// The file of the next shard, once it is begun.
    file: Option<BufWriter<File>>,
    weight_map: BTreeMap<String, String>,
    total_size: u64,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    header: Vec<u8>,
    /// Tensors yet to be written, the next one last.
    waiting: Vec<Planned>,
}

impl ShardWriter {
    /// Will write `tensors` into `folder`, which is there, in shards of at most `max_shard_bytes` of data.
    pub fn new(folder: &Path, tensors: Vec<Planned>, max_shard_bytes: u64) -> Self {
        let total_size = tensors.iter().map(Planned::num_bytes).sum();
        let groups = split(tensors, max_shard_bytes);
        let count = groups.len();
        let mut weight_map = BTreeMap::new();
        let mut shards = Vec::with_capacity(count);
        for (index, mut tensors) in groups.into_iter().enumerate() {
            let file_name = match count {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            };
            for tensor in &tensors {
                weight_map.insert(tensor.name.clone(), file_name.clone());
            }
            // Wide numbers first: PyTorch maps a tensor only where its offset is a multiple of its numbers' size.
            tensors.sort_by_key(|tensor| Reverse(tensor.precision.size()));
            shards.push(Shard {
                path: folder.join(file_name),
                header: header(&tensors),
                waiting: tensors.into_iter().rev().collect(),
            });
        }
        shards.reverse();
        Self {
            folder: folder.to_path_buf(),
            shards,
            file: None,
            weight_map,
            total_size,
        }
    }

    /// Bytes of all tensors.
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// The tensor whose values are wanted next.
    pub fn next(&self) -> Option<&Planned> {
        self.shards.last()?.waiting.last()
    }

    /// Writes the next tensor, rounded to its precision.
    ///
    /// # Errors
    /// A file that cannot be written.
    ///
    /// # Panics
    /// When none is wanted, or `values` are not as many as its shape says.
    pub fn write(&mut self, values: &[f32]) -> Result<(), WeightsError> {
        let shard = self.shards.last_mut();
        let shard = shard.unwrap_or_else(|| panic!("a tensor after the last one"));
        let io = || WeightsError::io(&shard.path);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut file = BufWriter::new(File::create_new(&shard.path).map_err(io())?);
                file.write_all(&shard.header).map_err(io())?;
                file
            }
        };
        if let Some(planned) = shard.waiting.pop() {
            let Planned { name, shape, .. } = &planned;
            assert_eq!(
                values.len(),
                planned.num_values(),
                "values of `{name}`, and as many as {shape:?} holds"
            );
            for chunk in values.chunks(CHUNK) {
                file.write_all(&planned.precision.encode(chunk))
                    .map_err(io())?;
            }
        }
        if shard.waiting.is_empty() {
            let file = file.into_inner().map_err(|error| error.into_error());
            file.and_then(|file| file.sync_all()).map_err(io())?;
            self.shards.pop();
        } else {
            self.file = Some(file);
        }
        Ok(())
    }

    /// Writes the index, where there are several shards.
    ///
    /// # Errors
    /// A file that cannot be written.
    ///
    /// # Panics
    /// When a tensor was not written.
    pub fn finish(self) -> Result<(), WeightsError> {
        assert_eq!(self.next(), None, "a tensor that was not written");
        let files: BTreeSet<&String> = self.weight_map.values().collect();
        if files.len() < 2 {
            return Ok(());
        }
        let path = self.folder.join("model.safetensors.index.json");
        let index = json!({
            "metadata": { "total_size": self.total_size },
            "weight_map": self.weight_map,
        });
        crate::write_whole(&path, format!("{index:#}\n").as_bytes())
            .map_err(WeightsError::io(&path))
    }
}

/// Fills shards in order.
fn split(tensors: Vec<Planned>, max_shard_bytes: u64) -> Vec<Vec<Planned>> {
    let mut shards: Vec<Vec<Planned>> = Vec::new();
    let mut held = 0;
    for tensor in tensors {
        let size = tensor.num_bytes();
        match shards.last_mut() {
            Some(shard) if held + size <= max_shard_bytes => {
                held += size;
                shard.push(tensor);
            }
            _ => {
                held = size;
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

/// Length and JSON of a safetensors file whose tensors follow in this order, padded so that the data are aligned.
fn header(tensors: &[Planned]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    // Readers in the PyTorch world refuse a file without this entry.
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.num_bytes();
        entries.insert(
            tensor.name.clone(),
            json!({
                "dtype": tensor.precision.safetensors_name(),
                "shape": tensor.shape,
                "data_offsets": [offset, end],
            }),
        );
        offset = end;
    }
    let mut text = serde_json::Value::from(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;
    use safetensors::{Dtype, SafeTensors};

    fn planned(name: &str, shape: &[usize], precision: Precision) -> Planned {
        Planned {
            name: name.into(),
            shape: shape.to_vec(),
            precision,
        }
    }

    fn write(folder: &Path, limit: u64) {
        let plan = vec![
            planned("a", &[2, 3], Precision::F32),
            planned("b.big", &[5, 4], Precision::Bf16),
            planned("c", &[1], Precision::F16),
            planned("d", &[2], Precision::F32),
        ];
        let mut writer = ShardWriter::new(folder, plan, limit);
        while let Some(tensor) = writer.next() {
            let count = tensor.num_values();
            let values: Vec<f32> = (0..count).map(|i| i as f32 - 1.5).collect();
            writer.write(&values).unwrap();
        }
        assert_eq!(writer.total_size(), 24 + 40 + 2 + 8);
        writer.finish().unwrap();
    }

    #[test]
    fn one_shard_needs_no_index() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), MAX_SHARD_BYTES);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
        assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(
            metadata.metadata().as_ref().unwrap(),
            &[("format".to_string(), "pt".to_string())].into()
        );
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("b.big").unwrap().dtype(), Dtype::BF16);
        assert_eq!(file.tensor("c").unwrap().dtype(), Dtype::F16);
        let offset = |name: &str| metadata.info(name).unwrap().data_offsets.0;
        assert_eq!(["a", "d", "b.big", "c"].map(offset), [0, 24, 32, 72]);
        let weights = Weights::read(folder.path()).unwrap();
        assert_eq!(
            weights.tensors["a"].values,
            [-1.5, -0.5, 0.5, 1.5, 2.5, 3.5]
        );
        assert_eq!(weights.tensors["b.big"].values[19], 17.5);
    }

    #[test]
    fn shards_hold_at_most_the_limit_and_the_index_names_them() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 30);
        let text =
            std::fs::read_to_string(folder.path().join("model.safetensors.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        let shard = |number: usize| format!("model-{number:05}-of-00003.safetensors");
        assert_eq!(
            index,
            json!({
                "metadata": { "total_size": 74 },
                "weight_map": { "a": shard(1), "b.big": shard(2), "c": shard(3), "d": shard(3) },
            })
        );
        let one = tempfile::tempdir().unwrap();
        write(one.path(), MAX_SHARD_BYTES);
        assert_eq!(
            Weights::read(folder.path()).unwrap(),
            Weights::read(one.path()).unwrap()
        );
    }

    #[test]
    #[should_panic(expected = "values of `a`")]
    fn the_plan_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let plan = vec![planned("a", &[2], Precision::F32)];
        let _ = ShardWriter::new(folder.path(), plan, 10).write(&[1.0]);
    }
}

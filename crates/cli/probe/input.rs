//! Model inputs from a safetensors file, by transformers' names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_train::RunError;
use limbic_weights::NamedTensor;
use safetensors::{Dtype, SafeTensors};

/// The keys that a file may have.
const KEYS: [&str; 5] = [
    "input_ids",
    "attention_mask",
    "pixel_values",
    "input_values",
    "input_features",
];

/// The inputs in a file.
pub(crate) struct InputFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl InputFile {
    /// # Errors
    /// An unreadable file, or a key that is no model's input.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string());
        let bytes = bytes.map_err(|error| RunError::recipe(format!("{error:#}")))?;
        let input = Self {
            path: path.to_path_buf(),
            bytes,
        };
        let file = input.file()?;
        let names = file.names();
        if let Some(name) = names.iter().find(|name| !KEYS.contains(name)) {
            return Err(input.wrong(format!("`{name}` is no input; wanted {}", KEYS.join(", "))));
        }
        Ok(input)
    }

    fn file(&self) -> anyhow::Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|error| self.wrong(format!("no readable safetensors file: {error}")))
    }

    fn wrong(&self, detail: String) -> anyhow::Error {
        RunError::recipe(format!("{}: {detail}", self.path.display()))
    }

    /// Whole numbers `[B, L]` under `key`, if it is there.
    ///
    /// # Errors
    /// Another rank or dtype.
    pub(crate) fn whole(&self, key: &str) -> anyhow::Result<Option<Vec<Vec<i64>>>> {
        let file = self.file()?;
        let Ok(view) = file.tensor(key) else {
            return Ok(None);
        };
        let [rows, columns] = view.shape() else {
            return Err(self.wrong(format!(
                "`{key}` has shape {:?}, wanted two dimensions: rows and positions",
                view.shape()
            )));
        };
        let values: Vec<i64> = match view.dtype() {
            Dtype::I64 => numbers(view.data(), i64::from_le_bytes),
            Dtype::I32 => numbers(view.data(), |b| i64::from(i32::from_le_bytes(b))),
            Dtype::U32 => numbers(view.data(), |b| i64::from(u32::from_le_bytes(b))),
            Dtype::U8 | Dtype::BOOL => view.data().iter().map(|b| i64::from(*b)).collect(),
            other => {
                return Err(self.wrong(format!(
                    "`{key}` has dtype {other:?}, wanted whole numbers (I64 or I32)"
                )));
            }
        };
        if *rows == 0 || *columns == 0 {
            return Err(self.wrong(format!("`{key}` is empty")));
        }
        Ok(Some(values.chunks(*columns).map(<[i64]>::to_vec).collect()))
    }

    /// As [`whole`](Self::whole), for a key that must be there.
    ///
    /// # Errors
    /// The same, and a missing key.
    pub(crate) fn wanted_whole(&self, key: &str) -> anyhow::Result<Vec<Vec<i64>>> {
        self.whole(key)?.ok_or_else(|| self.missing(key))
    }

    /// Numbers under `key`, which must have `D` dimensions.
    ///
    /// # Errors
    /// A missing key, another rank or dtype.
    pub(crate) fn numbers<const D: usize>(
        &self,
        key: &str,
        meaning: &str,
        device: &Device,
    ) -> anyhow::Result<Tensor<D>> {
        if self.file()?.tensor(key).is_err() {
            return Err(self.missing(key));
        }
        let NamedTensor { shape, values } = self.floats(key)?;
        if shape.len() != D || values.is_empty() {
            return Err(self.wrong(format!("`{key}` has shape {shape:?}, wanted {meaning}")));
        }
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    fn floats(&self, key: &str) -> anyhow::Result<NamedTensor> {
        let file = self.file()?;
        let view = file.tensor(key).map_err(|_| self.missing(key))?;
        let values = match view.dtype() {
            Dtype::F32 => numbers(view.data(), f32::from_le_bytes),
            other => {
                return Err(self.wrong(format!("`{key}` has dtype {other:?}, wanted F32")));
            }
        };
        let shape = view.shape().to_vec();
        Ok(NamedTensor { shape, values })
    }

    fn missing(&self, key: &str) -> anyhow::Error {
        let names = self.file().map(|file| file.names().join(", "));
        self.wrong(format!(
            "no `{key}`, which this model reads; the file has {}",
            names.unwrap_or_default()
        ))
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}

/// `[B, L]` on a device.
pub(crate) fn whole_tensor(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

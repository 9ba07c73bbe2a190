//! A decoder's folder with an adapter added into its weights, written tensor by tensor: at no time is more than one
//! of its tensors in memory.
//!
//! What is no weight is copied byte for byte, so that a tokenizer stays the one the decoder was trained with.

use std::fs;
use std::path::Path;

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use limbic_weights::{NamedTensor, Planned, Precision, ShardWriter, TensorDigest, WeightsError};
use serde_json::Value;

use crate::lora::lazy_zeros;
use crate::{Llama, LlamaConfig, LlamaError, LoraLinear, read_adapter};

/// Files that hold weights, or belong to some, by the end of their names.
const WEIGHT_FILES: [&str; 11] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
];

/// How a merged decoder is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeOptions {
    /// The precision of all tensors; each tensor's own if absent.
    pub precision: Option<Precision>,
    /// Bytes of tensors in a file, at most.
    pub max_shard_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeReport {
    /// Number of tensors.
    pub tensors: usize,
    /// How many of them an adapter was added into.
    pub adapted: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Writes the decoder in `base`, with the PEFT adapter in `adapter` added into its weights, into the folder `out`, which is there
/// and empty.
///
/// The sums are formed in F32 on `device` and rounded once, to the nearest and even.
///
/// # Errors
/// Unreadable files; a base whose tensors are not those of its `config.json`; an adapter that does not fit; a disk that cannot be
/// written.
pub fn write_merged(
    base: &Path,
    adapter: Option<&Path>,
    out: &Path,
    options: &MergeOptions,
    device: &Device,
) -> Result<MergeReport, LlamaError> {
    let config = LlamaConfig::read(&base.join("config.json"))?;
    // Its matrices are lazy: this takes memory for the adapter alone.
    let mut llama = config.init(device);
    let mut checkpoint = Llama::checkpoint(base, &config)?;
    let report = checkpoint.report(&llama);
    if !report.fits() {
        let detail = format!("{}: {}", base.display(), report.problems());
        return Err(WeightsError::Mismatch(detail).into());
    }
    let plan: Vec<Planned> = checkpoint
        .names()
        .map(|name| Planned {
            name: name.to_string(),
            shape: checkpoint.shape(name).unwrap_or_default().to_vec(),
            precision: options
                .precision
                .or(checkpoint.dtype(name).map(Precision::of))
                .unwrap_or(Precision::F32),
        })
        .collect();
    if let Some(adapter) = adapter {
        llama = read_adapter(llama, adapter)?;
    }

    let mut writer = ShardWriter::new(out, plan, options.max_shard_bytes);
    let mut report = MergeReport {
        tensors: 0,
        adapted: 0,
        bytes: writer.total_size(),
    };
    while let Some(planned) = writer.next() {
        let precision = planned.precision;
        let tensor = checkpoint.take(&planned.name)?;
        let values = match adapted(&mut llama, &planned.name) {
            Some(linear) => {
                report.adapted += 1;
                merge(linear, tensor, device)
            }
            None => tensor.values,
        };
        let overflows = |value: &&f32| value.is_finite() && !precision.round(**value).is_finite();
        if let Some(value) = values.iter().find(overflows) {
            return Err(LlamaError::Config(format!(
                "`{}` holds {value:e}, which is too large for {precision}; write bf16 or f32",
                planned.name
            )));
        }
        report.tensors += 1;
        writer.write(&values)?;
    }
    writer.finish()?;
    copy_other_files(base, out, options.precision)?;
    Ok(report)
}

/// SHA-256 over the tensors of the decoder in `folder` as F32, which is what [`limbic_weights::Weights::sha256`] gives of the loaded
/// decoder, with one tensor in memory at a time.
///
/// # Errors
/// Unreadable files.
pub fn decoder_digest(folder: &Path) -> Result<String, LlamaError> {
    let config = LlamaConfig::read(&folder.join("config.json"))?;
    let mut checkpoint = Llama::checkpoint(folder, &config)?;
    let names: Vec<String> = checkpoint.names().map(str::to_string).collect();
    let mut digest = TensorDigest::default();
    for name in names {
        let tensor = checkpoint.take(&name)?;
        digest.update(&name, &tensor.shape, &tensor.values);
    }
    Ok(digest.finish())
}

/// The layer whose weight this is, where it has an adapter.
fn adapted<'a>(llama: &'a mut Llama, tensor: &str) -> Option<&'a mut LoraLinear> {
    let layer = tensor.strip_suffix(".weight")?;
    llama
        .linears_mut()
        .into_iter()
        .find(|(name, linear)| name == layer && linear.is_adapted())
        .map(|(_, linear)| linear)
}

/// The weight with the layer's adapter added. The layer lets go of both.
fn merge(linear: &mut LoraLinear, weight: NamedTensor, device: &Device) -> Vec<f32> {
    let [output, input] = linear.weight.lazy_shape().dims();
    let weight = Tensor::from_data(TensorData::new(weight.values, weight.shape), device);
    linear.weight = Param::initialized(ParamId::new(), weight);
    linear.merge();
    let merged = linear.weight.val();
    linear.weight = lazy_zeros([output, input], device);
    merged
        .into_data()
        .convert_dtype(DType::F32)
        .try_into_vec()
        .expect("converted to F32 above")
}

/// Copies what is no weight. Where the precision changes, `config.json` says so, for readers load in the precision it names.
fn copy_other_files(
    base: &Path,
    out: &Path,
    precision: Option<Precision>,
) -> Result<(), LlamaError> {
    for entry in fs::read_dir(base).map_err(LlamaError::io(base))? {
        let path = entry.map_err(LlamaError::io(base))?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let text = name.to_string_lossy();
        let is_weight = WEIGHT_FILES.iter().any(|end| text.ends_with(end));
        if path.is_file() && !is_weight && !text.starts_with('.') {
            let target = out.join(name);
            fs::copy(&path, &target).map_err(LlamaError::io(&target))?;
        }
    }
    match precision {
        Some(precision) => name_precision(&out.join("config.json"), precision),
        None => Ok(()),
    }
}

fn name_precision(path: &Path, precision: Precision) -> Result<(), LlamaError> {
    let text = fs::read_to_string(path).map_err(LlamaError::io(path))?;
    let mut config: serde_json::Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| LlamaError::json(path, error))?;
    let wanted = Value::from(precision.torch_name());
    // The key's name up to transformers 4, and from 5 on.
    let key = if config.contains_key("dtype") {
        "dtype"
    } else {
        "torch_dtype"
    };
    if config.get(key) == Some(&wanted) {
        return Ok(());
    }
    config.insert(key.into(), wanted);
    crate::file::write_json(path, &config)
}

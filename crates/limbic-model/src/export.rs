//! An artifact made ready for others: copied, converted and, on request, merged into a decoder of its own.
//!
//! All of it works on files. The decoder, which may be far larger than memory, is read tensor by tensor where it is
//! merged, and not at all where the adapter is passed on alone.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_llama::{
    LoraConfig, MergeOptions, MergeReport, decoder_digest, read_adapter_config, rename_base,
    write_merged,
};
use limbic_weights::{MAX_SHARD_BYTES, Precision, Weights};

use crate::artifact::{ADAPTER, LLM, PROJECTOR, relative};
use crate::{ArtifactConfig, DecoderSource, ModelError, verify_directory, write_directory};

/// The folder of an export that holds the merged decoder.
pub(crate) const MERGED: &str = "merged";

/// What is exported, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether the decoder is written too, with the adapter added into it.
    pub merged: bool,
    /// Precision of the decoder and the adapter. If absent, the adapter is written in F32, and a merged decoder as its base is.
    pub precision: Option<Precision>,
    /// Bytes of tensors in a file of the merged decoder, at most.
    pub max_shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            merged: false,
            precision: None,
            max_shard_bytes: MAX_SHARD_BYTES,
        }
    }
}

/// What was exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The adapter's settings, where there is one.
    pub lora: Option<LoraConfig>,
    /// The folder of the decoder it belongs to.
    pub decoder: PathBuf,
    /// The merged decoder, where it was asked for.
    pub merged: Option<MergeReport>,
}

/// Exports the artifact in `from` as `target`, which appears whole or not at all.
///
/// # Errors
/// A damaged artifact; a decoder that is absent or, where it is merged, another one; nothing to merge; a disk that cannot be
/// written.
pub fn export(
    from: &Path,
    target: &Path,
    options: &ExportOptions,
    device: &Device,
) -> Result<Exported, ModelError> {
    verify_directory(from)?;
    let mut config = ArtifactConfig::read(from)?;
    let decoder = config.decoder_of(from)?;
    let adapter = Some(from.join(ADAPTER)).filter(|adapter| adapter.is_dir());
    if options.merged {
        if adapter.is_none() && config.decoder != DecoderSource::Own {
            return Err(ModelError::directory(
                from,
                format!(
                    "the run trained neither decoder nor adapter, so there is nothing to merge; its decoder is {}",
                    decoder.display()
                ),
            ));
        }
        config.check_decoder(from, &decoder, || Ok(decoder_digest(&decoder)?))?;
    }
    let mut merged = None;
    write_directory(target, |folder| -> Result<(), ModelError> {
        // Where readers will find the decoder: PEFT looks from the folder that Python runs in, as limbic does.
        let base = match &mut config.decoder {
            DecoderSource::Own => {
                copy_decoder(&decoder, &folder.join(LLM), options, device)?;
                target.join(LLM)
            }
            DecoderSource::Base { path, .. } => {
                *path = relative(&decoder, target)?;
                decoder.clone()
            }
        };
        if let Some(adapter) = &adapter {
            let card = config.card(&base);
            copy_adapter(adapter, &folder.join(ADAPTER), &base, card, options)?;
        }
        make(&folder.join("mm"))?;
        config.write(folder)?;
        copy(&from.join(PROJECTOR), &folder.join(PROJECTOR))?;
        if options.merged {
            let out = folder.join(MERGED);
            make(&out)?;
            let merge = MergeOptions {
                precision: options.precision,
                max_shard_bytes: options.max_shard_bytes,
            };
            let written = write_merged(&decoder, adapter.as_deref(), &out, &merge, device)?;
            merged = Some(written);
        }
        Ok(())
    })?;
    verify_directory(target)?;
    let lora = adapter.map(|adapter| read_adapter_config(&adapter.join("adapter_config.json")));
    Ok(Exported {
        lora: lora.transpose()?,
        decoder,
        merged,
    })
}

fn copy_decoder(
    from: &Path,
    to: &Path,
    options: &ExportOptions,
    device: &Device,
) -> Result<(), ModelError> {
    make(to)?;
    let options = MergeOptions {
        precision: Some(options.precision.unwrap_or(Precision::F32)),
        max_shard_bytes: u64::MAX,
    };
    write_merged(from, None, to, &options, device)?;
    Ok(())
}

fn copy_adapter(
    from: &Path,
    to: &Path,
    base: &Path,
    card: String,
    options: &ExportOptions,
) -> Result<(), ModelError> {
    make(to)?;
    let name = "adapter_config.json";
    rename_base(&from.join(name), &to.join(name), &base.to_string_lossy())?;
    let name = "adapter_model.safetensors";
    let precision = options.precision.unwrap_or(Precision::F32);
    Weights::read(&from.join(name))?.write_in(&to.join(name), precision)?;
    let path = to.join("README.md");
    fs::write(&path, card).map_err(ModelError::io(&path))
}

fn make(folder: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder))
}

fn copy(from: &Path, to: &Path) -> Result<(), ModelError> {
    fs::copy(from, to).map(drop).map_err(ModelError::io(from))
}

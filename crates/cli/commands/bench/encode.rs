use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, Crop, FrameSampler};
use limbic_encoders::{Encoder, EncoderConfig, Media, Modality};
use limbic_model::{ArtifactConfig, FORMAT, InputConfig};
use limbic_train::{CacheRecipe, FeatureReader, RunError};
use limbic_weights::CounterRng;
use rayon::prelude::*;
use serde_json::json;

use super::args::EncodeArgs;
use super::measure::{self, Times};

pub(crate) fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    let config = match &args.encoder {
        Some(path) => read(path)?,
        None => vit_large()?,
    };
    let device = measure::one_device(&args.run)?;
    if !args.files.is_empty() {
        return files(args, config, &device);
    }
    let encoder = config.init(&device)?;
    let count = args.batch.unwrap_or_else(rayon::current_num_threads);
    let clips: Vec<Noise> = (0..count as u64)
        .map(|number| Noise::new(&config, args, number))
        .collect::<anyhow::Result<_>>()?;
    let (times, lengths) = measure::repeat(args.run.warmup, args.run.steps, || {
        let lengths = clips.par_iter().map(|clip| clip.encode(&encoder));
        lengths.sum::<anyhow::Result<usize>>()
    })?;
    let features = lengths.last().copied().unwrap_or_default();
    let figures = json!({
        "samples_per_s": measure::rounded(count as f64 / times.median()),
        "features_per_sample": features / count,
        "feature_dim": config.feature_dim(),
        "peak_device_mib": measure::peak_device_mib(&[device]),
    });
    measure::print("encode", args, &times, "run", figures)
}

/// Reads and encodes files, without the feature cache and then with a full one, as a later run finds it.
fn files(args: &EncodeArgs, encoder: EncoderConfig, device: &Device) -> anyhow::Result<()> {
    let is_video = encoder.modality() == Modality::Video;
    let config = artifact(&InputConfig {
        name: "media".into(),
        placeholder: "<media>".into(),
        encoder,
        projector: None,
        frames: is_video.then_some(FrameSampler::Uniform { count: args.frames }),
        crop: is_video.then_some(Crop::Squash),
    })?;
    let clips: Vec<Clip> = args.files.iter().map(|path| clip(path)).collect();
    let clips: Vec<&Clip> = clips.iter().collect();
    let read = |reader: &Arc<FeatureReader>| -> anyhow::Result<()> {
        let (encoded, _) = reader.read_all(&clips, 0.0, &|_| (), &AtomicBool::new(false))?;
        match encoded.iter().find(|clip| clip.features[0].is_none()) {
            None => Ok(()),
            Some(empty) => Err(RunError::Data(format!(
                "{} has nothing that the encoder reads; leave it out",
                empty.clip.id
            ))
            .into()),
        }
    };
    let folder = tempfile::tempdir()?;
    let on = CacheRecipe {
        directory: folder.path().to_path_buf(),
        ..CacheRecipe::default()
    };
    let off = CacheRecipe {
        enabled: false,
        ..on.clone()
    };
    let (warmup, steps) = (args.run.warmup, args.run.steps);
    let encoding = FeatureReader::new(&config, device, &off)?;
    // Builds the encoder, which no pass does again.
    read(&encoding)?;
    let (encoding, _) = measure::repeat(warmup, steps, || read(&encoding))?;
    read(&FeatureReader::new(&config, device, &on)?)?;
    let (cached, _) = measure::repeat(warmup, steps, || {
        read(&FeatureReader::new(&config, device, &on)?)
    })?;
    let per_second = |times: &Times| clips.len() as f64 / times.median();
    let figures = json!({
        "samples_per_s": measure::rounded(per_second(&encoding)),
        "cached_samples_per_s": measure::rounded(per_second(&cached)),
        "cache_gain": measure::rounded(encoding.median() / cached.median()),
        "feature_dim": config.inputs[0].encoder.feature_dim(),
        "peak_device_mib": measure::peak_device_mib(std::slice::from_ref(device)),
    });
    measure::print("encode", args, &encoding, "run", figures)
}

/// A file whose pictures or sound are read.
fn clip(path: &Path) -> Clip {
    Clip {
        id: path.display().to_string(),
        video: Some(path.to_path_buf()),
        ..Clip::default()
    }
}

/// A model that perceives `input` alone.
fn artifact(input: &InputConfig) -> anyhow::Result<ArtifactConfig> {
    Ok(serde_json::from_value(json!({
        "format": FORMAT, "run": "bench", "decoder": "own", "inputs": [input], "transcript": false,
        "prompt": { "template": ["{instruction}"], "instructions": {} }, "labels": null, "head": null,
    }))?)
}

fn read(path: &Path) -> anyhow::Result<EncoderConfig> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let text = text.map_err(|error| RunError::recipe(format!("{error:#}")))?;
    serde_yaml::from_str(&text)
        .map_err(|error| RunError::recipe(format!("{}: {error}", path.display())))
}

/// The sizes of ViT-L/14 at 224 pixels (Dosovitskiy et al. 2021), its weights drawn.
fn vit_large() -> anyhow::Result<EncoderConfig> {
    Ok(serde_json::from_value(json!({
        "kind": "vit", "image_size": 224, "patch_size": 14, "dim": 1024, "depth": 24, "heads": 16,
        "class_token": true, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "seed": 0,
    }))?)
}

/// A clip that nobody has seen or heard.
enum Noise {
    Frames {
        data: Vec<u8>,
        count: usize,
        size: usize,
    },
    Waveform {
        samples: Vec<f32>,
        sample_rate: u32,
    },
}

impl Noise {
    fn new(config: &EncoderConfig, args: &EncodeArgs, number: u64) -> anyhow::Result<Self> {
        let rng = CounterRng::new(number);
        match (config.modality(), config.image_size(), config.sample_rate()) {
            (Modality::Video, Some(size), _) => Ok(Self::Frames {
                data: (0..(args.frames * size * size * 3) as u64)
                    .map(|index| rng.bits(index) as u8)
                    .collect(),
                count: args.frames,
                size,
            }),
            (Modality::Audio, _, Some(sample_rate)) => Ok(Self::Waveform {
                samples: (0..(args.seconds * f64::from(sample_rate)) as u64)
                    .map(|index| rng.uniform(index) as f32 - 0.5)
                    .collect(),
                sample_rate,
            }),
            (modality, ..) => anyhow::bail!("an encoder of {modality} without a size or a rate"),
        }
    }

    /// How many features it has. It has no file that could be damaged: what does not go is its length.
    fn encode(&self, encoder: &Encoder) -> anyhow::Result<usize> {
        let media = match self {
            Self::Frames { data, count, size } => Media::Frames {
                data,
                count: *count,
                size: *size,
            },
            Self::Waveform {
                samples,
                sample_rate,
            } => Media::Waveform {
                samples,
                sample_rate: *sample_rate,
            },
        };
        let features = encoder.encode(&media);
        let features = features.map_err(|error| {
            RunError::recipe(format!("noise of --frames and --seconds: {error}"))
        })?;
        Ok(features.length)
    }
}

use std::path::Path;

use anyhow::Context;
use limbic_encoders::{Encoder, EncoderConfig, Media, Modality};
use limbic_train::RunError;
use limbic_weights::CounterRng;
use rayon::prelude::*;
use serde_json::json;

use super::args::EncodeArgs;
use super::measure;

pub(crate) fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    let config = match &args.encoder {
        Some(path) => read(path)?,
        None => vit_large()?,
    };
    let device = measure::one_device(&args.run)?;
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

    /// How many features it has.
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
        Ok(encoder.encode(&media)?.length)
    }
}

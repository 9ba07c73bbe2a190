//! Encode once: encoders are frozen and nothing is augmented, so a clip's features are a function of clip and config.
//! They are made before the first step, by all cores, and kept in memory.
//!
//! A clip whose media are damaged is quarantined with its reason, never swapped for another and never zeros; more
//! of them than `data.max_bad` end the run. A clip that lacks a medium goes on without it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, DataError, Reason, read_frames, read_waveform};
use limbic_encoders::{Encoder, Features, InputLength, Media, Modality};
use limbic_model::{ArtifactConfig, FusedConfig, InputConfig};
use rayon::prelude::*;
use serde::Serialize;

use crate::RunError;

/// A clip with its features, one entry an input.
#[derive(Debug, Clone)]
pub struct EncodedClip {
    /// The clip.
    pub clip: Clip,
    /// `None` where the clip lacks the medium. Inputs that read the same have the same.
    pub features: Vec<Option<Arc<Features>>>,
}

/// A clip that cannot be used, as a line of `quarantine.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The clip.
    pub id: String,
    /// The kind of damage.
    pub reason: Reason,
    /// What was got and wanted.
    pub detail: String,
}

/// Reads and encodes media of clips.
#[derive(Debug)]
pub struct FeatureReader {
    inputs: Vec<InputConfig>,
    fusions: Vec<FusedConfig>,
    /// One for each description of an encoder, however many inputs have it.
    encoders: Vec<Encoder>,
    /// For each input the number of its encoder.
    encoder_of: Vec<usize>,
}

impl FeatureReader {
    /// Builds the encoders of the inputs of `config` on `device`.
    ///
    /// # Errors
    /// An encoder that cannot be built, with its input.
    pub fn new(config: &ArtifactConfig, device: &Device) -> anyhow::Result<Self> {
        let inputs = config.inputs.clone();
        let mut encoders = Vec::new();
        let mut encoder_of: Vec<usize> = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let mut before = inputs[..index].iter();
            encoder_of.push(
                match before.position(|other| other.encoder == input.encoder) {
                    Some(other) => encoder_of[other],
                    None => {
                        let encoder = input.encoder.init(device);
                        encoders.push(
                            encoder
                                .with_context(|| format!("encoder of input `{}`", input.name))?,
                        );
                        encoders.len() - 1
                    }
                },
            );
        }
        Ok(Self {
            inputs,
            fusions: config.fusions.clone(),
            encoders,
            encoder_of,
        })
    }

    /// Features of one clip.
    ///
    /// # Errors
    /// Why the clip is unusable, or an input whose projector or fusion cannot take so long a clip.
    pub fn read(&self, clip: &Clip) -> Result<EncodedClip, Quarantined> {
        let quarantined = |(reason, detail)| Quarantined {
            id: clip.id.clone(),
            reason,
            detail,
        };
        let mut features: Vec<Option<Arc<Features>>> = Vec::with_capacity(self.inputs.len());
        for (index, input) in self.inputs.iter().enumerate() {
            let reads_the_same = |other: &InputConfig| {
                (&other.encoder, other.frames, other.crop)
                    == (&input.encoder, input.frames, input.crop)
            };
            let of_input = match self.inputs[..index].iter().position(reads_the_same) {
                Some(other) => features[other].clone(),
                None => read_input(clip, input, &self.encoders[self.encoder_of[index]])
                    .map_err(quarantined)?
                    .map(Arc::new),
            };
            if let Some(features) = &of_input {
                check_length(input, features).map_err(quarantined)?;
            }
            features.push(of_input);
        }
        for fused in &self.fusions {
            self.check_fusion(fused, &features).map_err(quarantined)?;
        }
        Ok(EncodedClip {
            clip: clip.clone(),
            features,
        })
    }

    /// Refuses sources that are together longer than a fusion takes.
    fn check_fusion(
        &self,
        fused: &FusedConfig,
        features: &[Option<Arc<Features>>],
    ) -> Result<(), (Reason, String)> {
        let lengths = self
            .inputs
            .iter()
            .zip(features)
            .filter(|(input, _)| fused.sources.contains(&input.name))
            .map(|(_, features)| Some(features.as_ref()?.length));
        // Without one of them there is no fusion.
        let Some(length) = lengths.sum::<Option<usize>>() else {
            return Ok(());
        };
        match fused.fusion.max_length() {
            Some(longest) if length > longest => Err((
                Reason::TooLong,
                format!(
                    "{length} features for fusion `{}`, which takes {longest} of all its sources together; \
                     raise its `positions` or shorten the clip",
                    fused.name
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Features of all `clips`, in their order, and the clips that are unusable. `progress` gets the number done; nothing
    /// more is read once `stop` is set.
    ///
    /// # Errors
    /// [`RunError::Stopped`]; [`RunError::Data`] when more than the share `max_bad` is unusable, with the first few reasons.
    pub fn read_all(
        &self,
        clips: &[&Clip],
        max_bad: f64,
        progress: &(dyn Fn(usize) + Sync),
        stop: &AtomicBool,
    ) -> anyhow::Result<(Vec<EncodedClip>, Vec<Quarantined>)> {
        let done = AtomicUsize::new(0);
        let results: Option<Vec<Result<EncodedClip, Quarantined>>> = clips
            .par_iter()
            .map(|clip| {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let result = self.read(clip);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                Some(result)
            })
            .collect();
        let results = results.ok_or(RunError::Stopped)?;
        let (mut encoded, mut bad) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(clip) => encoded.push(clip),
                Err(clip) => bad.push(clip),
            }
        }
        if bad.len() as f64 > max_bad * clips.len() as f64 {
            let shown: Vec<String> = bad
                .iter()
                .take(5)
                .map(|clip| format!("  {} ({}): {}", clip.id, clip.reason, clip.detail))
                .collect();
            return Err(RunError::Data(format!(
                "{} of {} clips are unusable, and a share of {max_bad} may be (`data.max_bad` of a recipe, `--max-bad` of eval); \
                 repair or remove them, or raise it:\n{}",
                bad.len(),
                clips.len(),
                shown.join("\n")
            ))
            .into());
        }
        Ok((encoded, bad))
    }
}

fn read_input(
    clip: &Clip,
    input: &InputConfig,
    encoder: &Encoder,
) -> Result<Option<Features>, (Reason, String)> {
    let refused = |error: DataError| match error {
        DataError::Media {
            reason,
            detail,
            path,
        } => (reason, format!("{}: {detail}", path.display())),
        other => (Reason::Decode, other.to_string()),
    };
    let encode = |media: &Media, path: &Path| {
        encoder
            .encode(media)
            .map(Some)
            .map_err(|error| (Reason::Decode, format!("{}: {error}", path.display())))
    };
    Ok(match input.encoder.modality() {
        Modality::Video => {
            let (Some(path), Some(size)) = (&clip.video, input.encoder.image_size()) else {
                return Ok(None);
            };
            let (sampler, crop) = input
                .frames
                .zip(input.crop)
                .expect("an input that reads video was checked to have frames and crop");
            match read_frames(path, clip.span(), &sampler, size, &crop).map_err(refused)? {
                None => None,
                Some(frames) => encode(
                    &Media::Frames {
                        data: &frames.data,
                        count: frames.count,
                        size: frames.size,
                    },
                    path,
                )?,
            }
        }
        Modality::Audio => {
            let (Some(path), Some(rate)) = (clip.sound(), input.encoder.sample_rate()) else {
                return Ok(None);
            };
            match read_waveform(path, clip.span(), rate).map_err(refused)? {
                None => None,
                Some(waveform) => encode(
                    &Media::Waveform {
                        samples: &waveform.samples,
                        sample_rate: waveform.sample_rate,
                    },
                    path,
                )?,
            }
        }
    })
}

fn check_length(input: &InputConfig, features: &Features) -> Result<(), (Reason, String)> {
    let Some(projector) = &input.projector else {
        return Ok(());
    };
    let (accepts, got) = (projector.accepts(), features.length);
    if accepts.allows(got) {
        return Ok(());
    }
    let (reason, fix) = match accepts {
        InputLength::AtMost(_) => (
            Reason::TooLong,
            "raise its `max_length` (or `positions`) or shorten the clip",
        ),
        _ => (
            Reason::WrongLength,
            "make projector, encoder and `frames` agree",
        ),
    };
    let problem = format!(
        "{got} features for input `{}`, whose projector takes {accepts}; {fix}",
        input.name
    );
    Err((reason, problem))
}

/// Mean and deviation of each feature dimension over all clips, the deviation floored so that it can divide.
pub(crate) fn statistics(clips: &[EncodedClip], input: usize) -> Option<(Vec<f32>, Vec<f32>)> {
    const SMALLEST: f64 = 1e-5;
    let all: Vec<&Features> = clips
        .iter()
        .filter_map(|clip| clip.features[input].as_deref())
        .collect();
    let dim = all.first()?.dim;
    let count: usize = all.iter().map(|features| features.length).sum();
    let mut sum = vec![0.0f64; dim];
    let mut squares = vec![0.0f64; dim];
    for row in all
        .iter()
        .flat_map(|features| features.data.chunks_exact(dim))
    {
        for (d, value) in row.iter().enumerate() {
            sum[d] += f64::from(*value);
            squares[d] += f64::from(*value) * f64::from(*value);
        }
    }
    let mean: Vec<f64> = sum.iter().map(|sum| sum / count as f64).collect();
    let std = squares
        .iter()
        .zip(&mean)
        .map(|(squares, mean)| {
            (squares / count as f64 - mean * mean)
                .max(0.0)
                .sqrt()
                .max(SMALLEST) as f32
        })
        .collect();
    Some((mean.iter().map(|mean| *mean as f32).collect(), std))
}

//! What an encoder is shown of a clip, and what the result is a function of.

use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use burn::tensor::Device;
use limbic_data::{
    Clip, Crop, DataError, FrameSampler, Frames, Reason, Waveform, ffmpeg, read_frames,
    read_waveform,
};
use limbic_encoders::{Encoder, EncoderConfig, Features, Media, Modality};
use limbic_model::InputConfig;
use limbic_weights::hex_digest;
use serde_json::json;

use crate::file_digest::{FileDigests, FileState};

/// Raised whenever decoding or an encoder comes to give other values for the same clip and config, so that features of
/// before are not found. A release has a version of its own in the key; this parts the builds between two releases.
const REVISION: u32 = 2;

/// Why a clip is unusable: kind and details.
pub(crate) type Refusal = (Reason, String);

/// One way to perceive clips; inputs that perceive alike share it.
#[derive(Debug)]
pub(crate) struct Perception {
    /// The first input that has it, for errors.
    pub(crate) input: String,
    /// Number of its encoder.
    pub(crate) encoder: usize,
    config: EncoderConfig,
    frames: Option<FrameSampler>,
    crop: Option<Crop>,
    /// Digest of all that features are a function of but the clip; `None` without a cache.
    digest: Option<String>,
}

/// An encoder that is built when it is first needed.
#[derive(Debug)]
pub(crate) struct LateEncoder {
    config: EncoderConfig,
    built: OnceLock<Encoder>,
    /// Held while it is built: it may be too large to be there twice.
    building: Mutex<()>,
}

/// What features of a clip are made of.
#[derive(Debug, Clone)]
pub(crate) struct FeatureKey {
    /// Where they lie in the cache, a SHA-256 in hex; `None` without a cache.
    pub(crate) key: Option<String>,
    /// The media file as it was when that was found out.
    state: FileState,
}

/// A decoded medium.
pub(crate) enum Decoded {
    Frames(Frames),
    Waveform(Waveform),
}

impl LateEncoder {
    pub(crate) fn new(config: &EncoderConfig) -> Self {
        Self {
            config: config.clone(),
            built: OnceLock::new(),
            building: Mutex::default(),
        }
    }

    /// Whether `config` describes it.
    pub(crate) fn is_of(&self, config: &EncoderConfig) -> bool {
        self.config == *config
    }

    /// The encoder, if it was needed.
    pub(crate) fn built(&self) -> Option<&Encoder> {
        self.built.get()
    }

    /// Builds it, if that was not done before. Not to be called where several threads of one pool may wait for it: the one
    /// that builds may be waiting for them.
    ///
    /// # Errors
    /// What stands in the way, beyond what [`EncoderConfig::check`] knows; weights of which `are_same` says afterwards
    /// that they are others than before.
    pub(crate) fn build(
        &self,
        device: &Device,
        are_same: impl FnOnce() -> io::Result<bool>,
    ) -> anyhow::Result<()> {
        let _alone = self.building.lock();
        if self.built.get().is_some() {
            return Ok(());
        }
        let encoder = self.config.init(device)?;
        anyhow::ensure!(
            are_same()?,
            "its weights are not those that were hashed when the run began; start again"
        );
        self.built.get_or_init(|| encoder);
        Ok(())
    }
}

impl Perception {
    pub(crate) fn new(input: &InputConfig, encoder: usize) -> Self {
        Self {
            input: input.name.clone(),
            encoder,
            config: input.encoder.clone(),
            frames: input.frames,
            crop: input.crop,
            digest: None,
        }
    }

    /// Whether `input` perceives like this.
    pub(crate) fn is_of(&self, input: &InputConfig) -> bool {
        (&self.config, self.frames, self.crop) == (&input.encoder, input.frames, input.crop)
    }

    /// Hashes the encoder's files, so that features can be told from those of others.
    ///
    /// # Errors
    /// A file that cannot be read, by name.
    pub(crate) fn identify(&mut self, digests: &FileDigests, device: &Device) -> io::Result<()> {
        self.digest = Some(self.identity(digests, device)?);
        Ok(())
    }

    /// Whether the encoder's files are still those that were hashed.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn is_same(&self, digests: &FileDigests, device: &Device) -> io::Result<bool> {
        Ok(self.digest == Some(self.identity(digests, device)?))
    }

    fn identity(&self, digests: &FileDigests, device: &Device) -> io::Result<String> {
        let mut encoder = self.config.clone();
        for path in encoder.sources() {
            let digest = digests.of_file_or_folder(path).map_err(|error| {
                io::Error::new(error.kind(), format!("weights {}: {error}", path.display()))
            })?;
            *path = digest.into();
        }
        // Devices of one kind count as alike, though those with other instructions round otherwise.
        let mut backend = format!("{device:?}");
        backend.retain(|c| !c.is_ascii_digit());
        let description = json!({
            "limbic": env!("CARGO_PKG_VERSION"),
            "revision": REVISION,
            "backend": backend,
            "machine": std::env::consts::ARCH,
            "ffmpeg": ffmpeg::library_versions(),
            "encoder": encoder,
            "frames": self.frames,
            "crop": self.crop,
        });
        Ok(hex_digest(description.to_string().as_bytes()))
    }

    /// The file of `clip` that is looked at or listened to.
    pub(crate) fn media<'a>(&self, clip: &'a Clip) -> Option<&'a Path> {
        match self.config.modality() {
            Modality::Video => clip.video.as_deref(),
            Modality::Audio => clip.sound().map(|path| path.as_path()),
        }
    }

    /// What features of `clip` would be made of, hashed with `digests` where there is a cache. `None` without the medium,
    /// and for a file that cannot be read, which decoding it will tell.
    pub(crate) fn key(&self, clip: &Clip, digests: Option<&FileDigests>) -> Option<FeatureKey> {
        let path = self.media(clip)?;
        let Some((digest, digests)) = self.digest.as_ref().zip(digests) else {
            let state = FileState::of(path).ok()?;
            return Some(FeatureKey { key: None, state });
        };
        let (media, state) = digests.of_file(path).ok()?;
        // Which decoder reads a file, and so whether it can be read, depends on it.
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        let span = clip.span();
        let moment = |seconds: f64| format!("{:016x}", seconds.to_bits());
        let (start, end) = (moment(span.start), span.end.map_or("end".into(), moment));
        let description = format!("{digest} {media} {ending:?} {start} {end}");
        Some(FeatureKey {
            key: Some(hex_digest(description.as_bytes())),
            state,
        })
    }

    /// The medium of `clip`; `None` where it has none.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub(crate) fn decode(&self, clip: &Clip) -> Result<Option<Decoded>, Refusal> {
        let Some(path) = self.media(clip) else {
            return Ok(None);
        };
        let refused = |error: DataError| match error {
            DataError::Media {
                reason,
                detail,
                path,
            } => (reason, format!("{}: {detail}", path.display())),
            other => (Reason::Decode, other.to_string()),
        };
        match (self.config.image_size(), self.config.sample_rate()) {
            (Some(size), _) => {
                let (sampler, crop) = self
                    .frames
                    .zip(self.crop)
                    .expect("an input that reads video was checked to have frames and crop");
                let frames = read_frames(path, clip.span(), &sampler, size, &crop);
                Ok(frames.map_err(refused)?.map(Decoded::Frames))
            }
            (None, Some(rate)) => {
                let waveform = read_waveform(path, clip.span(), rate);
                Ok(waveform.map_err(refused)?.map(Decoded::Waveform))
            }
            (None, None) => unreachable!("an encoder reads frames of a size or sound of a rate"),
        }
    }

    /// What `encoder` makes of the medium of `clip`.
    ///
    /// # Errors
    /// Why the medium cannot be encoded.
    pub(crate) fn encode(
        &self,
        clip: &Clip,
        medium: &Decoded,
        encoder: &Encoder,
    ) -> Result<Features, Refusal> {
        let encoded = encoder.encode(&match medium {
            Decoded::Frames(frames) => Media::Frames {
                data: &frames.data,
                count: frames.count,
                size: frames.size,
            },
            Decoded::Waveform(waveform) => Media::Waveform {
                samples: &waveform.samples,
                sample_rate: waveform.sample_rate,
            },
        });
        encoded.map_err(|error| {
            let path = self.media(clip).unwrap_or(Path::new(""));
            (Reason::Decode, format!("{}: {error}", path.display()))
        })
    }
}

impl FeatureKey {
    /// Whether features made of `other` are those made of this: of the same bytes, or without a cache of a file that
    /// nobody has written to.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        match (&self.key, &other.key) {
            (Some(key), Some(other)) => key == other,
            _ => self.state == other.state,
        }
    }

    /// Whether the media file is still the one that was hashed.
    pub(crate) fn still_holds(&self, path: &Path) -> bool {
        FileState::of(path).is_ok_and(|state| state == self.state)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn input(encoder: Value) -> InputConfig {
        serde_json::from_value(json!({ "name": "a", "placeholder": "<a>", "encoder": encoder }))
            .unwrap()
    }

    #[test]
    fn weights_that_are_replaced_after_the_start_build_no_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let device = Device::flex();
        let digests = FileDigests::new(folder.path().join("digests"));
        let encoder = json!({
            "kind": "audio_transformer", "weights": path, "dim": 8, "depth": 1, "heads": 2, "intermediate": 8,
            "front_end": {"mel": {"n_mels": 8}},
        });
        let mut perception = Perception::new(&input(encoder), 0);
        std::fs::write(&path, b"first").unwrap();
        perception.identify(&digests, &device).unwrap();
        assert!(perception.is_same(&digests, &device).unwrap());
        std::fs::write(&path, b"other").unwrap();
        assert!(!perception.is_same(&digests, &device).unwrap());

        let drawn = input(json!({"kind": "log_mel", "mel": {"n_mels": 4}}));
        let late = LateEncoder::new(&drawn.encoder);
        let refused = late.build(&device, || Ok(false)).unwrap_err();
        assert!(refused.to_string().contains("start again"), "{refused}");
        assert!(late.built().is_none());
        late.build(&device, || Ok(true)).unwrap();
        late.build(&device, || Ok(false)).expect("it is asked once");
        assert!(late.built().is_some());
    }
}

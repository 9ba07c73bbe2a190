//! What an encoder is shown of a clip, and what the result is a function of.

use std::io;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use burn::tensor::Device;
use limbic_data::{
    Clip, Crop, DataError, FrameSampler, Frames, Reason, Waveform, read_frames, read_waveform,
};
use limbic_encoders::{Encoder, EncoderConfig, EncoderError, Features, Media, Modality};
use limbic_model::InputConfig;
use limbic_weights::hex_digest;
use serde_json::json;

use crate::file_digest::{FileDigests, FileState};

/// Raised whenever decoding or an encoder comes to give other values for the same clip and config, so that features of
/// before are not found. The version of the program is part of the key too, so this matters between releases.
const REVISION: u32 = 1;

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

/// Where the features of a clip lie in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeatureKey {
    /// SHA-256 in hex.
    pub(crate) key: String,
    /// The media file as it was when it was hashed.
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
    /// What stands in the way, beyond what [`EncoderConfig::check`] knows.
    pub(crate) fn build(&self, device: &Device) -> Result<&Encoder, EncoderError> {
        let _alone = self.building.lock();
        if let Some(encoder) = self.built.get() {
            return Ok(encoder);
        }
        let encoder = self.config.init(device)?;
        Ok(self.built.get_or_init(|| encoder))
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
        let mut encoder = self.config.clone();
        for path in encoder.sources() {
            let digest = digests.of_file_or_folder(path).map_err(|error| {
                io::Error::new(error.kind(), format!("weights {}: {error}", path.display()))
            })?;
            *path = digest.into();
        }
        // Devices of one kind round alike.
        let mut backend = format!("{device:?}");
        backend.retain(|c| !c.is_ascii_digit());
        let description = json!({
            "limbic": env!("CARGO_PKG_VERSION"),
            "revision": REVISION,
            "backend": backend,
            "machine": std::env::consts::ARCH,
            "encoder": encoder,
            "frames": self.frames,
            "crop": self.crop,
        });
        self.digest = Some(hex_digest(description.to_string().as_bytes()));
        Ok(())
    }

    /// The file of `clip` that is looked at or listened to.
    pub(crate) fn media<'a>(&self, clip: &'a Clip) -> Option<&'a Path> {
        match self.config.modality() {
            Modality::Video => clip.video.as_deref(),
            Modality::Audio => clip.sound().map(|path| path.as_path()),
        }
    }

    /// Where the features of `clip` would lie. `None` without a cache, without the medium, and for a file that cannot be
    /// read, which decoding it will tell.
    pub(crate) fn key(&self, clip: &Clip, digests: &FileDigests) -> Option<FeatureKey> {
        let digest = self.digest.as_ref()?;
        let (media, state) = digests.of_file(self.media(clip)?).ok()?;
        let span = clip.span();
        let moment = |seconds: f64| format!("{:016x}", seconds.to_bits());
        let (start, end) = (moment(span.start), span.end.map_or("end".into(), moment));
        Some(FeatureKey {
            key: hex_digest(format!("{digest} {media} {start} {end}").as_bytes()),
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
    /// Whether the media file is still the one that was hashed.
    pub(crate) fn still_holds(&self, path: &Path) -> bool {
        FileState::of(path).is_ok_and(|state| state == self.state)
    }
}

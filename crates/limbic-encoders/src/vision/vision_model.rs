//! The closed set of vision encoders.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use limbic_weights::Checkpoint;

use super::kind::{CheckpointFile, VisionKind, VisionSizes};
use super::model_config::{parse, vision_part};
use super::{
    Clip, ClipConfig, Dinov2, Dinov2Config, Eva, EvaConfig, ImageProcessor, Mae, MaeConfig,
    Picture, Siglip, SiglipConfig, VideoMae, VideoMaeConfig, weights_error,
};
use crate::folder::{read, refuse};
use crate::{EncoderError, HiddenStates, Keep};

/// What a vision encoder reads.
#[derive(Debug, Clone)]
pub enum PixelValues {
    /// `[B, 3, H, W]`
    Pictures(Tensor<4>),
    /// `[B, T, 3, H, W]`
    Videos(Tensor<5>),
}

impl PixelValues {
    fn dims(&self) -> Vec<usize> {
        match self {
            Self::Pictures(values) => values.dims().to_vec(),
            Self::Videos(values) => values.dims().to_vec(),
        }
    }
}

/// A pretrained vision encoder with its preprocessing.
#[derive(Debug, Clone)]
pub struct VisionModel {
    network: VisionNetwork,
    processor: Option<ImageProcessor>,
    sizes: VisionSizes,
    device: Device,
}

/// The closed set of architectures.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "built once a run: a box would save nothing"
)]
pub enum VisionNetwork {
    /// CLIP's vision tower.
    Clip(Clip),
    /// EVA-CLIP's vision transformer, as BLIP-2 uses it.
    Eva(Eva),
    /// SigLIP's vision tower.
    Siglip(Siglip),
    /// DINOv2, with or without registers.
    Dinov2(Dinov2),
    /// A masked autoencoder's encoder.
    Mae(Mae),
    /// VideoMAE's encoder.
    VideoMae(VideoMae),
}

impl VisionModel {
    /// Reads a Hugging Face folder: the architecture is what `model_type` in its `config.json` says.
    ///
    /// # Errors
    /// A folder whose `config.json` is absent, damaged or of another architecture; weights that do not fit.
    pub fn read(path: &Path, device: &Device) -> Result<Self, EncoderError> {
        let file = path.join("config.json");
        let value = read(&file)?;
        let device = &device.clone().without_autodiff();
        let open = |kind| Checkpoint::open(path).map_err(weights_error(kind, path));
        let vision = &vision_part(&value);
        let (network, sizes) = match value["model_type"].as_str() {
            Some("clip" | "clip_vision_model") => {
                let mut config: ClipConfig = parse(vision, &file)?;
                let network = config.load(open("clip")?, device)?;
                (VisionNetwork::Clip(network), config.sizes())
            }
            Some("blip-2" | "blip_2_vision_model") => {
                let config: EvaConfig = parse(vision, &file)?;
                let network = config.load_blip2(open("eva_clip_g")?, device)?;
                let sizes = VisionSizes {
                    pooled_dim: Some(config.hidden_size),
                    ..config.sizes()
                };
                (VisionNetwork::Eva(network), sizes)
            }
            Some("siglip" | "siglip_vision_model") => {
                let config: SiglipConfig = parse(vision, &file)?;
                let network = config.load(open("siglip")?, device)?;
                (VisionNetwork::Siglip(network), config.sizes())
            }
            Some(kind @ ("dinov2" | "dinov2_with_registers")) => {
                let mut config: Dinov2Config = parse(&value, &file)?;
                config.num_register_tokens = match kind {
                    "dinov2" => None,
                    _ => Some(config.num_register_tokens.unwrap_or(4)),
                };
                let network = config.load(open("dinov2")?, device)?;
                (VisionNetwork::Dinov2(network), config.sizes())
            }
            Some("vit_mae") => {
                let config: MaeConfig = parse(&value, &file)?;
                let network = config.load_transformers(open("mae")?, device)?;
                (VisionNetwork::Mae(network), config.sizes())
            }
            Some("videomae") => {
                let mut config: VideoMaeConfig = parse(&value, &file)?;
                let network = config.load_transformers(open("videomae")?, device)?;
                (VisionNetwork::VideoMae(network), config.sizes())
            }
            other => {
                return Err(refuse(
                    &file,
                    format!(
                        "key `model_type`: got {}, wanted one of clip, clip_vision_model, blip-2, blip_2_vision_model, siglip, siglip_vision_model, dinov2, dinov2_with_registers, vit_mae, videomae",
                        other.map_or("nothing".into(), |other| format!("`{other}`"))
                    ),
                ));
            }
        };
        Ok(Self {
            network,
            processor: ImageProcessor::read(path)?,
            sizes,
            device: device.clone(),
        })
    }

    /// Reads a checkpoint file in its authors' layout. It has no preprocessing of its own.
    ///
    /// # Errors
    /// Weights that are absent or do not fit.
    pub fn read_file(
        file: CheckpointFile,
        path: &Path,
        device: &Device,
    ) -> Result<Self, EncoderError> {
        let device = &device.clone().without_autodiff();
        let open = |kind| Checkpoint::open(path).map_err(weights_error(kind, path));
        let (network, sizes) = match file {
            CheckpointFile::EvaClipG {
                image_size,
                ln_vision,
            } => {
                let config = EvaConfig {
                    image_size,
                    ln_vision,
                    ..EvaConfig::default()
                };
                let network = config.load(open("eva_clip_g")?, device)?;
                (VisionNetwork::Eva(network), config.sizes())
            }
            CheckpointFile::MaeLarge => {
                let config = MaeConfig::large();
                let network = config.load(open("mae")?, device)?;
                (VisionNetwork::Mae(network), config.sizes())
            }
            CheckpointFile::VideoMaeLarge => {
                let mut config = VideoMaeConfig::large();
                let network = config.load(open("videomae")?, device)?;
                (VisionNetwork::VideoMae(network), config.sizes())
            }
        };
        Ok(Self {
            network,
            processor: None,
            sizes,
            device: device.clone(),
        })
    }

    /// The network.
    pub fn network(&self) -> &VisionNetwork {
        &self.network
    }

    /// The architecture.
    pub fn kind(&self) -> VisionKind {
        match self.network {
            VisionNetwork::Clip(_) => VisionKind::Clip,
            VisionNetwork::Eva(_) => VisionKind::EvaClipG,
            VisionNetwork::Siglip(_) => VisionKind::Siglip,
            VisionNetwork::Dinov2(_) => VisionKind::Dinov2,
            VisionNetwork::Mae(_) => VisionKind::Mae,
            VisionNetwork::VideoMae(_) => VisionKind::Videomae,
        }
    }

    /// The preprocessing that the folder describes, where it does.
    pub fn processor(&self) -> Option<&ImageProcessor> {
        self.processor.as_ref()
    }

    /// The sizes.
    pub fn sizes(&self) -> VisionSizes {
        self.sizes
    }

    /// Whether it reads pictures of other sizes than the trained one, by interpolating its position embedding.
    pub fn interpolates(&self) -> bool {
        matches!(
            self.network,
            VisionNetwork::Eva(_) | VisionNetwork::Dinov2(_)
        )
    }

    /// Turns pictures of any size into what the model reads; for a model of video they are the frames of one clip.
    ///
    /// # Errors
    /// A folder without `preprocessor_config.json`; a damaged picture; pictures that come out at different sizes.
    pub fn preprocess(&self, pictures: &[Picture<'_>]) -> Result<PixelValues, EncoderError> {
        let processor = self.processor.as_ref().ok_or_else(|| {
            refuse(
                Path::new("preprocessor_config.json"),
                "absent from the model's folder; put it there, or give pixel values instead of pictures",
            )
        })?;
        let refused = |problem| {
            Err(EncoderError::Input {
                kind: self.kind().name(),
                problem,
            })
        };
        let Some(first) = pictures.first() else {
            return refused("got no picture, wanted at least one".into());
        };
        let [height, width] = processor.output_size(first.height, first.width);
        let mut values = Vec::with_capacity(pictures.len() * 3 * height * width);
        for picture in pictures {
            let [high, wide] = processor.output_size(picture.height, picture.width);
            if [high, wide] != [height, width] {
                return refused(format!(
                    "got a picture of {high} x {wide} after resizing, wanted {height} x {width} as the first one; give them one by one"
                ));
            }
            values.extend(processor.run(*picture)?);
        }
        Ok(self.pixel_values(values, [pictures.len(), 3, height, width]))
    }

    /// `values` of this shape, row-major, as what the model reads.
    pub(super) fn pixel_values(&self, values: Vec<f32>, shape: [usize; 4]) -> PixelValues {
        let pictures = Tensor::<4>::from_data(TensorData::new(values, shape), &self.device);
        match self.sizes.num_frames {
            None => PixelValues::Pictures(pictures),
            Some(_) => PixelValues::Videos(pictures.unsqueeze()),
        }
    }

    /// Runs the encoder.
    ///
    /// # Errors
    /// Pixel values of a shape it cannot read.
    pub fn forward(
        &self,
        pixel_values: PixelValues,
        keep: Keep,
    ) -> Result<HiddenStates, EncoderError> {
        let got = pixel_values.dims();
        let VisionSizes {
            image_size: side,
            patch_size: patch,
            num_frames,
            ..
        } = self.sizes;
        let fits = match (got.as_slice(), num_frames) {
            ([_, 3, height, width], None) => match self.interpolates() {
                true => *height >= patch && *width >= patch,
                false => [*height, *width] == [side, side],
            },
            ([_, frames, 3, height, width], Some(wanted)) => {
                [*frames, *height, *width] == [wanted, side, side]
            }
            _ => false,
        };
        match (&self.network, pixel_values) {
            (VisionNetwork::Clip(network), PixelValues::Pictures(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            (VisionNetwork::Eva(network), PixelValues::Pictures(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            (VisionNetwork::Siglip(network), PixelValues::Pictures(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            (VisionNetwork::Dinov2(network), PixelValues::Pictures(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            (VisionNetwork::Mae(network), PixelValues::Pictures(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            (VisionNetwork::VideoMae(network), PixelValues::Videos(x)) if fits => {
                Ok(network.forward(x, keep))
            }
            _ => {
                let wanted = match num_frames {
                    Some(frames) => format!("[clips, {frames}, 3, {side}, {side}]"),
                    None if self.interpolates() => {
                        format!("[pictures, 3, height, width] with sides of at least {patch}")
                    }
                    None => format!("[pictures, 3, {side}, {side}]"),
                };
                Err(EncoderError::Input {
                    kind: self.kind().name(),
                    problem: format!("got pixel values of shape {got:?}, wanted {wanted}"),
                })
            }
        }
    }
}

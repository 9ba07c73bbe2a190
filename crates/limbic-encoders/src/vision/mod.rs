//! Pretrained vision encoders: the architectures, their weights and their preprocessing.
//!
//! ```text
//! pictures u8 [h, w, 3] -> preprocess -> pixel values [B, 3, H, W] -> forward -> HiddenStates
//! ```
//!
//! A file holds one architecture, whose fields bear the names of its published checkpoints; [`VisionModel`] is the
//! closed set of them. They are held in F32 on a plain device.

mod clip;
mod image_processor;
mod layer;
mod model_config;
mod patch_embedding;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};

pub use clip::{Clip, ClipConfig};
pub use image_processor::{ImageProcessor, Normalisation, Picture};
pub use layer::Activation;

use crate::{EncoderError, HiddenStates, Keep};
use model_config::{parse, read_json, refuse, vision_part};

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
}

/// Sizes of a vision encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionSizes {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Side of a picture in pixels, as the model was trained.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches of a picture of `image_size`, or tubelets of a clip.
    pub num_patches: usize,
    /// Tokens before the patches: class and register tokens.
    pub extra_tokens: usize,
    /// Width of the pooled output, where there is one.
    pub pooled_dim: Option<usize>,
    /// Frames of a clip, for models of video.
    pub num_frames: Option<usize>,
}

impl VisionModel {
    /// Reads a Hugging Face folder: the architecture is what `model_type` in its `config.json` says.
    ///
    /// # Errors
    /// A folder whose `config.json` is absent, damaged or of another architecture; weights that do not fit.
    pub fn read(path: &Path, device: &Device) -> Result<Self, EncoderError> {
        let file = path.join("config.json");
        let value = read_json(&file)?;
        let device = &device.clone().without_autodiff();
        let open = |kind| Checkpoint::open(path).map_err(weights_error(kind, path));
        let (network, sizes) = match value["model_type"].as_str() {
            Some("clip" | "clip_vision_model") => {
                let mut config: ClipConfig = parse(vision_part(&value), &file)?;
                let clip = config.load(open("clip")?, device)?;
                let sizes = config.sizes();
                (VisionNetwork::Clip(clip), sizes)
            }
            other => {
                return Err(refuse(
                    &file,
                    format!(
                        "key `model_type`: got {}, wanted one of clip, clip_vision_model",
                        other.unwrap_or("nothing")
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

    /// The architecture.
    pub fn network(&self) -> &VisionNetwork {
        &self.network
    }

    /// The preprocessing that the folder describes, where it does.
    pub fn processor(&self) -> Option<&ImageProcessor> {
        self.processor.as_ref()
    }

    /// The sizes.
    pub fn sizes(&self) -> VisionSizes {
        self.sizes
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
        let Some(first) = pictures.first() else {
            return Err(EncoderError::PixelValues {
                got: vec![0],
                wanted: "at least one picture".into(),
            });
        };
        let [height, width] = processor.output_size(first.height, first.width);
        let mut values = Vec::with_capacity(pictures.len() * 3 * height * width);
        for picture in pictures {
            let got = processor.output_size(picture.height, picture.width);
            if got != [height, width] {
                return Err(EncoderError::PixelValues {
                    got: got.to_vec(),
                    wanted: format!(
                        "pictures of {height} x {width} after resizing, as the first one is; give them one by one"
                    ),
                });
            }
            values.extend(processor.run(*picture)?);
        }
        Ok(self.pixel_values(values, pictures.len(), height, width))
    }

    /// `values` is `[count, 3, height, width]`.
    fn pixel_values(
        &self,
        values: Vec<f32>,
        count: usize,
        height: usize,
        width: usize,
    ) -> PixelValues {
        let data = TensorData::new(values, [count, 3, height, width]);
        let pictures = Tensor::<4>::from_data(data, &self.device);
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
        let VisionSizes { image_size, .. } = self.sizes;
        let refused = |wanted: String| Err(EncoderError::PixelValues { got, wanted });
        match (&self.network, pixel_values) {
            (VisionNetwork::Clip(clip), PixelValues::Pictures(values))
                if values.dims()[1..] == [3, image_size, image_size] =>
            {
                Ok(clip.forward(values, keep))
            }
            (VisionNetwork::Clip(_), _) => {
                refused(format!("[pictures, 3, {image_size}, {image_size}]"))
            }
        }
    }
}

fn weights_error<'a>(
    kind: &'static str,
    path: &'a Path,
) -> impl Fn(WeightsError) -> EncoderError + 'a {
    move |source| EncoderError::Weights {
        kind,
        path: PathBuf::from(path),
        source,
    }
}

//! The vision transformer (Dosovitskiy et al. 2020), pre-norm, one sequence of patches a frame.
//!
//! Letters in shapes: T frames, P patches of a frame, D width. Parameters are named as in timm, so
//! that masked-autoencoder and timm checkpoints load as they are. Deliberately absent: the
//! classification head, and attention between frames: time is the projector's matter.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm};
use burn::tensor::{Device, Tensor, TensorData};

use crate::transformer::{Block, BlockConfig, layer_norm};
use crate::vit_config::KIND;
use crate::{
    EncoderError, Features, PatchInit, Position, VitConfig, parameters, patches, position,
};

impl VitConfig {
    pub(crate) fn init(&self, device: &Device) -> Result<Vit, EncoderError> {
        self.check()?;
        let block = BlockConfig {
            dim: self.dim,
            heads: self.heads,
            intermediate: (self.dim as f64 * self.mlp_ratio) as usize,
            norm_epsilon: self.norm_epsilon,
        };
        let tokens = self.num_patches() + usize::from(self.class_token);
        let zeros = |length: usize| Initializer::Zeros.init([1, length, self.dim], device);
        let module = VitModule {
            cls_token: self.class_token.then(|| zeros(1)),
            pos_embed: (self.position == Position::Learned).then(|| zeros(tokens)),
            patch_embed: (self.patch_init == PatchInit::Parameters)
                .then(|| PatchEmbed::new(self, device)),
            blocks: (0..self.depth).map(|_| block.init(device)).collect(),
            norm: (self.depth > 0).then(|| layer_norm(self.dim, self.norm_epsilon, device)),
        };
        let module = parameters::fill(module, KIND, self.weights.as_deref(), self.seed)?;
        Ok(Vit {
            basis: self.basis().map(|basis| {
                rows(basis, 3 * self.patch_size * self.patch_size, device).transpose()
            }),
            grid: self
                .grid()
                .map(|grid| rows(grid, self.dim, device).unsqueeze()),
            config: self.clone(),
            device: device.clone(),
            module,
        })
    }

    fn basis(&self) -> Option<Vec<f32>> {
        match self.patch_init {
            PatchInit::Parameters => None,
            PatchInit::Orthonormal => Some(patches::random_basis(
                self.dim,
                self.seed.unwrap_or_default(),
            )),
            PatchInit::Cosine => Some(patches::cosine_basis(self.dim, self.patch_size)),
        }
    }

    fn grid(&self) -> Option<Vec<f32>> {
        let side = self.image_size / self.patch_size;
        let patches = || position::grid(self.dim, side);
        match self.position {
            Position::Sincos if self.class_token => Some([vec![0.0; self.dim], patches()].concat()),
            Position::Sincos => Some(patches()),
            Position::Learned | Position::None => None,
        }
    }
}

fn rows(values: Vec<f32>, columns: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / columns;
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

#[derive(Module, Debug)]
struct VitModule {
    cls_token: Option<Param<Tensor<3>>>,
    pos_embed: Option<Param<Tensor<3>>>,
    patch_embed: Option<PatchEmbed>,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: PatchConv,
}

/// A convolution whose stride is its kernel, run as one matrix product on patches cut beforehand.
#[derive(Module, Debug)]
struct PatchConv {
    /// `[D, 3, patch, patch]`
    weight: Param<Tensor<4>>,
    /// `[D]`
    bias: Param<Tensor<1>>,
}

impl PatchEmbed {
    fn new(config: &VitConfig, device: &Device) -> Self {
        let shape = [config.dim, 3, config.patch_size, config.patch_size];
        Self {
            proj: PatchConv {
                weight: Initializer::Zeros.init(shape, device),
                bias: Initializer::Zeros.init([config.dim], device),
            },
        }
    }
}

/// A built vision transformer.
#[derive(Debug, Clone)]
pub struct Vit {
    config: VitConfig,
    device: Device,
    module: VitModule,
    /// `[3 patch², D]`, where the patch projection is computed.
    basis: Option<Tensor<2>>,
    /// `[1, P, D]`, where the position embedding is computed.
    grid: Option<Tensor<3>>,
}

impl Vit {
    /// Frames run together: enough to fill the cores, few enough that attention scores stay small.
    const FRAMES_AT_ONCE: usize = 8;

    /// The patches of all frames, in order: `[T * P, D]`.
    pub(crate) fn encode(
        &self,
        data: &[u8],
        count: usize,
        size: usize,
    ) -> Result<Features, EncoderError> {
        let wanted = self.config.image_size;
        if size != wanted || count == 0 || data.len() != count * size * size * 3 {
            return Err(EncoderError::Frames {
                bytes: data.len(),
                count,
                got: size,
                wanted,
            });
        }
        let frame_bytes = size * size * 3;
        let mut features = Vec::with_capacity(count * self.config.num_patches() * self.config.dim);
        for frames in data.chunks(Self::FRAMES_AT_ONCE * frame_bytes) {
            let encoded = self.forward(self.cut(frames));
            features.extend(encoded.into_data().iter::<f32>());
        }
        Ok(Features {
            length: count * self.config.num_patches(),
            dim: self.config.dim,
            data: features,
        })
    }

    fn cut(&self, frames: &[u8]) -> Tensor<3> {
        let VitConfig {
            image_size,
            patch_size,
            mean,
            std,
            ..
        } = self.config;
        let inputs = 3 * patch_size * patch_size;
        let values = patches::cut(frames, image_size, patch_size, mean, std);
        let count = frames.len() / (image_size * image_size * 3);
        Tensor::from_data(
            TensorData::new(values, [count, self.config.num_patches(), inputs]),
            &self.device,
        )
    }

    /// # Shapes
    /// `[T, P, 3 patch²]` to `[T, P, D]`
    fn forward(&self, patches: Tensor<3>) -> Tensor<3> {
        let [count, length, _] = patches.dims();
        let dim = self.config.dim;
        let mut x = self.project(patches);
        if let Some(token) = &self.module.cls_token {
            x = Tensor::cat(vec![token.val().expand([count, 1, dim]), x], 1);
        }
        if let Some(position) = self
            .module
            .pos_embed
            .as_ref()
            .map(Param::val)
            .or_else(|| self.grid.clone())
        {
            x = x + position;
        }
        for block in &self.module.blocks {
            x = block.forward(x);
        }
        if let Some(norm) = &self.module.norm {
            x = norm.forward(x);
        }
        let tokens = x.dims()[1];
        x.narrow(1, tokens - length, length)
    }

    fn project(&self, patches: Tensor<3>) -> Tensor<3> {
        match (&self.module.patch_embed, &self.basis) {
            (Some(PatchEmbed { proj }), _) => {
                let weight = proj.weight.val().flatten::<2>(1, 3).transpose();
                patches.matmul(weight.unsqueeze()) + proj.bias.val().unsqueeze()
            }
            (None, Some(basis)) => patches.matmul(basis.clone().unsqueeze()),
            (None, None) => unreachable!("a vision transformer is built with either projection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> VitConfig {
        VitConfig {
            image_size: 8,
            patch_size: 4,
            dim: 48,
            depth: 0,
            heads: 1,
            mlp_ratio: 4.0,
            mean: [0.5; 3],
            std: [0.5; 3],
            class_token: false,
            position: Position::None,
            patch_init: PatchInit::Cosine,
            norm_epsilon: 1e-6,
            weights: None,
            seed: None,
        }
    }

    fn frames(count: usize) -> Vec<u8> {
        (0..count * 192).map(|i| (i * i * 31 % 251) as u8).collect()
    }

    #[test]
    fn fixed_bases_keep_every_distance() {
        let data = frames(2);
        let wanted: f64 = patches::cut(&data, 8, 4, [0.5; 3], [0.5; 3])
            .iter()
            .map(|value| f64::from(*value).powi(2))
            .sum();
        for patch_init in [PatchInit::Cosine, PatchInit::Orthonormal] {
            let vit = VitConfig {
                patch_init,
                ..tiny()
            }
            .init(&Device::flex())
            .expect("valid");
            let features = vit.encode(&data, 2, 8).expect("two frames");
            assert_eq!((features.length, features.dim), (8, 48));
            let got: f64 = features
                .data
                .iter()
                .map(|value| f64::from(*value).powi(2))
                .sum();
            assert!((got / wanted - 1.0).abs() < 1e-5, "{got} {wanted}");
        }
    }

    #[test]
    fn a_frame_does_not_depend_on_its_neighbours() {
        let config = VitConfig {
            depth: 2,
            heads: 4,
            class_token: true,
            position: Position::Sincos,
            seed: Some(5),
            ..tiny()
        };
        let vit = config.init(&Device::flex()).expect("valid");
        let data = frames(11);
        let together = vit.encode(&data, 11, 8).expect("eleven frames");
        assert_eq!(together.length, 44);
        for (index, frame) in data.chunks(192).enumerate() {
            let alone = vit.encode(frame, 1, 8).expect("one frame");
            let start = index * alone.data.len();
            for (a, b) in alone.data.iter().zip(&together.data[start..]) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn parameters_have_one_source() {
        let seeded = VitConfig { depth: 1, ..tiny() };
        let message = |config: VitConfig| {
            config
                .init(&Device::flex())
                .expect_err("invalid")
                .to_string()
        };
        assert!(message(seeded.clone()).contains("neither `weights` nor `seed`"));
        assert!(
            message(VitConfig {
                seed: Some(1),
                weights: Some("a.safetensors".into()),
                ..seeded.clone()
            })
            .contains("both")
        );
        assert!(
            message(VitConfig {
                weights: Some("absent.safetensors".into()),
                ..seeded
            })
            .contains("absent.safetensors")
        );
        assert!(
            message(VitConfig {
                dim: 44,
                patch_init: PatchInit::Orthonormal,
                ..tiny()
            })
            .contains("48")
        );
    }

    #[test]
    fn frames_of_another_size_are_refused() {
        let vit = tiny().init(&Device::flex()).expect("valid");
        let error = vit
            .encode(&[0; 300], 1, 10)
            .expect_err("10 pixels")
            .to_string();
        assert!(
            error.contains("10 x 10") && error.contains("8 x 8"),
            "{error}"
        );
    }
}

//! EVA's weights, from LAVIS' file and from transformers' folders.

use burn::tensor::{Device, FloatDType};
use limbic_weights::{Checkpoint, NamedTensor, WeightsError};

use super::interpolation::{self, Cubic};
use super::layer::Activation;
use super::model_config::Sizes;
use super::{Eva, EvaConfig, LnVision, names, weights_error};
use crate::EncoderError;
use crate::folder::refuse;

impl EvaConfig {
    /// The transformer with the values of a checkpoint in the layout of `eva_vit_g.pth`, its position embedding brought
    /// to this `image_size` by bicubic interpolation.
    ///
    /// # Errors
    /// Sizes that do not fit each other; weights that are missing, unexpected or of the wrong shape.
    pub fn load(&self, checkpoint: Checkpoint, device: &Device) -> Result<Eva, EncoderError> {
        self.check(&checkpoint)?;
        let path = checkpoint.path().to_path_buf();
        let depth = self.num_hidden_layers;
        let beyond = move |name: &str| {
            let block = name
                .strip_prefix("blocks.")
                .and_then(|rest| rest.split('.').next());
            block.is_some_and(|block| block.parse().is_ok_and(|block: usize| block >= depth))
        };
        let load = || {
            let mut checkpoint = names::unwrapped(checkpoint)?
                .ignore(
                    beyond,
                    "BLIP-2 takes the features before the last block of the 40",
                )
                .ignore(
                    |name| {
                        ["norm.", "fc_norm.", "head."]
                            .iter()
                            .any(|part| name.starts_with(part))
                    },
                    "the head that EVA was trained with, and its norm, follow the last block",
                );
            self.interpolate_positions(&mut checkpoint)?;
            match &self.ln_vision {
                LnVision::Absent => {}
                LnVision::Identity => {
                    for (name, value) in [("weight", 1.0), ("bias", 0.0)] {
                        let tensor = NamedTensor {
                            shape: vec![self.hidden_size],
                            values: vec![value; self.hidden_size],
                        };
                        checkpoint.put(format!("ln_vision.{name}"), tensor);
                    }
                }
                LnVision::File(file) => {
                    let mut file = names::unwrapped(Checkpoint::open(file)?)?;
                    for name in ["ln_vision.weight", "ln_vision.bias"] {
                        checkpoint.put(name, file.take(name)?);
                    }
                }
            }
            checkpoint.load(self.init(device), Some(FloatDType::F32))
        };
        load().map_err(weights_error("eva_clip_g", &path))
    }

    /// The transformer with the values of a Hugging Face BLIP-2 folder, whose `post_layernorm` is `ln_vision`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_blip2(&self, checkpoint: Checkpoint, device: &Device) -> Result<Eva, EncoderError> {
        self.check(&checkpoint)?;
        let path = checkpoint.path().to_path_buf();
        let load = || {
            let mut checkpoint = checkpoint
                .ignore(
                    |name| {
                        [
                            "qformer.",
                            "language_model.",
                            "language_projection.",
                            "query_tokens",
                            "embeddings.word_embeddings",
                            "embeddings.position_embeddings",
                            "itm_head.",
                            "vision_projection.",
                            "text_projection.",
                        ]
                        .iter()
                        .any(|part| name.starts_with(part))
                    },
                    "the Q-Former, its text and heads, and the language model are not part of the vision encoder",
                )
                .strip_prefix("vision_model.")?
                .rename(eva_name)?;
            for block in 0..self.num_hidden_layers {
                self.split_bias(&mut checkpoint, block)?;
            }
            // transformers norms with the layers' epsilon where LAVIS had PyTorch's default.
            let module = self.build(Some(self.layer_norm_eps), true, device);
            checkpoint.load(module, Some(FloatDType::F32))
        };
        load().map_err(weights_error("eva_clip_g", &path))
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), EncoderError> {
        let path = checkpoint.path();
        if self.hidden_act != Activation::Gelu || !self.qkv_bias {
            return Err(refuse(
                path,
                "EVA with another nonlinearity than `gelu`, or without `qkv_bias`, is not known here",
            ));
        }
        Sizes {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            image_size: self.image_size,
            patch_size: self.patch_size,
        }
        .check(path)
    }

    fn interpolate_positions(&self, checkpoint: &mut Checkpoint) -> Result<(), WeightsError> {
        let length = match checkpoint.shape("pos_embed") {
            Some([1, length, dim]) if *dim == self.hidden_size => *length,
            // Absent or of another width: the loader says so.
            _ => return Ok(()),
        };
        let (from, to) = ((length - 1).isqrt(), self.image_size / self.patch_size);
        if from == to || from * from + 1 != length {
            return Ok(());
        }
        let NamedTensor { values, .. } = checkpoint.take("pos_embed")?;
        let (class, patches) = values.split_at(self.hidden_size);
        let patches =
            interpolation::resize(patches, self.hidden_size, [from; 2], [to; 2], Cubic::Plain);
        let tensor = NamedTensor {
            shape: vec![1, to * to + 1, self.hidden_size],
            values: [class.to_vec(), patches].concat(),
        };
        checkpoint.put("pos_embed", tensor);
        Ok(())
    }

    /// transformers stores `[q_bias, 0, v_bias]`. What the middle holds cannot matter: a key's bias moves all scores of a
    /// query alike.
    fn split_bias(&self, checkpoint: &mut Checkpoint, block: usize) -> Result<(), WeightsError> {
        let name = format!("blocks.{block}.attn.qkv.bias");
        let dim = self.hidden_size;
        // Of another shape: the loader says so.
        if checkpoint
            .shape(&name)
            .is_some_and(|shape| shape != [3 * dim])
        {
            return Ok(());
        }
        let NamedTensor { values, .. } = checkpoint.take(&name)?;
        for (part, start) in [("q_bias", 0), ("v_bias", 2 * dim)] {
            let tensor = NamedTensor {
                shape: vec![dim],
                values: values[start..start + dim].to_vec(),
            };
            checkpoint.put(format!("blocks.{block}.attn.{part}"), tensor);
        }
        Ok(())
    }
}

/// The name in `eva_vit_g.pth` of what transformers calls `name`.
fn eva_name(name: &str) -> String {
    const RENAMED: [(&str, &str); 8] = [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding.", "patch_embed.proj."),
        ("encoder.layers.", "blocks."),
        ("layer_norm", "norm"),
        ("self_attn.projection.", "attn.proj."),
        ("self_attn.", "attn."),
        ("post_layernorm.", "ln_vision."),
    ];
    RENAMED
        .iter()
        .fold(name.to_string(), |name, (theirs, ours)| {
            name.replacen(theirs, ours, 1)
        })
}

//! Clip and caption in one space, for contrastive alignment as CLIP has it (Radford et al. 2021): each is the mean of
//! its tokens through a linear layer of its own, scaled to length one.
//!
//! A clip is what its projectors make of it, without the decoder; a caption is read by the decoder alone, without the
//! clip, so that neither can be told from the other by what it has seen.
//!
//! Letters: B pairs, L positions, D decoder width, E width of the common space.

use burn::module::{Module, Param, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use limbic_data::{Compiled, Segment};
use limbic_encoders::Features;
use limbic_llama::{Padding, Pass};
use serde::{Deserialize, Serialize};

use crate::{Batch, EmotionLlm, Example, Layout};

/// The common space's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignmentConfig {
    /// Width of the common space.
    pub dim: usize,
}

/// The two ways into the common space, and the temperature there.
#[derive(Module, Debug)]
pub struct Alignment {
    clip: Linear,
    caption: Linear,
    /// Natural logarithm of the factor on the cosines, `[1]`.
    pub log_scale: Param<Tensor<1>>,
}

impl AlignmentConfig {
    /// For a decoder of width `dim`; the temperature begins at 0.07.
    pub fn init(&self, dim: usize, device: &Device) -> Alignment {
        let linear = || LinearConfig::new(dim, self.dim).init(device);
        let log_scale = (1.0 / 0.07f64).ln() as f32;
        Alignment {
            clip: linear(),
            caption: linear(),
            log_scale: Param::initialized(
                ParamId::new(),
                Tensor::from_data([log_scale], &device.clone().without_autodiff()),
            ),
        }
    }
}

impl Alignment {
    /// Name of [`log_scale`](Self::log_scale) in a model.
    pub const LOG_SCALE: &'static str = "alignment.log_scale";

    /// Where the logarithm of the factor is held after each update: a factor of 100.
    pub const MAX_LOG_SCALE: f64 = 4.605_170_185_988_092;
}

/// What is perceived of a clip.
#[derive(Debug, Clone, Copy)]
pub struct ClipMedia<'a> {
    /// Encoded media, one entry an input; `None` where the clip lacks it.
    pub features: &'a [Option<&'a Features>],
    /// The slots of inputs and fusions that the clip fills, as in a prompt.
    pub slots: &'a [Segment],
}

/// Clips beside their captions.
#[derive(Debug, Clone)]
pub struct PairBatch {
    clips: Batch,
    /// `[B, L, 1]`: one over the clip's number of media tokens at each of them, 0 elsewhere.
    media_shares: Tensor<3>,
    captions: Batch,
    /// `[B, L, 1]`: one over the caption's number of tokens at each of them, 0 elsewhere.
    caption_shares: Tensor<3>,
    /// B
    pub size: usize,
    /// Positions that hold something, padding left out.
    pub num_positions: usize,
    /// Positions that are computed, padding included.
    pub num_slots: usize,
}

impl PairBatch {
    /// Lays out clips and their captions on a plain device.
    ///
    /// # Panics
    /// Without a pair, for a clip without media, or an empty caption.
    pub fn new(pairs: &[(ClipMedia, &[u32])], bos: u32, device: &Device) -> Self {
        let sequences = |prompts: Vec<Vec<Segment>>| -> Vec<Compiled> {
            let compiled = |prompt| Compiled {
                prompt,
                answer: Vec::new(),
                transcript: Vec::new(),
            };
            prompts.into_iter().map(compiled).collect()
        };
        let begin = || Segment::Text(vec![bos]);
        let clips = sequences(
            pairs
                .iter()
                .map(|(media, _)| [&[begin()], media.slots].concat())
                .collect(),
        );
        let captions = sequences(
            pairs
                .iter()
                .map(|(_, caption)| vec![begin(), Segment::Text(caption.to_vec())])
                .collect(),
        );
        let absent: Vec<Option<&Features>> = vec![None; pairs[0].0.features.len()];
        let batch = |sequences: &[Compiled], features: Vec<&[Option<&Features>]>| {
            let examples: Vec<Example> = sequences
                .iter()
                .zip(features)
                .map(|(compiled, features)| Example {
                    compiled,
                    features,
                    label: None,
                    valence: None,
                })
                .collect();
            let batch = Batch::new(&examples, Layout::Padded, device);
            let shares = shares(sequences, batch.length, device);
            (batch, shares)
        };
        let of_pairs = pairs.iter().map(|(media, _)| media.features).collect();
        let (clips, media_shares) = batch(&clips, of_pairs);
        let (captions, caption_shares) = batch(&captions, vec![&absent; pairs.len()]);
        Self {
            size: pairs.len(),
            num_positions: clips.num_positions + captions.num_positions,
            num_slots: clips.num_slots() + captions.num_slots(),
            clips,
            media_shares,
            captions,
            caption_shares,
        }
    }
}

/// Weights of the mean over all positions but the first.
fn shares(sequences: &[Compiled], length: usize, device: &Device) -> Tensor<3> {
    let mut values = vec![0.0f32; sequences.len() * length];
    for (row, sequence) in sequences.iter().enumerate() {
        let count = sequence.length() - 1;
        assert!(
            count > 0,
            "pair {row} has a clip without media or an empty caption"
        );
        values[row * length + 1..][..count].fill(1.0 / count as f32);
    }
    let shape = [sequences.len(), length, 1];
    Tensor::from_data(
        TensorData::new(values, shape),
        &device.clone().without_autodiff(),
    )
}

impl EmotionLlm {
    /// Clips and captions in the common space.
    ///
    /// # Shapes
    /// Two of `[B, E]`, each row of length one.
    ///
    /// # Panics
    /// For a model without alignment.
    pub fn pair(&self, batch: &PairBatch, pass: Pass) -> (Tensor<2>, Tensor<2>) {
        let alignment = self
            .alignment
            .as_ref()
            .expect("a model that pairs has an alignment");
        let mean = |states: Tensor<3>, shares: &Tensor<3>| -> Tensor<2> {
            (states * shares.clone()).sum_dim(1).squeeze_dim(1)
        };
        let clips = mean(self.embed(&batch.clips), &batch.media_shares);
        let (rows, length) = (batch.captions.rows, batch.captions.length);
        let all: Vec<usize> = (0..rows * length).collect();
        let read = self
            .llama
            .hidden_at(self.embed(&batch.captions), &Padding::Right, &all, pass);
        let read = self
            .llama
            .norm(read)
            .reshape([rows as i32, length as i32, -1]);
        let captions = mean(read, &batch.caption_shares);
        (
            of_length_one(alignment.clip.forward(clips)),
            of_length_one(alignment.caption.forward(captions)),
        )
    }
}

fn of_length_one(rows: Tensor<2>) -> Tensor<2> {
    let length = rows.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    rows / length
}

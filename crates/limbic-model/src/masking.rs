//! Masked-token modelling of captions (Devlin et al. 2019): some tokens of a caption are hidden, and the decoder, which
//! here looks both ways, tells them from the clip and from the rest of the caption.
//!
//! Letters: B captions, L positions, D decoder width, V vocabulary, N positions to be told.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_data::{Compiled, Segment};
use limbic_llama::{Padding, Pass};
use limbic_weights::CounterRng;

use crate::{Batch, ClipMedia, EmotionLlm, Example, Layout, TokenStates};

/// What stands for a hidden token.
#[derive(Module, Debug)]
pub struct Mask {
    /// `[1, D]`
    pub embedding: Param<Tensor<2>>,
}

impl Mask {
    /// For a decoder of width `dim`; zeros until it is seeded.
    pub fn new(dim: usize, device: &Device) -> Self {
        Self {
            embedding: Param::initialized(
                ParamId::new(),
                Tensor::zeros([1, dim], &device.clone().without_autodiff()),
            ),
        }
    }
}

/// A caption with hidden tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedCaption {
    /// The tokens that are shown; under a mask, whatever was there.
    ids: Vec<u32>,
    /// The places of masks.
    masks: Vec<usize>,
    /// The places to be told, and what they held.
    wanted: Vec<(usize, u32)>,
}

impl MaskedCaption {
    /// Chooses each token of `caption` with probability `share`, and one where none was drawn. Of ten chosen ones, eight
    /// are masked, one becomes any of the `vocabulary`, and one stays.
    ///
    /// # Panics
    /// For an empty caption.
    pub fn draw(caption: &[u32], share: f64, vocabulary: usize, rng: CounterRng) -> Self {
        assert!(!caption.is_empty(), "a caption without a token");
        let draw = |place: usize, number: u64| rng.uniform(3 * place as u64 + number);
        let mut chosen: Vec<usize> = (0..caption.len())
            .filter(|place| draw(*place, 0) < share)
            .collect();
        if chosen.is_empty() {
            let any = rng.site("any").uniform(0) * caption.len() as f64;
            chosen.push(any as usize);
        }
        let mut ids = caption.to_vec();
        let mut masks = Vec::new();
        for &place in &chosen {
            match draw(place, 1) {
                fate if fate < 0.8 => masks.push(place),
                fate if fate < 0.9 => ids[place] = (draw(place, 2) * vocabulary as f64) as u32,
                _ => {}
            }
        }
        Self {
            ids,
            masks,
            wanted: chosen
                .into_iter()
                .map(|place| (place, caption[place]))
                .collect(),
        }
    }

    /// Number of places to be told.
    pub fn num_wanted(&self) -> usize {
        self.wanted.len()
    }
}

/// Clips with their masked captions.
#[derive(Debug, Clone)]
pub struct MaskedBatch {
    batch: Batch,
    /// Positions of each row.
    lengths: Vec<usize>,
    /// `[B, L, 1]`: 1 where a mask stands, 0 elsewhere.
    masks: Tensor<3>,
    /// Positions (of B·L) to be told, `[N]`, and their tokens.
    wanted: (Vec<usize>, Tensor<1, Int>),
    /// Positions that hold something, padding left out.
    pub num_positions: usize,
    /// Positions that are computed, padding included.
    pub num_slots: usize,
}

impl MaskedBatch {
    /// Lays out clips before their captions on a plain device.
    ///
    /// # Panics
    /// Without a caption.
    pub fn new(captions: &[(ClipMedia, &MaskedCaption)], bos: u32, device: &Device) -> Self {
        let device = &device.clone().without_autodiff();
        let sequences: Vec<Compiled> = captions
            .iter()
            .map(|(media, caption)| Compiled {
                prompt: [
                    &[Segment::Text(vec![bos])],
                    media.slots,
                    &[Segment::Text(caption.ids.clone())],
                ]
                .concat(),
                answer: Vec::new(),
                transcript: Vec::new(),
            })
            .collect();
        let examples: Vec<Example> = sequences
            .iter()
            .zip(captions)
            .map(|(compiled, (media, _))| Example {
                compiled,
                features: media.features,
                label: None,
                valence: None,
            })
            .collect();
        let batch = Batch::new(&examples, Layout::Padded, device);
        let lengths: Vec<usize> = sequences.iter().map(Compiled::length).collect();
        let mut masks = vec![0.0f32; batch.size * batch.length];
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        for (row, (_, caption)) in captions.iter().enumerate() {
            let first = row * batch.length + lengths[row] - caption.ids.len();
            for place in &caption.masks {
                masks[first + place] = 1.0;
            }
            for (place, token) in &caption.wanted {
                at.push(first + place);
                targets.push(i64::from(*token));
            }
        }
        let ints = |values: Vec<i64>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), device)
        };
        let shape = [batch.size, batch.length, 1];
        Self {
            num_positions: batch.num_positions,
            num_slots: batch.num_slots(),
            masks: Tensor::from_data(TensorData::new(masks, shape), device),
            wanted: (at, ints(targets)),
            lengths,
            batch,
        }
    }
}

impl EmotionLlm {
    /// What the decoder makes of the tokens to be told.
    ///
    /// # Panics
    /// For a model without a mask.
    pub fn tell_masked(&self, batch: &MaskedBatch, pass: Pass) -> TokenStates {
        let mask = self
            .mask
            .as_ref()
            .expect("a model that fills in has a mask");
        let shown = self.embed(&batch.batch);
        let hidden = mask.embedding.val().unsqueeze::<3>() * batch.masks.clone();
        let embeddings = shown * (batch.masks.clone().neg() + 1.0) + hidden;
        let padding = Padding::BothWays(batch.lengths.clone());
        let (at, targets) = &batch.wanted;
        TokenStates {
            states: self.llama.hidden_at(embeddings, &padding, at, pass),
            targets: targets.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_chosen_tokens_eight_are_masked_one_is_another_and_one_stays() {
        let caption: Vec<u32> = (0..50).collect();
        let (mut chosen, mut masked, mut other, mut kept) = (0, 0, 0, 0);
        for index in 0..400 {
            let rng = CounterRng::new(3).index(index);
            let drawn = MaskedCaption::draw(&caption, 0.15, 1000, rng);
            assert_eq!(drawn, MaskedCaption::draw(&caption, 0.15, 1000, rng));
            chosen += drawn.num_wanted();
            masked += drawn.masks.len();
            for (place, token) in &drawn.wanted {
                assert_eq!(caption[*place], *token);
                if !drawn.masks.contains(place) {
                    if drawn.ids[*place] == *token {
                        kept += 1;
                    } else {
                        other += 1;
                    }
                }
            }
            let untouched = (0..50).filter(|place| drawn.wanted.iter().all(|(w, _)| w != place));
            untouched.for_each(|place| assert_eq!(drawn.ids[place], caption[place]));
        }
        // Binomial: 20000 tokens at 0.15, deviation 50; of some 3000, 0.8 with deviation 22, 0.1 with 16.
        assert!((2850..3150).contains(&chosen), "{chosen}");
        let share = |count: usize| count as f64 / chosen as f64;
        assert!((share(masked) - 0.8).abs() < 0.025, "{}", share(masked));
        assert!((share(other) - 0.1).abs() < 0.02, "{}", share(other));
        assert!((share(kept) - 0.1).abs() < 0.02, "{}", share(kept));
        assert_eq!(
            MaskedCaption::draw(&[7], 0.0, 10, CounterRng::new(1)).num_wanted(),
            1
        );
    }
}

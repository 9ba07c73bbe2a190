//! A pretrained vision encoder as the frozen encoder of a recipe: frames of a clip in, features out.

use burn::tensor::Tensor;

use super::{ImageProcessor, Normalisation, PretrainedVisionConfig, VisionModel, VisionOutput};
use crate::{EncoderError, Features, HiddenStates, Keep};

/// A built pretrained vision encoder.
#[derive(Debug, Clone)]
pub struct PretrainedVision {
    model: VisionModel,
    processor: ImageProcessor,
    output: VisionOutput,
    layer: i32,
    image_size: usize,
}

impl PretrainedVision {
    pub(super) fn new(
        model: VisionModel,
        config: &PretrainedVisionConfig,
        normalise: Normalisation,
    ) -> Self {
        Self {
            model,
            processor: ImageProcessor::of_ready_frames(normalise),
            output: config.output,
            layer: config.layer,
            image_size: config.image_size,
        }
    }

    /// Frames run together: enough to fill the cores, few enough that attention scores stay small.
    const FRAMES_AT_ONCE: usize = 4;

    /// The features of all frames, in order: `[T * P, D]`, or `[T, D]` where a frame is one vector. A model of video makes
    /// one clip of the frames: `[P, D]` or `[1, D]`.
    pub(crate) fn encode(
        &self,
        data: &[u8],
        count: usize,
        size: usize,
    ) -> Result<Features, EncoderError> {
        let frame_bytes = size * size * 3;
        if size != self.image_size || count == 0 || data.len() != count * frame_bytes {
            return Err(EncoderError::Frames {
                bytes: data.len(),
                count,
                got: size,
                wanted: self.image_size,
            });
        }
        let frames: Vec<&[u8]> = data.chunks(frame_bytes).collect();
        let (mut data, mut length, mut dim) = (Vec::new(), 0, 0);
        let batches: Vec<Vec<&[u8]>> = match self.model.sizes().num_frames {
            Some(wanted) => {
                let tubelet = self.model.sizes().tubelet_size;
                let places = segment_places(count, wanted / tubelet, tubelet);
                vec![places.into_iter().map(|place| frames[place]).collect()]
            }
            None => frames
                .chunks(Self::FRAMES_AT_ONCE)
                .map(<[_]>::to_vec)
                .collect(),
        };
        for batch in batches {
            let encoded = self.encode_batch(&batch)?;
            let [rows, columns] = encoded.dims();
            length += rows;
            dim = columns;
            data.extend(encoded.into_data().iter::<f32>());
        }
        Ok(Features { length, dim, data })
    }

    fn encode_batch(&self, frames: &[&[u8]]) -> Result<Tensor<2>, EncoderError> {
        let values = frames
            .iter()
            .flat_map(|frame| self.processor.values(frame))
            .collect();
        let shape = [frames.len(), 3, self.image_size, self.image_size];
        let keep = match self.layer {
            -1 => Keep::Last(0),
            layer => Keep::Last(layer.unsigned_abs() as usize),
        };
        let states = self
            .model
            .forward(self.model.pixel_values(values, shape), keep)?;
        Ok(self.select(states))
    }

    fn select(&self, states: HiddenStates) -> Tensor<2> {
        if self.output == VisionOutput::Pooled {
            return states
                .pooled
                .expect("a model that pools was asked for when it was built");
        }
        let tokens = match self.layer {
            -1 => states.last_hidden_state,
            _ => states.hidden.into_iter().next().expect(
                "as many hidden states were kept as the layer lies from the end, and there are so many",
            ),
        };
        let length = tokens.dims()[1];
        let extra = self.model.sizes().extra_tokens;
        let patches = |tokens: Tensor<3>| tokens.narrow(1, extra, length - extra);
        match self.output {
            VisionOutput::Pooled | VisionOutput::Tokens => tokens,
            VisionOutput::Cls => tokens.narrow(1, 0, 1),
            VisionOutput::Patches => patches(tokens),
            VisionOutput::Mean => patches(tokens).mean_dim(1),
        }
        .flatten(0, 1)
    }
}

/// Which of `count` frames make a clip of `segments` times `tubelet` frames: consecutive ones from the middle of each of
/// as many equal segments, as VideoMAE samples for evaluation. A clip that is too short repeats its frames.
fn segment_places(count: usize, segments: usize, tubelet: usize) -> Vec<usize> {
    let span = (count + 1).saturating_sub(tubelet) as f64 / segments as f64;
    (0..segments)
        .flat_map(|segment| {
            let start = (span / 2.0 + span * segment as f64) as usize;
            (start..start + tubelet).map(move |place| place.min(count - 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_clip_come_from_the_middle_of_segments() {
        // 33 frames have 32 places for a pair: 4 in each of 8 segments, whose middle is 2.
        let places = segment_places(33, 8, 2);
        let wanted: Vec<usize> = (0..8).flat_map(|i| [4 * i + 2, 4 * i + 3]).collect();
        assert_eq!(places, wanted);
        assert_eq!(segment_places(1, 2, 2), [0, 0, 0, 0]);
        assert_eq!(segment_places(4, 2, 2), [0, 1, 2, 3]);
        assert!(segment_places(5, 8, 2).iter().all(|place| *place < 5));
    }
}

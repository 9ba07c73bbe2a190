//! Training steps of a given shape on drawn weights and samples, to be timed: what [`train`](crate::train) does in every
//! step, and nothing that it does once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, FloatDType, Tensor};
use limbic_data::{Clip, Compiled, PromptConfig, Segment, Task};
use limbic_encoders::Features;
use limbic_llama::{Llama, LlamaConfig, LoraConfig, Recompute};
use limbic_model::{
    ArtifactConfig, DecoderSource, EmotionLlm, FORMAT, InputConfig, Part, Trainables,
};
use limbic_weights::CounterRng;
use serde_json::json;

use crate::batching::Shards;
use crate::dataset::{Drawn, Sample};
use crate::features::EncodedClip;
use crate::optimizer::{AdamW, clip};
use crate::replicas::{Replicas, StepGradient};
use crate::terms::{LossMeans, Term};
use crate::{Batching, Calibration, LossRecipe, Objectives, RunError, Stored, TrainRecipe};

/// Positions of a sample that a projector makes, where the prompt has room for them.
const MEDIA_TOKENS: usize = 32;
const SEED: u64 = 0;

/// What is trained: a frozen decoder with adapters, and a small projector, so that gradients reach the first position.
#[derive(Debug, Clone)]
pub struct StepConfig {
    /// The decoder.
    pub decoder: LlamaConfig,
    /// How its own weights are kept.
    pub precision: FloatDType,
    /// The adapters.
    pub lora: LoraConfig,
    /// Samples of a step.
    pub batch: usize,
    /// Positions of the longest sample.
    pub positions: usize,
    /// Positions of the shortest one; the others lie evenly between them.
    pub shortest: usize,
    /// Supervised positions at the end of each, at least 1 and fewer than all.
    pub answer: usize,
    /// How samples of several lengths are put together.
    pub batching: Batching,
    /// What of the decoder is computed again on the way back.
    pub recompute: Recompute,
    /// Pieces that a step is cut into, a divisor of `batch`.
    pub shards: usize,
}

/// A training run without its data set.
pub struct StepBench {
    replicas: Replicas,
    trainables: Trainables,
    objectives: Objectives,
    recipe: TrainRecipe,
    optimizer: AdamW,
    values: Tensor<1>,
    samples: Vec<(Sample, Compiled)>,
    step: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct StepDone {
    /// The mean loss before the update.
    pub loss: f64,
    /// Positions processed, padding left out.
    pub positions: usize,
    /// Positions processed, padding included.
    pub slots: usize,
    /// Supervised ones among them.
    pub supervised: usize,
}

impl StepConfig {
    /// Draws weights and samples, on a replica for each of `devices`.
    ///
    /// # Errors
    /// Sizes that do not go together.
    pub fn init(&self, devices: &[Device]) -> anyhow::Result<StepBench> {
        self.check()?;
        let device = devices.first().context("a step needs a device")?;
        let media = (self.shortest - self.answer).min(MEDIA_TOKENS);
        let config = artifact(media)?;
        let llama = draw_decoder(&self.decoder, self.precision, device)
            .with_lora(&self.lora, SEED)
            .map_err(|error| RunError::recipe(error.to_string()))?;
        let model = config.model()?.init(llama, SEED, device)?;
        let samples: Vec<(Sample, Compiled)> = (0..self.batch)
            .map(|number| self.sample(number, media, &config.inputs[0]))
            .collect();
        let loss = LossRecipe::default();
        let vocabulary = self.decoder.vocab_size;
        let objectives = Objectives::over(&loss, &config, 0, vocabulary, &[], SEED)?;
        let recipe: TrainRecipe = serde_json::from_value(json!({
            "steps": u64::MAX, "batch_size": self.batch, "shards": self.shards, "decay": "constant",
            "batching": self.batching, "recompute": self.recompute,
            "learning_rate": { "lora": 1e-4, "projectors": 1e-4 },
        }))?;
        Self::assemble(model, devices, objectives, recipe, samples)
    }

    fn assemble(
        model: EmotionLlm,
        devices: &[Device],
        objectives: Objectives,
        recipe: TrainRecipe,
        samples: Vec<(Sample, Compiled)>,
    ) -> anyhow::Result<StepBench> {
        let trainables = Trainables::of(&model, &[Part::Lora, Part::Projectors]);
        let values = trainables.gather(&model);
        let busy = devices.len().min(recipe.shards);
        Ok(StepBench {
            replicas: Replicas::new(&model, &devices[..busy])?.recomputing(recipe.recompute),
            optimizer: AdamW::new(&recipe, &trainables, &values),
            trainables,
            objectives,
            recipe,
            values,
            samples,
            step: 0,
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        self.decoder.validate()?;
        let Self {
            batch,
            positions,
            shortest,
            answer,
            shards,
            ..
        } = *self;
        if batch == 0 || shards == 0 || !batch.is_multiple_of(shards) {
            return Err(RunError::recipe(format!(
                "a batch of {batch} samples cannot be cut into {shards} shards; wanted a divisor of it"
            )));
        }
        if answer == 0 || answer >= shortest {
            return Err(RunError::recipe(format!(
                "an answer of {answer} of {shortest} positions; wanted at least 1, and at least 1 before it"
            )));
        }
        if shortest > positions {
            return Err(RunError::recipe(format!(
                "the shortest sample has {shortest} positions, the longest {positions}"
            )));
        }
        if batch == 1 && shortest < positions {
            return Err(RunError::recipe(format!(
                "one sample cannot have both {shortest} and {positions} positions; wanted a batch of at least 2"
            )));
        }
        let longest = self.decoder.max_position_embeddings;
        if positions > longest {
            return Err(RunError::recipe(format!(
                "samples of {positions} positions, but the decoder has {longest}"
            )));
        }
        Ok(())
    }

    /// A token, a medium, text, and the answer; the first token and the text where there is room.
    fn sample(&self, number: usize, media: usize, input: &InputConfig) -> (Sample, Compiled) {
        let rng = CounterRng::new(SEED)
            .site("bench.sample")
            .index(number as u64);
        let text = |from: usize, count: usize| -> Vec<u32> {
            let places = from..from + count;
            let id = |place| (rng.uniform(place as u64) * self.decoder.vocab_size as f64) as u32;
            places.map(id).collect()
        };
        let longer = (self.positions - self.shortest) * number / (self.batch - 1).max(1);
        let prompt = self.shortest + longer - self.answer;
        let begin = (prompt - media).min(1);
        let slot = Segment::Media {
            input: 0,
            tokens: media,
        };
        let segments = [
            Segment::Text(text(0, begin)),
            slot,
            Segment::Text(text(begin + media, prompt - begin - media)),
        ];
        let dim = input.encoder.feature_dim();
        let noise = rng.site("features");
        let features = Features {
            length: media,
            dim,
            data: (0..(media * dim) as u64)
                .map(|index| noise.normal(index) as f32)
                .collect(),
        };
        let sample = Sample {
            encoded: EncodedClip {
                clip: Clip {
                    id: number.to_string(),
                    ..Clip::default()
                },
                features: vec![Some(Stored::Kept(Arc::new(features)))],
            },
            label: None,
            caption: Vec::new(),
            answers: [(Task::Emotion, String::new())].into(),
            lengths: BTreeMap::new(),
        };
        let is_there = |segment: &Segment| !matches!(segment, Segment::Text(ids) if ids.is_empty());
        let compiled = Compiled {
            prompt: segments.into_iter().filter(is_there).collect(),
            answer: text(prompt, self.answer),
            transcript: Vec::new(),
        };
        (sample, compiled)
    }
}

impl StepBench {
    /// One step: gradient, norm, clipping, update. Returns when the devices have finished it.
    ///
    /// # Errors
    /// A loss that is not finite, a device that fails.
    pub fn step(&mut self) -> anyhow::Result<StepDone> {
        let drawn = self.samples.iter().map(|(sample, compiled)| Drawn {
            sample,
            compiled: compiled.clone(),
        });
        let drawn: Vec<Drawn> = drawn.collect();
        let shards = Shards::cut(drawn, self.recipe.shards, self.recipe.batching);
        let dropout = CounterRng::new(SEED).site("dropout").index(self.step);
        let found = self.replicas.gradient(
            &self.trainables,
            &self.values,
            &shards,
            &self.objectives,
            self.step,
            dropout,
        );
        let (sums, norm) = found.read();
        let StepGradient {
            gradient,
            took_part,
            divisors,
            positions,
            slots,
            ..
        } = found;
        let weights = self.objectives.weights(self.step);
        let loss = LossMeans::new(self.objectives.active(), &sums, &divisors, &weights).total;
        anyhow::ensure!(
            norm.is_finite() && loss.is_finite(),
            "step {}: the loss is {loss}, its gradient has norm {norm}",
            self.step
        );
        let gradient = clip(gradient, norm, self.recipe.clip_norm);
        let values = self.values.clone();
        self.values = self.optimizer.step(values, gradient, &took_part, 1.0);
        self.values.device().sync()?;
        self.step += 1;
        Ok(StepDone {
            loss,
            positions,
            slots,
            supervised: divisors[Term::Lm] as usize,
        })
    }

    /// Tries the plans for `cores` cores and keeps the fastest, as the first steps of a run do on CPU. Returns what its
    /// steps did.
    ///
    /// # Errors
    /// As [`step`](Self::step); threads that cannot be started.
    pub fn calibrate(&mut self, cores: usize) -> anyhow::Result<Vec<StepDone>> {
        let mut done = Vec::new();
        let Some(mut calibration) = Calibration::new(cores, self.recipe.shards) else {
            return Ok(done);
        };
        loop {
            let plan = calibration.plan();
            self.replicas.adopt(plan)?;
            while calibration.plan() == plan {
                let began = Instant::now();
                let step = self.step()?;
                done.push(step);
                let speed = step.slots as f64 / began.elapsed().as_secs_f64();
                if calibration.record(speed).is_some() {
                    self.replicas.adopt(calibration.plan())?;
                    return Ok(done);
                }
            }
        }
    }

    /// Number of values that are trained.
    pub fn num_trained(&self) -> usize {
        self.trainables.num_values()
    }

    /// The replicas, and on how many threads each works.
    pub fn plan(&self) -> (usize, usize) {
        self.replicas.plan()
    }
}

/// A decoder with normal weights of deviation 0.02, drawn on `device` tensor by tensor, kept in `precision`.
///
/// The device's own random stream is used, where trained models have one value a name: billions of values are drawn fast,
/// and nothing but a time follows from them.
pub fn draw_decoder(config: &LlamaConfig, precision: FloatDType, device: &Device) -> Llama {
    let plain = device.clone().without_autodiff();
    plain.seed(SEED);
    config.init(&plain).map(&mut Draw { precision })
}

struct Draw {
    precision: FloatDType,
}

impl ModuleMapper for Draw {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let device = param.lazy_device();
        // Norms keep their ones, and F32.
        if D == 1 {
            return Param::initialized(param.id, param.val());
        }
        let value = Tensor::<D>::random(shape, Distribution::Normal(0.0, 0.02), &device);
        Param::initialized(param.id, value.cast(self.precision))
    }
}

/// A model that perceives one input, of which a linear projector makes `tokens` positions.
fn artifact(tokens: usize) -> anyhow::Result<ArtifactConfig> {
    let inputs = json!([{
        "name": "media", "placeholder": "<media>",
        "encoder": { "kind": "log_mel", "mel": {} },
        "projector": { "kind": "linear", "tokens": tokens },
    }]);
    Ok(ArtifactConfig {
        format: FORMAT,
        run: "bench".into(),
        decoder: DecoderSource::Own,
        inputs: serde_json::from_value(inputs)?,
        fusions: Vec::new(),
        transcript: false,
        prompt: PromptConfig {
            template: ["<media>", "{instruction}"].map(String::from).to_vec(),
            instructions: [(Task::Emotion, vec!["?".into()])].into(),
        },
        labels: None,
        head: None,
        valence: None,
        alignment: None,
        mask: false,
        mute: false,
    })
}

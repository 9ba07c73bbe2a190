//! A tiny model and a handful of invented clips, on which data set, evaluation and replicas are tested.

mod backbones;
mod dataset;
mod evaluation;
mod features;
mod import;
mod losses;
mod replicas;
mod training;

use std::collections::BTreeMap;

use burn::tensor::Device;
use limbic_data::{Clip, Label, LabelSet, PromptCompiler, PromptConfig, Task, TextTokenizer};
use limbic_encoders::Features;
use limbic_llama::{LlamaConfig, LoraConfig};
use limbic_model::{
    AlignmentConfig, ArtifactConfig, DecoderSource, EmotionLlm, FORMAT, HeadConfig, InputConfig,
};
use limbic_weights::CounterRng;

use crate::{Dataset, Dropped, EncodedClip, LossRecipe, Objectives, Questions};

const INPUTS: &str = r#"[
  {"name": "voice", "placeholder": "<voice>",
   "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}},
   "projector": {"kind": "mean_pool", "hidden": 6}}
]"#;

struct World {
    config: ArtifactConfig,
    compiler: PromptCompiler,
    tokenizer: TextTokenizer,
    labels: LabelSet,
    /// Of the decoder.
    vocabulary: usize,
}

fn device() -> Device {
    Device::flex()
}

impl World {
    fn new() -> Self {
        let labels = LabelSet {
            name: "two".into(),
            labels: ["happy", "sad"]
                .map(|name| Label {
                    name: name.into(),
                    aliases: Vec::new(),
                })
                .to_vec(),
        };
        let config = ArtifactConfig {
            format: FORMAT,
            run: "tiny".into(),
            decoder: DecoderSource::Own,
            inputs: serde_json::from_str::<Vec<InputConfig>>(INPUTS).unwrap(),
            fusions: Vec::new(),
            transcript: true,
            prompt: PromptConfig {
                template: ["V <voice>", "W {transcript}", "{instruction}"]
                    .map(String::from)
                    .to_vec(),
                instructions: [
                    (
                        Task::Emotion,
                        vec!["Which of {labels}?".into(), "Name it.".into()],
                    ),
                    (Task::Reason, vec!["Why?".into()]),
                    (Task::Describe, vec!["Tell.".into()]),
                ]
                .into(),
            },
            labels: Some(labels.clone()),
            head: Some(HeadConfig::default()),
            valence: Some(HeadConfig::default()),
            alignment: Some(AlignmentConfig { dim: 5 }),
            mask: true,
            mute: false,
        };
        let compiler = config.compiler().unwrap();
        let tokenizer = TextTokenizer::train(&compiler.texts(), 270).unwrap();
        Self {
            vocabulary: tokenizer.vocab_size(),
            config,
            compiler,
            tokenizer,
            labels,
        }
    }

    fn model(&self, dropout: f64) -> EmotionLlm {
        let llama = LlamaConfig {
            bos_token_id: Some(self.tokenizer.bos),
            eos_token_ids: vec![self.tokenizer.eos],
            ..LlamaConfig::small(self.tokenizer.vocab_size(), 16, 2, 2)
        };
        let lora = LoraConfig {
            lora_dropout: dropout,
            ..LoraConfig::new(2, 4.0, &["q_proj", "up_proj"])
        };
        let llama = limbic_weights::seed(llama.init(&device()), 1)
            .with_lora(&lora, 1)
            .unwrap();
        self.config
            .model()
            .unwrap()
            .init(llama, 1, &device())
            .unwrap()
    }

    /// Clips `c0` to `c(n-1)` of different lengths; every third one has no voice.
    fn clips(&self, count: usize) -> Vec<EncodedClip> {
        let clip = |number: usize| {
            let length = 3 + number % 4;
            let rng = CounterRng::new(11).index(number as u64);
            let features = Features {
                length,
                dim: 4,
                data: (0..(4 * length) as u64)
                    .map(|i| rng.normal(i) as f32)
                    .collect(),
            };
            EncodedClip {
                clip: Clip {
                    id: format!("c{number}"),
                    transcript: Some("word ".repeat(1 + number % 3)),
                    emotion: Some(["happy", "sad"][number % 2].into()),
                    reason: Some("The words say so.".into()),
                    seen: Some(format!("face {number} and brow")),
                    valence: (number % 4 != 1).then_some(0.2 * number as f32 - 0.7),
                    ..Clip::default()
                },
                features: vec![(number % 3 != 2).then(|| features.into())],
            }
        };
        (0..count).map(clip).collect()
    }

    fn dataset(
        &self,
        clips: Vec<EncodedClip>,
        tasks: &[(Task, f64)],
        max_tokens: usize,
    ) -> (Dataset, Dropped) {
        self.try_dataset(clips, tasks, max_tokens).unwrap()
    }

    fn try_dataset(
        &self,
        clips: Vec<EncodedClip>,
        tasks: &[(Task, f64)],
        max_tokens: usize,
    ) -> anyhow::Result<(Dataset, Dropped)> {
        let tasks: BTreeMap<Task, f64> = tasks.iter().copied().collect();
        let questions = Questions {
            tasks: &tasks,
            labels: Some(&self.labels),
            config: &self.config,
            compiler: &self.compiler,
            tokenizer: &self.tokenizer,
            vocabulary: self.vocabulary,
            max_tokens,
            max_new_tokens: 4,
            captions: true,
            seed: 3,
        };
        Dataset::new(clips, &questions)
    }

    /// The objectives of `loss` for models of this world.
    fn objectives(&self, loss: &LossRecipe, train: &Dataset) -> Objectives {
        Objectives::new(loss, &self.config, &self.tokenizer, train, 3).unwrap()
    }
}

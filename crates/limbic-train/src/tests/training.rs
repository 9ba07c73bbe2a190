//! Ten steps of all objectives against the same ten by transformers, PEFT and torch; scripts/golden/training.py made them.

use std::path::Path;

use burn::tensor::Tensor;
use limbic_data::{Clip, Compiled, Segment};
use limbic_encoders::Features;
use limbic_llama::LlamaConfig;
use limbic_model::{ArtifactConfig, EmotionLlm, Part, Trainables};
use limbic_weights::{CounterRng, Weights};
use serde_json::{Value, json};

use super::device;
use crate::dataset::Drawn;
use crate::trainer::held;
use crate::{
    AdamW, Batching, EncodedClip, LossMeans, Objectives, Replicas, Sample, Shards, TrainRecipe,
    clip, schedule,
};

fn folder() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/training"
    ))
}

/// The golden run, up to what a test changes in it.
struct Golden {
    json: Value,
    config: ArtifactConfig,
    model: EmotionLlm,
    train: TrainRecipe,
    samples: Vec<Sample>,
    compiled: Vec<Compiled>,
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

impl Golden {
    fn new() -> Self {
        let text = std::fs::read_to_string(folder().join("training.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let config: ArtifactConfig = serde_json::from_value(json!({
            "format": 1, "run": "golden", "decoder": "own", "transcript": false,
            "inputs": [{
                "name": "voice", "placeholder": "<voice>",
                "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}},
                "projector": {"kind": "linear", "tokens": 2},
            }],
            "prompt": {"template": ["<voice>", "{instruction}"], "instructions": {}},
            "labels": {"name": "three", "labels": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            "head": {"hidden": 5}, "valence": {}, "alignment": {"dim": 6}, "mask": true,
        }))
        .unwrap();
        let size = |key: &str| json["llama"][key].as_u64().unwrap() as usize;
        let llama = LlamaConfig {
            intermediate_size: size("intermediate_size"),
            num_key_value_heads: size("num_key_value_heads"),
            max_position_embeddings: size("max_position_embeddings"),
            ..LlamaConfig::small(
                size("vocab_size"),
                size("hidden_size"),
                size("num_hidden_layers"),
                size("num_attention_heads"),
            )
        };
        let lora = serde_json::from_value(json["lora"].clone()).unwrap();
        let llama = limbic_weights::seed(llama.init(&device()), 0)
            .with_lora(&lora, 0)
            .unwrap();
        let model = config.model().unwrap().init(llama, 0, &device()).unwrap();
        let weights = Weights::read(&folder().join("start.safetensors")).unwrap();
        let model = limbic_weights::load(model, &weights).unwrap();
        let (samples, compiled) = json["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(sample)
            .unzip();
        Self {
            train: serde_json::from_value(json["train"].clone()).unwrap(),
            config,
            model,
            samples,
            compiled,
            json,
        }
    }

    /// The largest relative error of a loss or a norm over all steps, and the largest error of a trained value at the end.
    fn errors(&self) -> (f64, f64) {
        let Self {
            json,
            config,
            model,
            train,
            ..
        } = self;
        let seed = json["seed"].as_u64().unwrap();
        let vocabulary = json["llama"]["vocab_size"].as_u64().unwrap() as usize;
        let objectives =
            Objectives::over(&train.loss, config, 1, vocabulary, &self.samples, seed).unwrap();
        let trainables = Trainables::of(model, &[Part::Lora, Part::Projectors, Part::Head]);
        let replicas = Replicas::new(model, &[device(), device()]).unwrap();
        let mut values: Tensor<1> = trainables.gather(model);
        let mut optimizer = AdamW::new(train, &trainables, &values);
        let mut worst = 0.0f64;
        let mut compare = |got: f64, wanted: &Value| {
            let wanted = wanted.as_f64().unwrap();
            worst = worst.max((got - wanted).abs() / wanted.abs().max(1e-3));
        };
        for (number, wanted) in json["steps"].as_array().unwrap().iter().enumerate() {
            let drawn: Vec<Drawn> = ids(&wanted["drawn"])
                .iter()
                .map(|index| Drawn {
                    sample: &self.samples[*index as usize],
                    compiled: self.compiled[*index as usize].clone(),
                })
                .collect();
            let count = drawn.len() / 2;
            let shards = Shards::cut(drawn, count, train.batching);
            let step = number as u64;
            let key = CounterRng::new(0);
            let got = replicas.gradient(&trainables, &values, &shards, &objectives, step, key);
            let weights = objectives.weights(step);
            let (sums, norm) = got.read();
            let loss = LossMeans::new(objectives.active(), &sums, &got.divisors, &weights);
            assert_eq!(loss.terms.len(), 5);
            for (term, mean) in &loss.terms {
                compare(*mean, &wanted["terms"][term.name()]);
            }
            compare(loss.total, &wanted["total"]);
            compare(norm, &wanted["norm"]);
            let gradient = clip(got.gradient, norm, train.clip_norm);
            let rate = schedule(train, step);
            let values_after = optimizer.step(values.clone(), gradient, &got.took_part, rate);
            values = held(values_after, &trainables);
        }
        let end = Weights::read(&folder().join("end.safetensors")).unwrap();
        let got = trainables.to_weights(model, &values);
        assert_eq!(got.num_values(), end.num_values());
        let mut farthest = 0.0f64;
        for (name, wanted) in &end.tensors {
            let got = &got.tensors[name];
            assert_eq!(got.shape, wanted.shape, "{name}");
            for (got, wanted) in got.values.iter().zip(&wanted.values) {
                farthest = farthest.max(f64::from((got - wanted).abs()));
            }
        }
        (worst, farthest)
    }
}

fn sample(value: &Value) -> (Sample, Compiled) {
    let rows: Option<Vec<Vec<f32>>> = serde_json::from_value(value["features"].clone()).unwrap();
    let features = rows.map(|rows| Features {
        length: rows.len(),
        dim: rows[0].len(),
        data: rows.concat(),
    });
    let mut prompt = vec![Segment::Text(ids(&value["before"]))];
    if features.is_some() {
        prompt.push(Segment::Media {
            input: 0,
            tokens: 2,
        });
    }
    prompt.push(Segment::Text(ids(&value["after"])));
    let sample = Sample {
        encoded: EncodedClip {
            clip: Clip {
                valence: value["valence"].as_f64().map(|valence| valence as f32),
                ..Clip::default()
            },
            features: vec![features.map(Into::into)],
        },
        label: value["label"].as_u64().map(|label| label as usize),
        caption: ids(&value["caption"]),
        answers: [].into(),
        lengths: [].into(),
    };
    let compiled = Compiled {
        prompt,
        answer: ids(&value["answer"]),
        transcript: Vec::new(),
    };
    (sample, compiled)
}

#[test]
fn ten_steps_of_all_objectives_are_torchs() {
    let (loss, values) = Golden::new().errors();
    assert!(loss < 1e-4, "a loss is off by {loss}");
    assert!(values < 2e-4, "a trained value is off by {values}");
}

#[test]
fn so_are_they_packed() {
    let mut golden = Golden::new();
    golden.train.batching = Batching::Packed;
    let (loss, values) = golden.errors();
    assert!(loss < 1e-4, "a loss is off by {loss}");
    assert!(values < 2e-4, "a trained value is off by {values}");
}

#[test]
fn ten_other_steps_are_not() {
    type Change = fn(&mut Golden);
    let changes: [(&str, Change); 6] = [
        ("LoRA+", |golden| golden.train.lora_plus = 1.0),
        ("weight decay", |golden| golden.train.weight_decay = 0.5),
        ("focal form", |golden| golden.train.loss.focal_gamma = 0.0),
        ("concordance", |golden| golden.train.loss.valence.ccc = 0.0),
        ("a caption", |golden| golden.samples[0].caption.reverse()),
        ("a bias", |golden| {
            let weights = Weights::read(&folder().join("start.safetensors")).unwrap();
            let mut weights = weights;
            let bias = weights.tensors.get_mut("valence.output.bias").unwrap();
            bias.values.fill(0.0);
            golden.model = limbic_weights::load(golden.model.clone(), &weights).unwrap();
        }),
    ];
    for (what, change) in changes {
        let mut golden = Golden::new();
        change(&mut golden);
        let (loss, values) = golden.errors();
        assert!(
            loss > 1e-3 || values > 2e-3,
            "{what} makes no difference: {loss} {values}"
        );
    }
}

//! A model of a few thousand values with two inputs, two fusions of them, adapters and a head, on which all tests of this crate run.

mod artifact;
mod batch;
mod llama2c;
mod trainables;

use burn::tensor::{Device, Tensor};
use limbic_data::{
    Compiled, Label, LabelSet, PromptCompiler, PromptConfig, Segment, Task, TextTokenizer, Turn,
};
use limbic_encoders::Features;
use limbic_llama::{LlamaConfig, LoraConfig};
use limbic_weights::CounterRng;

use crate::{
    AlignmentConfig, Artifact, ArtifactConfig, Batch, ClipMedia, DecoderSource, Example, FORMAT,
    FusedConfig, HeadConfig, InputConfig, Layout, MaskedBatch, MaskedCaption, PairBatch, Part,
    Trainables,
};

pub(crate) const ALL_PARTS: [Part; 5] = [
    Part::Decoder,
    Part::Lora,
    Part::Projectors,
    Part::Fusions,
    Part::Head,
];

/// A voice read by an attending projector, and a pitch of another width read by a pooling one.
const INPUTS: &str = r#"[
  {"name": "voice", "placeholder": "<voice>",
   "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}, "log": "log10", "floor": 1e-10},
   "projector": {"kind": "qformer", "queries": 3, "layers": 1, "heads": 2, "dim": 8, "intermediate": 8,
                 "max_length": 8, "standardise": true}},
  {"name": "pitch", "placeholder": "<pitch>",
   "encoder": {"kind": "mfcc", "mel": {"n_mels": 8}, "n_mfcc": 3},
   "projector": {"kind": "mean_pool", "hidden": 6}}
]"#;

/// Both of them together, and the voice with the words, on which no line of the template waits for both.
const FUSIONS: &str = r#"[
  {"name": "both", "placeholder": "<both>", "sources": ["voice", "pitch"],
   "fusion": {"kind": "attention", "tokens": 2, "standardise": true}},
  {"name": "said", "placeholder": "<said>", "sources": ["transcript", "voice"],
   "fusion": {"kind": "attention"}}
]"#;

/// A model, its prompts, and two clips.
pub(crate) struct Fixture {
    pub(crate) artifact: Artifact,
    pub(crate) compiler: PromptCompiler,
    pub(crate) voices: [Features; 2],
    pub(crate) pitches: [Features; 2],
}

pub(crate) fn device() -> Device {
    Device::flex()
}

impl Fixture {
    /// With a decoder of its own and no adapters.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_output_layer(seed, false)
    }

    /// The same with a decoder whose embedding table may be its output layer, too.
    pub(crate) fn with_output_layer(seed: u64, is_tied: bool) -> Self {
        let config = ArtifactConfig {
            format: FORMAT,
            run: "tiny".into(),
            decoder: DecoderSource::Own,
            inputs: serde_json::from_str::<Vec<InputConfig>>(INPUTS).unwrap(),
            fusions: serde_json::from_str::<Vec<FusedConfig>>(FUSIONS).unwrap(),
            transcript: true,
            prompt: PromptConfig {
                template: [
                    "Voice <voice>",
                    "Pitch <pitch> end",
                    "Both <both>",
                    "Said <said>",
                    "Words: {transcript}",
                    "{instruction}",
                ]
                .map(String::from)
                .to_vec(),
                instructions: [(Task::Emotion, vec!["Which of {labels}?".to_string()])].into(),
            },
            labels: Some(LabelSet {
                name: "three".into(),
                labels: ["happy", "sad", "calm"]
                    .map(|name| Label {
                        name: name.into(),
                        aliases: Vec::new(),
                    })
                    .to_vec(),
            }),
            head: Some(HeadConfig {
                hidden: 5,
                ..HeadConfig::default()
            }),
            valence: Some(HeadConfig::default()),
            alignment: Some(AlignmentConfig { dim: 6 }),
            mask: true,
            mute: false,
        };
        let compiler = config.compiler().unwrap();
        let tokenizer = TextTokenizer::train(&compiler.texts(), 270).unwrap();
        let llama = LlamaConfig {
            num_key_value_heads: 1,
            tie_word_embeddings: is_tied,
            bos_token_id: Some(tokenizer.bos),
            eos_token_ids: vec![tokenizer.eos],
            ..LlamaConfig::small(tokenizer.vocab_size(), 16, 2, 2)
        };
        let llama = limbic_weights::seed(llama.init(&device()), seed);
        let model = config
            .model()
            .unwrap()
            .init(llama, seed, &device())
            .unwrap();
        let rng = CounterRng::new(9);
        let features = |site: &str, length: usize, dim: usize| Features {
            length,
            dim,
            data: (0..(length * dim) as u64)
                .map(|i| rng.site(site).normal(i) as f32)
                .collect(),
        };
        let (voice, pitch) = (|i, n| features(i, n, 4), |i, n| features(i, n, 9));
        let pitch_dim = config.inputs[1].encoder.feature_dim();
        assert_eq!((config.inputs[0].encoder.feature_dim(), pitch_dim), (4, 9));
        Self {
            artifact: Artifact {
                config,
                model,
                tokenizer,
                decoder: "".into(),
            },
            compiler,
            voices: [voice("v0", 8), voice("v1", 5)],
            pitches: [pitch("p0", 3), pitch("p1", 6)],
        }
    }

    /// With adapters whose second factors are not the zeros they begin as, so that every value has a gradient.
    pub(crate) fn with_lora(mut self) -> Self {
        let lora = LoraConfig::new(2, 4.0, &["q_proj", "v_proj", "down_proj"]);
        let model = self.artifact.model;
        let model = crate::EmotionLlm {
            llama: model.llama.with_lora(&lora, 3).unwrap(),
            ..model
        };
        let trainables = Trainables::of(&model, &[Part::Lora]);
        let rng = CounterRng::new(5).site("lora");
        let values: Vec<f32> = (0..trainables.num_values() as u64)
            .map(|i| 0.3 * rng.normal(i) as f32)
            .collect();
        let flat = Tensor::<1>::from_data(values.as_slice(), &device());
        self.artifact.model = trainables.scatter_plain(model, &flat);
        self
    }

    /// A compiled question about a clip that has the marked inputs.
    pub(crate) fn compile(
        &self,
        transcript: &str,
        present: [bool; 2],
        answer: Option<&str>,
    ) -> Compiled {
        let instruction = &self.compiler.instructions(Task::Emotion).unwrap()[0];
        let turn = Turn {
            instruction,
            transcript: Some(transcript),
            answer,
        };
        let present = self
            .artifact
            .config
            .present(&present, !transcript.is_empty());
        self.compiler
            .compile(&turn, &present, &self.artifact.tokenizer)
            .unwrap()
    }

    /// Both clips: the first has all and says more, the second is shorter and lacks its pitch.
    pub(crate) fn two(&self) -> [Compiled; 2] {
        [
            self.compile("what a lovely long day", [true, true], Some("happy")),
            self.compile("no", [true, false], Some("sad")),
        ]
    }

    /// Both clips with masked captions, and beside whole ones.
    pub(crate) fn captions(&self) -> (MaskedBatch, PairBatch) {
        let features: [&[Option<&Features>]; 2] = [
            &[Some(&self.voices[0]), Some(&self.pitches[0])],
            &[Some(&self.voices[1]), None],
        ];
        let captions = ["a bright voice, high and fast", "a low voice"]
            .map(|text| self.artifact.tokenizer.encode(text).unwrap());
        let masked = [0, 1].map(|row| {
            let rng = CounterRng::new(4).index(row as u64);
            MaskedCaption::draw(&captions[row], 0.3, 200, rng)
        });
        let bos = self.artifact.tokenizer.bos;
        let slot = |input: usize| Segment::Media {
            input,
            tokens: self.compiler.slots()[input].tokens,
        };
        // The first clip has both inputs and their fusion.
        let slots = [vec![slot(0), slot(1), slot(2)], vec![slot(0)]];
        let media = |row: usize| ClipMedia {
            features: features[row],
            slots: &slots[row],
        };
        let pairs = [0, 1].map(|row| (media(row), captions[row].as_slice()));
        let masked = [0, 1].map(|row| (media(row), &masked[row]));
        (
            MaskedBatch::new(&masked, bos, &device()),
            PairBatch::new(&pairs, bos, &device()),
        )
    }

    /// A batch of the clips of these numbers.
    pub(crate) fn batch(&self, compiled: &[Compiled; 2], rows: &[usize]) -> Batch {
        self.batch_as(Layout::Padded, compiled, rows)
    }

    /// The same, laid out as `layout` says.
    pub(crate) fn batch_as(
        &self,
        layout: Layout,
        compiled: &[Compiled; 2],
        rows: &[usize],
    ) -> Batch {
        self.with_examples(compiled, rows, |examples| {
            Batch::new(examples, layout, &device())
        })
    }

    /// The clips of these numbers.
    pub(crate) fn with_examples<R>(
        &self,
        compiled: &[Compiled; 2],
        rows: &[usize],
        use_them: impl FnOnce(&[Example]) -> R,
    ) -> R {
        let features = [
            [Some(&self.voices[0]), Some(&self.pitches[0])],
            [Some(&self.voices[1]), None],
        ];
        let examples: Vec<Example> = rows
            .iter()
            .map(|row| Example {
                compiled: &compiled[*row],
                features: &features[*row],
                label: Some(*row),
                valence: Some([0.5, -0.25][*row]),
            })
            .collect();
        use_them(&examples)
    }
}

pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .without_autodiff()
        .into_data()
        .try_into_vec()
        .unwrap()
}

/// Largest absolute difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

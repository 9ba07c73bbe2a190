//! A training step of a tiny decoder with adapters: grouped queries, rows of two lengths, a few supervised positions,
//! dropout.

use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_llama::{Dropout, LlamaConfig, LoraConfig, Padding, Pass, Recompute, Tape};
use limbic_model::{EmotionLlm, EmotionLlmConfig, Part, Trainables};
use limbic_weights::{CounterRng, Precision};

const VOCABULARY: usize = 96;
const SLOTS: usize = 12;
/// Positions of each row that are no padding.
const LENGTHS: [usize; 2] = [12, 9];
/// Positions at the end of each row whose next token is learnt.
const SUPERVISED: usize = 4;
const SEED: u64 = 7;

/// What it gives.
pub(super) struct Step {
    loss: f64,
    gradient: Vec<f64>,
}

impl Step {
    /// The larger of the differences of losses and of gradients, relative to the largest value of each.
    pub(super) fn difference(&self, reference: &Self) -> f64 {
        let loss = relative(&[self.loss], &[reference.loss]);
        let gradient = relative(&self.gradient, &reference.gradient);
        // `f64::max` would pass over what is no number.
        if loss > gradient || loss.is_nan() {
            loss
        } else {
            gradient
        }
    }
}

/// The largest difference over the largest wanted value.
pub(super) fn relative(got: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len(), "values to compare");
    let scale = wanted.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let differences = got.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    let most = differences.fold(
        0.0,
        |most: f64, x| if x > most || x.is_nan() { x } else { most },
    );
    most / scale
}

/// Loss and gradient on `device`, with the frozen weights in `precision`.
///
/// # Errors
/// When the model cannot be built.
pub(super) fn run(device: &Device, precision: Precision) -> anyhow::Result<Step> {
    let tiny = Tiny::new(device, precision)?;
    Ok(tiny.step(&tiny.start()))
}

/// How far the gradient's length is from the slope of the loss along it, relative to that.
///
/// # Errors
/// When the model cannot be built.
pub(super) fn slope_difference(device: &Device) -> anyhow::Result<f64> {
    const REACH: f64 = 0.01;
    let tiny = Tiny::new(device, Precision::F32)?;
    let start = tiny.start();
    let gradient = tiny.step(&start).gradient;
    let length = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
    let loss = |reach: f64| {
        let moved = start.iter().zip(&gradient);
        let moved: Vec<f32> = moved
            .map(|(value, x)| (f64::from(*value) + reach * x / length) as f32)
            .collect();
        tiny.step(&moved).loss
    };
    let slope = (loss(REACH) - loss(-REACH)) / (2.0 * REACH);
    Ok(relative(&[length], &[slope]))
}

struct Tiny {
    model: EmotionLlm,
    trainables: Trainables,
    device: Device,
}

impl Tiny {
    fn new(device: &Device, precision: Precision) -> anyhow::Result<Self> {
        let config = LlamaConfig {
            num_key_value_heads: 2,
            ..LlamaConfig::small(VOCABULARY, 64, 2, 4)
        };
        let lora = LoraConfig {
            lora_dropout: 0.1,
            ..LoraConfig::new(4, 8.0, &["q_proj", "v_proj", "down_proj"])
        };
        let llama = limbic_weights::seed(config.init(device), SEED);
        let llama = llama.hold_in(precision).with_lora(&lora, SEED)?;
        let around = EmotionLlmConfig {
            inputs: Vec::new(),
            fusions: Vec::new(),
            head: None,
            valence: None,
            alignment: None,
            mask: false,
        };
        let model = around.init(llama, SEED, device)?;
        Ok(Self {
            trainables: Trainables::of(&model, &[Part::Lora]),
            model,
            device: device.clone(),
        })
    }

    /// Trained values at which every gradient is something: fresh second factors would be zero.
    fn start(&self) -> Vec<f32> {
        let rng = CounterRng::new(SEED).site("start");
        let count = self.trainables.num_values() as u64;
        (0..count).map(|i| 0.1 * rng.normal(i) as f32).collect()
    }

    fn step(&self, values: &[f32]) -> Step {
        let device = &self.device;
        let rng = CounterRng::new(SEED).site("tokens");
        let token = |place: usize| (rng.bits(place as u64) % VOCABULARY as u64) as i64;
        let rows = LENGTHS.len();
        let ids: Vec<i64> = (0..rows * SLOTS).map(token).collect();
        let learnt = LENGTHS.iter().enumerate().flat_map(|(row, length)| {
            (length - SUPERVISED..*length).map(move |slot| row * SLOTS + slot)
        });
        let learnt: Vec<usize> = learnt.collect();
        let targets: Vec<i64> = (0..learnt.len()).map(|i| token(1000 + i)).collect();

        let values = Tensor::<1>::from_data(values, device);
        let model = self.trainables.scatter_tracked(self.model.clone(), &values);
        let llama = &model.llama;
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, SLOTS]), device);
        let tape = Tape::new(Recompute::None);
        let pass = Pass {
            dropout: Dropout::keyed(CounterRng::new(SEED).site("dropout")),
            tape: Some(&tape),
        };
        let states = llama.hidden_at(llama.embed(ids), &Padding::Right, &learnt, pass);
        let targets = Tensor::<1, Int>::from_data(targets.as_slice(), device);
        let loss = llama.cross_entropy_sum(states, targets, pass.dropout);
        let slopes = tape.backward(loss.clone());
        let (gradient, _) = self.trainables.gradients(&model, &slopes);
        Step {
            loss: f64::from(loss.without_autodiff().into_scalar::<f32>()),
            gradient: gradient.into_data().iter::<f64>().collect(),
        }
    }
}

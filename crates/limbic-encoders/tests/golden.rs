//! Encoders and projectors against librosa and PyTorch.
//!
//! The numbers in tests/golden/encoders come from scripts/golden/front_ends.py and
//! scripts/golden/encoders.py, which build the same models from other people's layers.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use limbic_encoders::{Encoder, EncoderConfig, Media, Projector, ProjectorConfig};
use limbic_weights::{ModulePath, Weights};

fn golden(name: &str) -> Weights {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoders");
    Weights::read(&folder.join(format!("{name}.safetensors")))
        .expect("golden files are part of the repository")
}

fn values<'a>(golden: &'a Weights, name: &str) -> &'a [f32] {
    &golden.tensors[name].values
}

fn tensor(golden: &Weights, name: &str) -> Tensor<3> {
    let stored = &golden.tensors[name];
    Tensor::from_data(
        TensorData::new(stored.values.clone(), stored.shape.clone()),
        &Device::flex(),
    )
}

/// Largest difference, as a part of the largest wanted value.
fn relative_error(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len(), "another number of values");
    assert!(got.iter().all(|value| value.is_finite()), "not finite");
    let largest = wanted
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    let difference = got
        .iter()
        .zip(wanted)
        .fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
    difference / largest
}

fn encoder(yaml: &str) -> Encoder {
    let config: EncoderConfig = serde_yaml::from_str(yaml).expect("a config of this crate");
    config.init(&Device::flex()).expect("a config that works")
}

/// An encoder whose parameters come from the `weights.*` part of a golden file.
fn loaded_encoder(yaml: &str, golden: &Weights) -> Encoder {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("weights.safetensors");
    golden
        .below("weights.")
        .write(&path)
        .expect("a writable folder");
    encoder(&format!("{yaml}\nweights: {}", path.display()))
}

fn assert_front_end(yaml: &str, name: &str) {
    let golden = golden("front_ends");
    let sound = Media::Waveform {
        samples: values(&golden, "sound"),
        sample_rate: 16_000,
    };
    let features = encoder(yaml).encode(&sound).expect("0.4 s of sound");
    assert_eq!(
        [features.length, features.dim],
        golden.tensors[name].shape[..]
    );
    let error = relative_error(&features.data, values(&golden, name));
    assert!(error < 1e-4, "{name}: relative error {error}");
}

#[test]
fn log_mel_is_librosas() {
    assert_front_end("{kind: log_mel, mel: {n_mels: 80}}", "log_mel");
}

#[test]
fn log_mel_in_the_htk_manner_is_librosas() {
    let mel = "{n_fft: 512, window: 400, hop: 200, n_mels: 40, fmin: 60, fmax: 7600, scale: htk, norm: none, pad: reflect}";
    assert_front_end(
        &format!("{{kind: log_mel, mel: {mel}, log: ln, floor: 1.0e-6, mean: -4, std: 3}}"),
        "htk",
    );
}

#[test]
fn mfcc_and_slopes_are_librosas() {
    assert_front_end(
        "{kind: mfcc, mel: {n_mels: 40}, n_mfcc: 13, deltas: 2}",
        "mfcc",
    );
}

const VIT: &str = "
kind: vit
image_size: 16
patch_size: 4
dim: 24
depth: 2
heads: 3
mlp_ratio: 2
mean: [0.48, 0.45, 0.41]
std: [0.26, 0.25, 0.27]
";

fn assert_vit(options: &str, name: &str) {
    let golden = golden(name);
    let data: Vec<u8> = values(&golden, "frames")
        .iter()
        .map(|byte| *byte as u8)
        .collect();
    let frames = Media::Frames {
        data: &data,
        count: 2,
        size: 16,
    };
    let features = loaded_encoder(&format!("{VIT}{options}"), &golden)
        .encode(&frames)
        .expect("two frames");
    let error = relative_error(&features.data, values(&golden, "output"));
    assert!(error < 2e-5, "{name}: relative error {error}");
}

#[test]
fn vit_with_learned_positions_is_pytorchs() {
    assert_vit("class_token: true", "vit");
}

#[test]
fn vit_with_computed_positions_is_pytorchs() {
    assert_vit("position: sincos", "vit_sincos");
}

#[test]
fn audio_transformer_is_pytorchs() {
    let golden = golden("audio_transformer");
    let yaml = "
kind: audio_transformer
front_end: {mel: {n_mels: 20}, stack: 4}
dim: 32
depth: 2
heads: 4
intermediate: 96
";
    let sound = Media::Waveform {
        samples: values(&golden, "sound"),
        sample_rate: 16_000,
    };
    let features = loaded_encoder(yaml, &golden)
        .encode(&sound)
        .expect("0.2 s of sound");
    let error = relative_error(&features.data, values(&golden, "output"));
    assert!(error < 2e-5, "relative error {error}");
}

fn qformer(golden: &Weights) -> Projector {
    let yaml = "{kind: qformer, queries: 5, layers: 3, heads: 4, dim: 16, intermediate: 32, cross_attention_every: 2, max_length: 9, standardise: true}";
    let config: ProjectorConfig = serde_yaml::from_str(yaml).expect("a config of this crate");
    limbic_weights::load(
        config.init(10, 12, &Device::flex()),
        &golden.below("weights."),
    )
    .expect("every weight, by our names")
}

#[test]
fn qformer_is_pytorchs() {
    let golden = golden("qformer");
    let output = qformer(&golden).forward(tensor(&golden, "features"), &[7, 3]);
    assert_eq!(output.dims(), [2, 5, 12]);
    let output: Vec<f32> = output.into_data().iter::<f32>().collect();
    let error = relative_error(&output, values(&golden, "output"));
    assert!(error < 2e-5, "relative error {error}");
}

/// Every gradient of the Q-Former, and of its features, against PyTorch's autograd.
#[test]
fn qformer_gradients_are_pytorchs() {
    let golden = golden("qformer");
    let projector = qformer(&golden).map(&mut Track(ModulePath::default()));
    let features = tensor(&golden, "features").autodiff().require_grad();
    let output = projector.forward(features.clone(), &[7, 3]);
    let mut gradients = (output * tensor(&golden, "probe")).sum().backward();

    let got: Vec<f32> = features
        .grad(&gradients)
        .expect("tracked")
        .into_data()
        .iter::<f32>()
        .collect();
    let error = relative_error(&got, values(&golden, "features_gradient"));
    assert!(error < 1e-4, "features: relative error {error}");

    let mut compare = Compare {
        path: ModulePath::default(),
        gradients: GradientsParams::from_module(&mut gradients, &projector),
        wanted: golden.below("gradients."),
        compared: 0,
    };
    projector.visit(&mut compare);
    assert_eq!(compare.compared, compare.wanted.tensors.len());
}

/// Tracks the trainable parameters, as the model does.
struct Track(ModulePath);

impl ModuleMapper for Track {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.name().as_str() {
            "input_mean" | "input_std" => param,
            _ => Param::initialized(param.id, param.val().autodiff().require_grad()),
        }
    }
}

struct Compare {
    path: ModulePath,
    gradients: GradientsParams,
    wanted: Weights,
    compared: usize,
}

impl ModuleVisitor for Compare {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            assert!(
                !self.wanted.tensors.contains_key(&name),
                "no gradient for {name}"
            );
            return;
        };
        let gradient = if self.path.is_transposed() {
            gradient.swap_dims(0, 1)
        } else {
            gradient
        };
        let got: Vec<f32> = gradient.into_data().iter::<f32>().collect();
        let wanted = values(&self.wanted, &name);
        // A key's bias moves all scores of a query alike: its gradient is zero but for rounding.
        if name.ends_with("key.bias") {
            assert!(
                got.iter().chain(wanted).all(|value| value.abs() < 1e-4),
                "{name}: {got:?}"
            );
        } else {
            let error = relative_error(&got, wanted);
            assert!(error < 1e-4, "{name}: relative error {error}");
        }
        self.compared += 1;
    }
}

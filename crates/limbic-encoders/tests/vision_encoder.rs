//! Pretrained vision encoders from pictures and frames on: preprocessing against transformers on Pillow, and the encoder
//! kind that recipes name.
//!
//! The pictures and pixel values in tests/golden/vision come from scripts/golden/vision.py.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use limbic_encoders::vision::{ImageProcessor, Picture, VisionModel};
use limbic_encoders::{Encoder, EncoderConfig, Features, Keep, Media};
use limbic_weights::{NamedTensor, Weights};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/vision")
        .join(name)
}

fn weights(name: &str) -> Weights {
    Weights::read(&golden(name)).expect("golden files are part of the repository")
}

fn read(folder: &Path) -> VisionModel {
    VisionModel::read(folder, &Device::flex()).unwrap_or_else(|error| panic!("{error}"))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn largest_difference(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len(), "another number of values");
    got.iter()
        .zip(wanted)
        .fold(0.0, |largest, (a, b)| match (a - b).abs() {
            error if error.is_finite() => largest.max(error),
            _ => f32::INFINITY,
        })
}

fn pictures(golden: &Weights) -> Vec<(&'static str, [usize; 2], Vec<u8>)> {
    ["tall", "wide"]
        .map(|name| {
            let tensor = &golden.tensors[&format!("picture.{name}")];
            let bytes = tensor.values.iter().map(|value| *value as u8).collect();
            (name, [tensor.shape[0], tensor.shape[1]], bytes)
        })
        .to_vec()
}

/// Every published spelling of `preprocessor_config.json`, against transformers on PIL.
#[test]
fn pictures_are_prepared_as_by_transformers() {
    let golden_values = weights("processors.safetensors");
    let text = std::fs::read_to_string(golden("processors.json")).expect("a golden file");
    let cases: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    assert!(cases.len() >= 8);
    for (case, keys) in cases {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(path, keys.to_string()).expect("a writable folder");
        let processor = ImageProcessor::read(folder.path())
            .unwrap_or_else(|error| panic!("{case}: {error}"))
            .expect("the file just written");
        for (name, [height, width], data) in pictures(&golden_values) {
            let picture = Picture {
                width,
                height,
                data: &data,
            };
            let got = processor.run(picture).expect("a whole picture");
            let wanted = &golden_values.tensors[&format!("{case}.{name}")];
            assert_eq!(wanted.shape[1..], processor.output_size(height, width));
            // The same bytes after resizing: what is left is the rounding of one multiplication.
            let error = largest_difference(&got, &wanted.values);
            assert!(error < 1e-6, "{case} {name}: {error}");
        }
    }
}

#[test]
fn a_folder_prepares_pictures_and_runs_them() {
    let golden_values = weights("processors.safetensors");
    let wanted = weights("clip/pictures.safetensors");
    let model = read(&golden("clip"));
    let stored = pictures(&golden_values);
    let pictures: Vec<Picture> = stored
        .iter()
        .map(|(_, [height, width], data)| Picture {
            width: *width,
            height: *height,
            data,
        })
        .collect();
    let pixels = model.preprocess(&pictures).expect("two pictures");
    let states = model.forward(pixels, Keep::Last(0)).expect("their values");
    assert!(states.hidden.is_empty());
    let pooled = values(states.pooled.expect("CLIP pools"));
    let error = largest_difference(&pooled, &wanted.tensors["pooled"].values);
    assert!(error <= 2e-5, "{error}");
}

const CLIP: &str = "
kind: pretrained_vision
model: clip
image_size: 26
mean: [0.48145466, 0.4578275, 0.40821073]
std: [0.26862954, 0.26130258, 0.27577711]
";

fn encoder(yaml: &str, weights: &str) -> Result<Encoder, String> {
    let yaml = format!("{yaml}\nweights: {}", golden(weights).display());
    let config: EncoderConfig = serde_yaml::from_str(&yaml).map_err(|error| error.to_string())?;
    config
        .init(&Device::flex())
        .map_err(|error| error.to_string())
}

fn frames(count: usize, size: usize) -> Vec<u8> {
    (0..count * size * size * 3)
        .map(|i| (i * i % 251) as u8)
        .collect()
}

fn encode(encoder: &Encoder, data: &[u8], size: usize) -> Features {
    let media = Media::Frames {
        data,
        count: data.len() / (3 * size * size),
        size,
    };
    encoder.encode(&media).expect("whole frames")
}

/// Frames of the model's size are pictures that need no resizing: both ways lead to the same states.
#[test]
fn a_recipes_encoder_takes_what_it_asks_for() {
    let data = frames(5, 26);
    let model = read(&golden("clip"));
    let pictures: Vec<Picture> = data
        .chunks(26 * 26 * 3)
        .map(|data| Picture {
            width: 26,
            height: 26,
            data,
        })
        .collect();
    let pixels = model.preprocess(&pictures).expect("five pictures");
    let states = model.forward(pixels, Keep::All).expect("their values");
    let penultimate = states.hidden[2].clone();
    let last = states.last_hidden_state;
    let wanted: [(&str, Tensor<2>); 5] = [
        (
            "{output: pooled, layer: -1, dim: 14}",
            states.pooled.expect("CLIP pools"),
        ),
        (
            "{output: cls, layer: -1, dim: 30}",
            last.clone().narrow(1, 0, 1).flatten(0, 1),
        ),
        ("{output: tokens, layer: -1, dim: 30}", last.flatten(0, 1)),
        (
            "{output: patches, layer: -2, dim: 30}",
            penultimate.clone().narrow(1, 1, 25).flatten(0, 1),
        ),
        (
            "{output: mean, layer: -2, dim: 30}",
            penultimate.narrow(1, 1, 25).mean_dim(1).flatten(0, 1),
        ),
    ];
    for (keys, wanted) in wanted {
        let keys = keys.trim_matches(['{', '}']).replace(", ", "\n");
        let encoder = encoder(&format!("{CLIP}{keys}"), "clip").unwrap_or_else(|e| panic!("{e}"));
        let features = encode(&encoder, &data, 26);
        let [length, dim] = wanted.dims();
        assert_eq!([features.length, features.dim], [length, dim], "{keys}");
        let error = largest_difference(&features.data, &values(wanted));
        assert!(error < 1e-5, "{keys}: {error}");
    }
}

#[test]
fn a_clip_of_video_is_one_sequence() {
    let yaml = "
kind: pretrained_vision
model: videomae
output: tokens
layer: -1
dim: 30
image_size: 21
frames: 6
mean: [0, 0, 0]
std: [1, 1, 1]
";
    let encoder_of = |yaml: &str| encoder(yaml, "videomae").unwrap_or_else(|e| panic!("{e}"));
    let features = encode(&encoder_of(yaml), &frames(13, 21), 21);
    assert_eq!([features.length, features.dim], [27, 30]);
    let mean = encode(
        &encoder_of(&yaml.replace("tokens", "mean")),
        &frames(13, 21),
        21,
    );
    assert_eq!([mean.length, mean.dim], [1, 30]);
    let first: f32 = features.data.iter().step_by(30).sum::<f32>() / 27.0;
    assert!((mean.data[0] - first).abs() < 1e-5);
}

#[test]
fn what_a_recipe_declares_is_checked_against_the_weights() {
    let good = format!("{CLIP}output: patches\nlayer: -1\ndim: 30");
    assert!(encoder(&good, "clip").is_ok());
    for (from, to, wanted) in [
        ("dim: 30", "dim: 32", "key `dim`: got 32, but"),
        (
            "image_size: 26",
            "image_size: 28",
            "key `image_size`: got 28",
        ),
        ("model: clip", "model: mae", "holds clip"),
        ("layer: -1", "layer: -5", "has 4 hidden states"),
        ("layer: -1", "layer: 0", "wanted -1"),
        (
            "output: patches\nlayer: -1",
            "output: pooled\nlayer: -2",
            "wanted -1 for `output: pooled`",
        ),
        ("std: [0.26862954", "std: [0.25", "preprocessor_config.json"),
        ("dim: 30", "dim: 30\nframes: 8", "key `frames`"),
        ("dim: 30", "dim: 30\nln_vision: true", "key `ln_vision`"),
        ("dim: 30", "dims: 30", "unknown field"),
        ("layer: -1\n", "", "missing field `layer`"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        let message = encoder(&bad, "clip").expect_err(to);
        assert!(message.contains(wanted), "{to}: {message}");
    }
    let message = encoder(&good, "absent").expect_err("no weights");
    assert!(message.contains("absent"), "{message}");
}

/// The names that transformers' classifiers and `Blip2ForImageTextRetrieval` add to the vision tower.
#[test]
fn heads_of_other_tasks_are_left_aside() {
    for (folder, heads) in [
        ("clip", &["classifier.weight", "classifier.bias"][..]),
        ("siglip", &["classifier.weight", "classifier.bias"]),
        (
            "blip2_vision",
            &[
                "embeddings.word_embeddings.weight",
                "embeddings.position_embeddings.weight",
                "itm_head.weight",
                "vision_projection.bias",
                "text_projection.weight",
            ],
        ),
    ] {
        let copy = tempfile::tempdir().expect("a temporary folder");
        std::fs::copy(
            golden(folder).join("config.json"),
            copy.path().join("config.json"),
        )
        .expect("a file");
        let mut weights = Weights::read(&golden(folder)).expect("golden weights");
        let mut write = |name: &str| {
            let head = NamedTensor {
                shape: vec![1],
                values: vec![0.5],
            };
            weights.tensors.insert(name.into(), head);
            weights
                .write(&copy.path().join("model.safetensors"))
                .expect("a writable folder");
        };
        heads.iter().for_each(|head| write(head));
        read(copy.path());
        write("another.weight");
        assert!(VisionModel::read(copy.path(), &Device::flex()).is_err());
    }
}

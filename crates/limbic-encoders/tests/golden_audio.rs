//! Pretrained audio encoders against transformers, and against PyTorch where no package has the model.
//!
//! The numbers in tests/golden/audio come from scripts/golden/audio.py.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_encoders::{
    AudioArchitecture, AudioInput, AudioModel, Encoder, EncoderConfig, Features, HiddenStates,
    Keep, Media,
};
use limbic_weights::{NamedTensor, Weights};

const RATE: u32 = 16_000;
const TOLERANCE: f32 = 2e-5;

/// `sound` of scripts/golden/audio.py.
fn sound(samples: usize, seed: u64) -> Vec<f32> {
    let sample = |number: u64| {
        let mut word = (number * 2_654_435_761 + seed * 974_711) % (1 << 32);
        word ^= word >> 16;
        word = (word * 2_246_822_519) % (1 << 32);
        word ^= word >> 13;
        let noise = word as f64 / (1u64 << 32) as f64 - 0.5;
        let time = number as f64 / f64::from(RATE);
        let phase = std::f64::consts::TAU * (140.0 + 10.0 * seed as f64 + 50.0 * time) * time;
        let tone = 0.3 * phase.sin() + 0.15 * (2.0 * phase).sin() + 0.1 * (3.0 * phase).sin();
        (tone + 0.1 * noise) as f32
    };
    (0..samples as u64).map(sample).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/audio")
        .join(name)
}

fn reference(name: &str) -> Weights {
    Weights::read(&folder(name).join("reference.safetensors"))
        .expect("golden files are part of the repository")
}

fn model(path: &Path) -> AudioModel {
    AudioModel::read(path, &Device::flex()).unwrap_or_else(|error| panic!("{error}"))
}

fn difference<const D: usize>(got: &Tensor<D>, wanted: &NamedTensor) -> f32 {
    assert_eq!(got.dims()[..], wanted.shape[..]);
    let got: Vec<f32> = got.clone().into_data().iter::<f32>().collect();
    assert!(got.iter().all(|value| value.is_finite()), "not finite");
    got.iter()
        .zip(&wanted.values)
        .fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

/// The largest error among the states that the reference has under `prefix`.
fn error_of(states: &HiddenStates, reference: &Weights, prefix: &str) -> f32 {
    let last = &reference.tensors[&format!("{prefix}last_hidden_state")];
    let mut largest = difference(&states.last_hidden_state, last);
    for (index, state) in states.hidden.iter().enumerate() {
        let wanted = &reference.tensors[&format!("{prefix}hidden.{index}")];
        largest = largest.max(difference(state, wanted));
    }
    largest
}

fn forward(model: &AudioModel, samples: &[f32], keep: Keep) -> HiddenStates {
    let input = model.preprocess(samples, RATE).expect("a sound");
    model.forward(input, keep).expect("input of its own")
}

/// Error on one sound of 1.3 s, every hidden state.
fn single_error(model: &AudioModel, name: &str, seed: u64) -> f32 {
    let states = forward(model, &sound(20_800, seed), Keep::All);
    assert_eq!(states.hidden.len(), model.layers() + 1);
    error_of(&states, &reference(name), "single.")
}

/// Error on a batch of three lengths, padded with zeros on that side.
fn batch_error(model: &AudioModel, name: &str, seed: u64, side: &str) -> f32 {
    const LENGTHS: [usize; 3] = [16_000, 9_600, 12_800];
    let (mut values, mut mask) = (Vec::new(), Vec::new());
    for (row, length) in LENGTHS.into_iter().enumerate() {
        let input = model.preprocess(&sound(length, seed + row as u64), RATE);
        let Ok(AudioInput::Values { values: sound, .. }) = input else {
            panic!("a sound makes values")
        };
        let padding = vec![0.0f32; LENGTHS[0] - length];
        let sound: Vec<f32> = sound.into_data().iter::<f32>().collect();
        let heard = vec![1i64; length];
        let silent = vec![0i64; padding.len()];
        if side == "left" {
            values.extend([padding, sound].concat());
            mask.extend([silent, heard].concat());
        } else {
            values.extend([sound, padding].concat());
            mask.extend([heard, silent].concat());
        }
    }
    let device = Device::flex();
    let input = AudioInput::Values {
        values: Tensor::from_data(TensorData::new(values, [3, LENGTHS[0]]), &device),
        attention_mask: Some(Tensor::<2, Int>::from_data(
            TensorData::new(mask, [3, LENGTHS[0]]),
            &device,
        )),
    };
    let states = model.forward(input, Keep::Last(0)).expect("a batch");
    error_of(&states, &reference(name), &format!("{side}."))
}

fn assert_speech(name: &str, seed: u64) {
    let model = model(&folder(name));
    let errors = [
        ("single", single_error(&model, name, seed)),
        ("right", batch_error(&model, name, seed, "right")),
        ("left", batch_error(&model, name, seed, "left")),
    ];
    for (case, error) in errors {
        assert!(error <= TOLERANCE, "{name}, {case}: error {error}");
    }
}

#[test]
fn wav2vec2_base_is_transformers() {
    assert_speech("wav2vec2-base", 21);
}

#[test]
fn wav2vec2_large_is_transformers() {
    assert_speech("wav2vec2-large", 22);
}

#[test]
fn hubert_base_is_transformers() {
    assert_speech("hubert-base", 23);
}

#[test]
fn hubert_large_is_transformers() {
    assert_speech("hubert-large", 24);
}

#[test]
fn wavlm_base_is_transformers() {
    assert_speech("wavlm-base", 25);
}

#[test]
fn wavlm_large_is_transformers() {
    assert_speech("wavlm-large", 26);
}

/// The features that a front end makes of one sound, `[1, bands, frames]`.
fn features(model: &AudioModel, samples: &[f32]) -> Tensor<3> {
    match model.preprocess(samples, RATE).expect("a sound") {
        AudioInput::Features(features) => features,
        AudioInput::Values { .. } => panic!("this model reads features"),
    }
}

/// Largest difference of a front end, as a part of the largest wanted value.
fn assert_front_end(got: &Tensor<3>, reference: &Weights, name: &str) {
    let wanted = &reference.tensors[name];
    let largest = wanted.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let error = difference(got, wanted) / largest;
    assert!(error <= 1e-4, "{name}: relative error {error}");
}

#[test]
fn whispers_log_mel_is_transformers() {
    let (model, reference) = (model(&folder("whisper")), reference("whisper"));
    let padded = features(&model, &sound(11_200, 31));
    assert_front_end(&padded, &reference, "padded.input_features");
    let cut = features(&model, &sound(20_800, 31));
    assert_front_end(&cut, &reference, "cut.input_features");
}

#[test]
fn whisper_is_transformers() {
    let model = model(&folder("whisper"));
    let states = forward(&model, &sound(20_800, 31), Keep::All);
    assert_eq!(states.hidden.len(), model.layers() + 1);
    let error = error_of(&states, &reference("whisper"), "");
    assert!(error <= TOLERANCE, "error {error}");
}

#[test]
fn imagebinds_filter_bank_is_kaldis() {
    let (model, reference) = (model(&folder("imagebind")), reference("imagebind"));
    let bank = features(&model, &sound(32_000, 41));
    assert_front_end(&bank, &reference, "input_features");
    let short = features(&model, &sound(19_200, 42));
    let indices = Tensor::arange_step(0..204, 3, &Device::flex());
    assert_front_end(
        &short.select(2, indices),
        &reference,
        "short.input_features",
    );
}

fn imagebind_error(model: &AudioModel) -> f32 {
    let reference = reference("imagebind");
    let stored = &reference.tensors["input_features"];
    let stored = TensorData::new(stored.values.clone(), stored.shape.clone());
    let input = AudioInput::Features(Tensor::from_data(stored, &Device::flex()));
    let states = model.forward(input, Keep::All).expect("a filter bank");
    let mut error = difference(
        states.pooled.as_ref().expect("it pools"),
        &reference.tensors["pooled"],
    );
    assert_eq!(states.hidden.len(), model.layers() + 1);
    for (index, state) in states.hidden.iter().enumerate() {
        let wanted = &reference.tensors[&format!("hidden.{index}")];
        error = error.max(difference(state, wanted));
    }
    error
}

#[test]
fn imagebind_is_pytorchs() {
    let error = imagebind_error(&model(&folder("imagebind")));
    assert!(error <= TOLERANCE, "error {error}");
}

#[test]
fn damaged_whisper_and_imagebind_are_noticed() {
    let query = "model.encoder.layers.0.self_attn.q_proj.weight";
    let swapped = damaged("whisper", |weights| swap_heads(weights, query, 12, 36));
    let states = forward(&model(swapped.path()), &sound(20_800, 31), Keep::All);
    let error = error_of(&states, &reference("whisper"), "");
    assert!(error > VISIBLE, "two heads swapped: error {error}");

    let key = "modality_trunks.audio.blocks.1.attn.bias_k";
    let dropped = damaged("imagebind", |weights| values(weights, key).fill(0.0));
    let error = imagebind_error(&model(dropped.path()));
    assert!(error > VISIBLE, "the learned key dropped: error {error}");
}

/// The tiny model reads one second, the front end of an absent file makes thirty: only sound is refused.
#[test]
fn whisper_without_its_preprocessor_file_reads_features() {
    let copy = damaged("whisper", |_| ());
    std::fs::remove_file(copy.path().join("preprocessor_config.json")).expect("a file");
    let model = model(copy.path());
    let states = model
        .forward(
            AudioInput::Features(features(
                &self::model(&folder("whisper")),
                &sound(16_000, 32),
            )),
            Keep::All,
        )
        .expect("features that fit");
    assert_eq!(states.last_hidden_state.dims(), [1, 50, 36]);
    let error = model
        .preprocess(&sound(16_000, 32), 16_000)
        .expect_err("another length");
    assert!(error.to_string().contains("3000 frames"), "{error}");
}

/// Thirty seconds and 128 bands, as the newest large models want, of a sound of three.
#[test]
fn whispers_log_mel_is_transformers_at_full_length() {
    let large = damaged("whisper", |weights| {
        for (name, shape) in [
            ("model.encoder.conv1.weight", vec![36, 128, 3]),
            ("model.encoder.embed_positions.weight", vec![1500, 36]),
        ] {
            let values = vec![0.0; shape.iter().product()];
            weights
                .tensors
                .insert(name.into(), NamedTensor { shape, values });
        }
    });
    for (file, changes) in [
        (
            "config.json",
            [
                ("\"num_mel_bins\": 80", "\"num_mel_bins\": 128"),
                (
                    "\"max_source_positions\": 50",
                    "\"max_source_positions\": 1500",
                ),
            ],
        ),
        (
            "preprocessor_config.json",
            [
                ("\"feature_size\": 80", "\"feature_size\": 128"),
                ("\"chunk_length\": 1,", "\"chunk_length\": 30,"),
            ],
        ),
    ] {
        let path = large.path().join(file);
        let mut text = std::fs::read_to_string(&path).expect("a file of the folder");
        for (old, new) in changes {
            assert!(text.contains(old), "{file}: {text}");
            text = text.replace(old, new);
        }
        std::fs::write(path, text).expect("a writable folder");
    }
    let got = features(&model(large.path()), &sound(48_000, 32));
    let indices = Tensor::arange_step(0..3000, 37, &Device::flex());
    assert_front_end(
        &got.select(2, indices),
        &reference("whisper"),
        "large.input_features",
    );
}

/// A copy of a golden folder whose weights were changed.
fn damaged(name: &str, damage: impl FnOnce(&mut Weights)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "preprocessor_config.json"] {
        if folder(name).join(file).is_file() {
            std::fs::copy(folder(name).join(file), copy.path().join(file)).expect("a file");
        }
    }
    let mut weights = Weights::read(&folder(name)).expect("golden weights");
    damage(&mut weights);
    weights
        .write(&copy.path().join("model.safetensors"))
        .expect("a writable folder");
    copy
}

fn values<'a>(weights: &'a mut Weights, name: &str) -> &'a mut Vec<f32> {
    &mut weights
        .tensors
        .get_mut(name)
        .unwrap_or_else(|| panic!("no {name} in the golden file"))
        .values
}

/// Swaps the first two heads of a projection of queries: `rows` rows of the weight each.
fn swap_heads(weights: &mut Weights, name: &str, rows: usize, columns: usize) {
    let values = values(weights, name);
    let (first, rest) = values.split_at_mut(rows * columns);
    first.swap_with_slice(&mut rest[..rows * columns]);
}

/// Far above the tolerance, and far below what a wrong model gives.
const VISIBLE: f32 = 1e-3;

#[test]
fn damaged_speech_models_are_noticed() {
    let query = "encoder.layers.1.attention.q_proj.weight";
    let swapped = damaged("hubert-large", |weights| swap_heads(weights, query, 7, 35));
    let error = single_error(&model(swapped.path()), "hubert-large", 24);
    assert!(error > VISIBLE, "two heads swapped: error {error}");

    let silent = damaged("wav2vec2-base", |weights| {
        values(weights, "wav2vec2.encoder.pos_conv_embed.conv.bias").fill(0.0);
    });
    let error = single_error(&model(silent.path()), "wav2vec2-base", 21);
    assert!(error > VISIBLE, "a bias dropped: error {error}");

    let ungated = damaged("wavlm-base", |weights| {
        values(
            weights,
            "encoder.layers.2.attention.gru_rel_pos_linear.weight",
        )
        .fill(0.0);
    });
    let error = single_error(&model(ungated.path()), "wavlm-base", 25);
    assert!(error > VISIBLE, "a gate dropped: error {error}");
}

#[test]
fn a_mask_that_is_left_out_is_noticed() {
    let model = model(&folder("wavlm-large"));
    let AudioInput::Values { values, .. } =
        model.preprocess(&sound(16_000, 26), RATE).expect("a sound")
    else {
        panic!("a sound makes values")
    };
    let padding = Tensor::zeros([1, 6_400], &Device::flex());
    let cut = values.narrow(1, 0, 9_600);
    let padded = Tensor::cat(vec![cut.clone(), padding], 1);
    let last = |values: Tensor<2>, attention_mask| {
        let input = AudioInput::Values {
            values,
            attention_mask,
        };
        let states = model.forward(input, Keep::Last(0)).expect("values");
        states.last_hidden_state.narrow(1, 0, 40)
    };
    let mask = (0..16_000)
        .map(|i| i64::from(i < 9_600))
        .collect::<Vec<_>>();
    let mask = Tensor::from_data(TensorData::new(mask, [1, 16_000]), &Device::flex());
    let alone = last(cut, None);
    let largest = |a: Tensor<3>| (a - alone.clone()).abs().max().into_scalar::<f32>();
    assert!(largest(last(padded.clone(), Some(mask))) < TOLERANCE);
    assert!(largest(last(padded, None)) > VISIBLE);
}

#[test]
fn folders_that_cannot_be_used_say_why() {
    let message = |path: &Path| {
        AudioModel::read(path, &Device::flex())
            .expect_err("it cannot be used")
            .to_string()
    };
    let empty = tempfile::tempdir().expect("a temporary folder");
    assert!(message(empty.path()).contains("config.json"));

    std::fs::write(
        empty.path().join("config.json"),
        r#"{"model_type": "llama"}"#,
    )
    .expect("a writable folder");
    let got = message(empty.path());
    assert!(
        got.contains("`model_type` is `llama`, wanted one of wav2vec2"),
        "{got}"
    );

    let renamed = damaged("hubert-base", |weights| {
        let tensor = weights
            .tensors
            .remove("hubert.encoder.layer_norm.weight")
            .expect("a norm");
        weights
            .tensors
            .insert("hubert.encoder.norm.weight".into(), tensor);
    });
    let got = message(renamed.path());
    assert!(got.contains("encoder.layer_norm.weight"), "{got}");
    assert!(got.contains("encoder.norm.weight"), "{got}");

    let half = damaged("hubert-base", |weights| {
        weights
            .tensors
            .remove("hubert.encoder.pos_conv_embed.conv.weight_g");
    });
    let got = message(half.path());
    assert!(got.contains("weight_g"), "{got}");

    let error = AudioModel::read_as(
        AudioArchitecture::WavLM,
        &folder("hubert-base"),
        &Device::flex(),
    )
    .expect_err("HuBERT is no WavLM");
    assert!(error.to_string().contains("wanted `wavlm`"), "{error}");
}

fn try_encoder(name: &str, keys: &str) -> Result<Encoder, String> {
    let yaml = format!(
        "{{kind: pretrained_audio, weights: {}, {keys}}}",
        folder(name).display()
    );
    let config: EncoderConfig = serde_yaml::from_str(&yaml).map_err(|error| error.to_string())?;
    config
        .init(&Device::flex())
        .map_err(|error| error.to_string())
}

fn encode(encoder: &Encoder, samples: &[f32]) -> Features {
    let media = Media::Waveform {
        samples,
        sample_rate: RATE,
    };
    encoder.encode(&media).expect("a sound")
}

fn assert_features(got: &Features, wanted: &[f32]) {
    assert_eq!(got.data.len(), wanted.len());
    let error = got
        .data
        .iter()
        .zip(wanted)
        .fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
    assert!(error <= TOLERANCE, "error {error}");
}

#[test]
fn features_are_the_hidden_states_asked_for() {
    let (reference, sound) = (reference("hubert-large"), sound(20_800, 24));
    let stored = |name: &str| &reference.tensors[&format!("single.{name}")].values;
    for (keys, name) in [
        ("layer: 1", "hidden.1"),
        ("layer: -3", "hidden.1"),
        ("layer: 0", "hidden.0"),
        ("layer: 3", "last_hidden_state"),
        ("pool: none", "last_hidden_state"),
    ] {
        let encoder = try_encoder("hubert-large", &format!("model: hubert, dim: 35, {keys}"));
        let features = encode(&encoder.expect("valid"), &sound);
        assert_eq!((features.length, features.dim), (103, 35), "{keys}");
        assert_features(&features, stored(name));
    }
    // The last two states, the very last of them normalised, over 103 time steps.
    let (before, last) = (stored("hidden.2"), stored("last_hidden_state"));
    let mean = |column: usize| {
        let sum = |state: &[f32]| {
            let column = state.iter().skip(column).step_by(35);
            column.map(|value| f64::from(*value)).sum::<f64>()
        };
        (sum(before) + sum(last)) / 103.0
    };
    for (combine, scale) in [("sum", 1.0), ("mean", 0.5)] {
        let keys =
            format!("model: hubert, dim: 35, layers: {{last: 2, combine: {combine}}}, pool: mean");
        let encoder = try_encoder("hubert-large", &keys).expect("valid");
        let wanted: Vec<f32> = (0..35).map(|i| (scale * mean(i)) as f32).collect();
        assert_features(&encode(&encoder, &sound), &wanted);
    }
}

#[test]
fn windows_of_imagebind_are_its_clips() {
    let keys = "model: imagebind, dim: 28, pool: mean, window: 2.0, windows: 3";
    let features = encode(
        &try_encoder("imagebind", keys).expect("valid"),
        &sound(41_600, 41),
    );
    assert_eq!((features.length, features.dim), (3, 28));
    let wanted = &reference("imagebind").tensors["clips.pooled"].values;
    let error = features
        .data
        .iter()
        .zip(wanted)
        .fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
    // Values of order 20 behind a front end that is compared by itself.
    assert!(error <= 4e-4, "error {error}");
}

#[test]
fn windows_of_raw_sound_are_standardised_together() {
    let keys = "model: wavlm, dim: 35, pool: mean, window: 0.5, windows: 2";
    let encoder = try_encoder("wavlm-large", keys).expect("valid");
    // Loud, then soft: standardised alone, the second would be as loud as the first.
    let mut samples = sound(16_000, 5);
    samples[8_000..]
        .iter_mut()
        .for_each(|sample| *sample *= 0.1);
    let got = encode(&encoder, &samples);
    assert_eq!((got.length, got.dim), (2, 35));

    let model = model(&folder("wavlm-large"));
    let joint = [&samples[..8_000], &samples[4_000..12_000]].concat();
    let AudioInput::Values { values, .. } = model.preprocess(&joint, RATE).expect("a sound") else {
        panic!("a sound makes values")
    };
    let mut wanted = Vec::new();
    for window in 0..2 {
        let input = AudioInput::Values {
            values: values.clone().narrow(1, window * 8_000, 8_000),
            attention_mask: None,
        };
        let states = model.forward(input, Keep::Last(0)).expect("values");
        wanted.extend(
            states
                .last_hidden_state
                .mean_dim(1)
                .into_data()
                .iter::<f32>(),
        );
    }
    assert_features(&got, &wanted);
}

#[test]
fn short_sounds_are_followed_by_silence() {
    let encoder = try_encoder("wav2vec2-base", "model: wav2vec2, dim: 30").expect("valid");
    assert_eq!(encode(&encoder, &[0.1; 50]).length, 1);
    let keys = "model: wav2vec2, dim: 30, min_seconds: 1.0";
    let second = try_encoder("wav2vec2-base", keys).expect("valid");
    let mut filled = sound(9_000, 3);
    let got = encode(&second, &filled);
    filled.resize(16_000, 0.0);
    assert_eq!(got, encode(&encoder, &filled));
}

#[test]
fn options_that_cannot_work_name_their_key() {
    for (name, keys, wanted) in [
        (
            "hubert-base",
            "model: hubert, dim: 31",
            "key `dim`: got 31, wanted 30",
        ),
        ("hubert-base", "model: wavlm, dim: 30", "wanted `wavlm`"),
        (
            "hubert-base",
            "model: hubert, dim: 30, layer: 4",
            "key `layer`: got 4, wanted -4 to 3",
        ),
        (
            "hubert-base",
            "model: hubert, dim: 30, layers: {last: 5, combine: sum}",
            "key `layers.last`",
        ),
        (
            "hubert-base",
            "model: hubert, dim: 30, layer: 1, layers: {last: 2, combine: sum}",
            "remove one",
        ),
        (
            "hubert-base",
            "model: hubert, dim: 30, sample_rate: 8000",
            "key `sample_rate`",
        ),
        (
            "hubert-base",
            "model: hubert, dim: 30, window: 2.0",
            "both or neither",
        ),
        (
            "hubert-base",
            "model: hubert, dim: 30, window: 2.0, windows: 8",
            "key `pool`",
        ),
        ("imagebind", "model: imagebind, dim: 28", "key `window`"),
        (
            "hubert-base",
            "model: hubert, dim: 30, layr: 1",
            "unknown field",
        ),
    ] {
        let error = try_encoder(name, keys).expect_err("it cannot work");
        assert!(error.contains(wanted), "{keys}: {error}");
    }
}

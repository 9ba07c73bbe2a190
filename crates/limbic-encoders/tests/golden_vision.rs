//! Pretrained vision encoders against transformers, layer by layer.
//!
//! The models, inputs and outputs in tests/golden/vision come from scripts/golden/vision.py.

#![allow(
    clippy::print_stdout,
    reason = "the measured errors are shown with --nocapture"
)]

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use limbic_encoders::vision::{
    ClipConfig, Dinov2Config, EvaConfig, LnVision, MaeConfig, PixelValues, SiglipConfig,
    VideoMaeConfig, VisionModel,
};
use limbic_encoders::{HiddenStates, Keep};
use limbic_weights::{Checkpoint, NamedTensor, Weights};
use serde_json::{Value, json};

/// Largest absolute error allowed, on states of order 1.
const TOLERANCE: f32 = 2e-5;

/// Smallest error that damage must make: far from what rounding explains.
const DAMAGE: f32 = 1e-2;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/vision")
        .join(name)
}

fn weights(name: &str) -> Weights {
    Weights::read(&golden(name)).expect("golden files are part of the repository")
}

fn tensor<const D: usize>(golden: &Weights, name: &str) -> Tensor<D> {
    let NamedTensor { shape, values } = golden.tensors[name].clone();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn pixel_values(golden: &Weights, name: &str) -> PixelValues {
    match golden.tensors[name].shape.len() {
        4 => PixelValues::Pictures(tensor(golden, name)),
        5 => PixelValues::Videos(tensor(golden, name)),
        other => panic!("pixel values of {other} dimensions"),
    }
}

fn largest_difference(got: &[f32], wanted: &[f32]) -> f32 {
    got.iter()
        .zip(wanted)
        .fold(0.0, |largest, (a, b)| match (a - b).abs() {
            error if error.is_finite() => largest.max(error),
            _ => f32::INFINITY,
        })
}

/// Largest absolute error; infinite where the shapes differ.
fn error<const D: usize>(got: Tensor<D>, wanted: &NamedTensor) -> f32 {
    if got.dims()[..] != wanted.shape[..] {
        return f32::INFINITY;
    }
    let got: Vec<f32> = got.into_data().iter::<f32>().collect();
    largest_difference(&got, &wanted.values)
}

/// Largest error over every hidden state, the last one, and the pooled output.
fn largest_error(states: HiddenStates, golden: &Weights, prefix: &str) -> f32 {
    let wanted = |name: &str| golden.tensors.get(&format!("{prefix}{name}"));
    let layers = (0..)
        .take_while(|i| wanted(&format!("hidden.{i}")).is_some())
        .count();
    assert_eq!(states.hidden.len(), layers, "number of hidden states");
    assert!(layers > 1, "no hidden states in the golden file");
    let mut errors: Vec<f32> = states
        .hidden
        .into_iter()
        .enumerate()
        .map(|(i, state)| {
            error(
                state,
                wanted(&format!("hidden.{i}")).expect("counted above"),
            )
        })
        .collect();
    errors.push(error(
        states.last_hidden_state,
        wanted("last_hidden_state").expect("in every golden file"),
    ));
    match (states.pooled, wanted("pooled")) {
        (Some(got), Some(wanted)) => errors.push(error(got, wanted)),
        (None, None) => {}
        (got, _) => panic!("pooled: {}", got.is_some()),
    }
    errors.into_iter().fold(0.0, f32::max)
}

fn read(folder: &Path) -> VisionModel {
    VisionModel::read(folder, &Device::flex()).unwrap_or_else(|error| panic!("{error}"))
}

fn error_of(model: &VisionModel, reference: &Weights, prefix: &str) -> f32 {
    let states = model
        .forward(
            pixel_values(reference, &format!("{prefix}pixel_values")),
            Keep::All,
        )
        .expect("pixel values of the right shape");
    largest_error(states, reference, prefix)
}

fn assert_family(name: &str, prefixes: &[&str]) {
    let reference = weights(&format!("{name}/reference.safetensors"));
    let model = read(&golden(name));
    for prefix in prefixes {
        let error = error_of(&model, &reference, prefix);
        println!("{name} {prefix} maximum absolute error {error:.2e}");
        assert!(error <= TOLERANCE, "{name} {prefix}: {error}");
    }
}

#[test]
fn clip_is_transformers() {
    assert_family("clip", &[""]);
    assert_family("clip_vision", &[""]);
}

#[test]
fn siglip_is_transformers() {
    assert_family("siglip", &[""]);
}

#[test]
fn blip2s_eva_is_transformers_at_any_size() {
    assert_family("blip2_vision", &["own.", "wide.", "twice."]);
}

#[test]
fn dinov2_is_transformers_at_any_size() {
    assert_family("dinov2", &["own.", "wide."]);
    assert_family("dinov2_giant", &["own.", "wide."]);
    assert_family("dinov2_registers", &["own.", "wide."]);
}

#[test]
fn mae_is_transformers() {
    assert_family("mae", &[""]);
}

#[test]
fn videomae_is_transformers() {
    assert_family("videomae", &[""]);
    assert_family("videomae_classifier", &[""]);
}

fn eva_config(image_size: usize, ln_vision: LnVision) -> EvaConfig {
    EvaConfig {
        hidden_size: 33,
        intermediate_size: 50,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        image_size,
        patch_size: 7,
        ln_vision,
        ..EvaConfig::default()
    }
}

fn eva_error(checkpoint: Checkpoint, config: &EvaConfig, prefix: &str) -> f32 {
    let reference = weights("blip2_vision/reference.safetensors");
    let eva = config
        .load(checkpoint, &Device::flex())
        .unwrap_or_else(|error| panic!("{error}"));
    let states = eva.forward(
        tensor(&reference, &format!("{prefix}pixel_values")),
        Keep::All,
    );
    let mut wanted = reference.below(prefix);
    let last = match &config.ln_vision {
        LnVision::Absent => "hidden.3",
        LnVision::Identity => "ln_vision.identity",
        LnVision::File(_) => "ln_vision.file",
    };
    let last = wanted.tensors[last].clone();
    wanted.tensors.insert("last_hidden_state".into(), last);
    wanted.tensors.remove("pooled");
    largest_error(states, &wanted, "")
}

fn eva_checkpoint() -> Checkpoint {
    Checkpoint::open(&golden("eva/eva_vit_g.pth")).expect("a golden file")
}

/// The published file's layout, with a block and a head that are not used, at the trained size and at twice that: the
/// position embedding is interpolated when it is read.
#[test]
fn evas_own_checkpoint_is_transformers_blip2() {
    for (side, prefix) in [(28, "own."), (56, "twice.")] {
        let stored = LnVision::File(golden("eva/blip2.pth"));
        for ln_vision in [LnVision::Absent, LnVision::Identity, stored] {
            let config = eva_config(side, ln_vision);
            let error = eva_error(eva_checkpoint(), &config, prefix);
            println!("eva {prefix} maximum absolute error {error:.2e}");
            assert!(error <= TOLERANCE, "{side} {config:?}: {error}");
        }
    }
}

#[test]
fn maes_own_checkpoint_is_transformers() {
    let reference = weights("mae/reference.safetensors");
    let config = MaeConfig {
        hidden_size: 20,
        intermediate_size: 30,
        num_hidden_layers: 3,
        num_attention_heads: 5,
        image_size: 24,
        patch_size: 4,
        ..MaeConfig::large()
    };
    let checkpoint = Checkpoint::open(&golden("mae/original.pth")).expect("a golden file");
    let mae = config
        .load(checkpoint, &Device::flex())
        .unwrap_or_else(|error| panic!("{error}"));
    let states = mae.forward(tensor(&reference, "pixel_values"), Keep::All);
    let error = largest_error(states, &reference, "");
    println!("mae original maximum absolute error {error:.2e}");
    assert!(error <= TOLERANCE, "{error}");
}

#[test]
fn videomaes_own_checkpoint_is_transformers() {
    let reference = weights("videomae/reference.safetensors");
    let mut config = VideoMaeConfig {
        hidden_size: 30,
        intermediate_size: 36,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        image_size: 21,
        patch_size: 7,
        num_frames: 6,
        ..VideoMaeConfig::large()
    };
    let checkpoint = Checkpoint::open(&golden("videomae/original.pth")).expect("a golden file");
    let videomae = config
        .load(checkpoint, &Device::flex())
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(config.norm && config.fc_norm_eps.is_none());
    let states = videomae.forward(tensor(&reference, "pixel_values"), Keep::All);
    let error = largest_error(states, &reference, "");
    println!("videomae original maximum absolute error {error:.2e}");
    assert!(error <= TOLERANCE, "{error}");
}

/// A copy of a golden model whose weights and config were changed.
fn damaged(
    name: &str,
    damage: impl FnOnce(&mut Weights, &mut Value),
) -> (tempfile::TempDir, VisionModel) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut weights = weights(&format!("{name}/model.safetensors"));
    let text = std::fs::read_to_string(golden(name).join("config.json")).expect("a golden file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    damage(&mut weights, &mut config);
    weights
        .write(&folder.path().join("model.safetensors"))
        .expect("a writable folder");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("as above");
    let model = read(folder.path());
    (folder, model)
}

fn assert_damage_shows(name: &str, prefix: &str, damage: impl FnOnce(&mut Weights, &mut Value)) {
    let reference = weights(&format!("{name}/reference.safetensors"));
    let (_folder, model) = damaged(name, damage);
    let error = error_of(&model, &reference, prefix);
    assert!(
        error > DAMAGE,
        "{name}: damage made an error of only {error}"
    );
}

/// Swaps the rows of the first two heads, of `rows` rows each.
fn swap_heads(weights: &mut Weights, name: &str, rows: usize) {
    let tensor = weights.tensors.get_mut(name).expect("a tensor's name");
    let row = tensor.values.len() / tensor.shape[0];
    let (first, rest) = tensor.values.split_at_mut(rows * row);
    first.swap_with_slice(&mut rest[..rows * row]);
}

fn zero(weights: &mut Weights, name: &str) {
    weights
        .tensors
        .get_mut(name)
        .expect("a tensor's name")
        .values
        .fill(0.0);
}

#[test]
fn damage_to_clip_shows() {
    let layer = "vision_model.encoder.layers.1";
    assert_damage_shows("clip", "", |weights, _| {
        swap_heads(weights, &format!("{layer}.self_attn.q_proj.weight"), 6);
    });
    assert_damage_shows("clip", "", |weights, _| {
        zero(weights, &format!("{layer}.self_attn.v_proj.bias"));
    });
    assert_damage_shows("clip", "", |weights, _| {
        zero(weights, "vision_model.embeddings.class_embedding");
    });
    assert_damage_shows("clip", "", |_, config| {
        config["vision_config"]["hidden_act"] = json!("gelu");
    });
    // Blue for red.
    let mut reference = weights("clip/reference.safetensors");
    let pixels = reference
        .tensors
        .get_mut("pixel_values")
        .expect("the input");
    for picture in pixels.values.chunks_mut(3 * 26 * 26) {
        let (red, rest) = picture.split_at_mut(26 * 26);
        red.swap_with_slice(&mut rest[26 * 26..]);
    }
    assert!(error_of(&read(&golden("clip")), &reference, "") > DAMAGE);
}

#[test]
fn damage_to_siglip_shows() {
    assert_damage_shows("siglip", "", |weights, _| {
        swap_heads(weights, "vision_model.head.attention.in_proj_weight", 12);
    });
    assert_damage_shows("siglip", "", |weights, _| {
        zero(weights, "vision_model.embeddings.patch_embedding.bias");
    });
    assert_damage_shows("siglip", "", |_, config| {
        config["vision_config"]["num_attention_heads"] = json!(4);
    });
}

#[test]
fn damage_to_eva_shows() {
    // The bias of queries and values; that of the keys is no bias.
    assert_damage_shows("blip2_vision", "own.", |weights, _| {
        zero(weights, "encoder.layers.0.self_attn.qkv.bias");
    });
    assert_damage_shows("blip2_vision", "own.", |weights, _| {
        swap_heads(weights, "encoder.layers.2.self_attn.qkv.weight", 11);
    });
    // A position embedding that is spread out instead of interpolated.
    let spread = |checkpoint: &mut Checkpoint| {
        let NamedTensor { values, .. } = checkpoint.take("pos_embed").expect("EVA's positions");
        let row = |place: usize| &values[place * 33..(place + 1) * 33];
        let places = (0..64).map(|place| 1 + place / 16 * 4 + place % 8 / 2);
        let values = std::iter::once(0).chain(places).flat_map(row).copied();
        let tensor = NamedTensor {
            shape: vec![1, 65, 33],
            values: values.collect(),
        };
        checkpoint.put("pos_embed", tensor);
    };
    let mut checkpoint = eva_checkpoint();
    spread(&mut checkpoint);
    let error = eva_error(checkpoint, &eva_config(56, LnVision::Absent), "twice.");
    assert!(error.is_finite() && error > DAMAGE, "{error}");
}

#[test]
fn damage_to_dinov2_shows() {
    assert_damage_shows("dinov2", "own.", |weights, _| {
        let name = "encoder.layer.1.attention.attention.key.weight";
        swap_heads(weights, name, 6);
    });
    assert_damage_shows("dinov2", "own.", |weights, _| {
        let scale = weights
            .tensors
            .get_mut("encoder.layer.0.layer_scale1.lambda1");
        scale.expect("a layer's scale").values.fill(1.0);
    });
    // The two halves of a gated network.
    assert_damage_shows("dinov2_giant", "own.", |weights, _| {
        swap_heads(weights, "encoder.layer.0.mlp.weights_in.weight", 40);
    });
    // Positions that are interpolated down the columns instead of along the rows.
    assert_damage_shows("dinov2_registers", "wide.", |weights, _| {
        let tensor = weights.tensors.get_mut("embeddings.position_embeddings");
        let tensor = tensor.expect("the positions");
        let rows: Vec<Vec<f32>> = tensor.values.chunks(30).map(<[_]>::to_vec).collect();
        let places = (0..25).map(|place| 1 + place % 5 * 5 + place / 5);
        let order = std::iter::once(0).chain(places);
        tensor.values = order.flat_map(|place| rows[place].clone()).collect();
    });
}

#[test]
fn damage_to_mae_shows() {
    assert_damage_shows("mae", "", |weights, _| {
        let name = "vit.encoder.layer.1.attention.attention.value.weight";
        swap_heads(weights, name, 4);
    });
    assert_damage_shows("mae", "", |weights, _| {
        zero(weights, "vit.encoder.layer.0.intermediate.dense.bias");
    });
    assert_damage_shows("mae", "", |weights, _| {
        zero(weights, "vit.embeddings.position_embeddings");
    });
}

#[test]
fn damage_to_videomae_shows() {
    assert_damage_shows("videomae", "", |weights, _| {
        let name = "videomae.encoder.layer.1.attention.attention.query.weight";
        swap_heads(weights, name, 10);
    });
    assert_damage_shows("videomae", "", |weights, _| {
        let name = "videomae.encoder.layer.1.attention.attention.v_bias";
        zero(weights, name);
    });
    // Two frames of a tubelet in the wrong order.
    let mut reference = weights("videomae/reference.safetensors");
    let pixels = reference
        .tensors
        .get_mut("pixel_values")
        .expect("the input");
    let frame = 3 * 21 * 21;
    let (first, rest) = pixels.values.split_at_mut(frame);
    first.swap_with_slice(&mut rest[..frame]);
    assert!(error_of(&read(&golden("videomae")), &reference, "") > DAMAGE);
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = std::fs::read_to_string(golden("clip/config.json")).expect("a golden file");
    std::fs::write(folder.path().join("config.json"), &text).expect("a writable folder");
    let mut weights = weights("clip/model.safetensors");
    let tensor = weights
        .tensors
        .remove("vision_model.pre_layrnorm.weight")
        .expect("CLIP's first norm");
    weights
        .tensors
        .insert("vision_model.pre_layernorm.weight".into(), tensor);
    let path = folder.path().join("model.safetensors");
    weights.write(&path).expect("as above");
    let message = VisionModel::read(folder.path(), &Device::flex())
        .expect_err("a misspelt tensor")
        .to_string();
    for part in ["pre_layrnorm.weight", "pre_layernorm.weight"] {
        assert!(message.contains(part), "{message}");
    }

    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "swin"}"#,
    )
    .expect("as above");
    let message = VisionModel::read(folder.path(), &Device::flex())
        .expect_err("another architecture")
        .to_string();
    assert!(
        message.contains("`swin`") && message.contains("vit_mae"),
        "{message}"
    );
}

#[test]
fn pixel_values_of_another_shape_are_refused() {
    let zeros = |shape: [usize; 4]| PixelValues::Pictures(Tensor::zeros(shape, &Device::flex()));
    let message = |name: &str, values: PixelValues| {
        read(&golden(name))
            .forward(values, Keep::Last(0))
            .expect_err("another shape")
            .to_string()
    };
    let got = message("clip", zeros([1, 3, 24, 26]));
    assert!(
        got.contains("[1, 3, 24, 26]") && got.contains("26, 26]"),
        "{got}"
    );
    let got = message("dinov2", zeros([1, 4, 30, 30]));
    assert!(got.contains("at least 6"), "{got}");
    let got = message("videomae", zeros([6, 3, 21, 21]));
    assert!(got.contains("[clips, 6, 3, 21, 21]"), "{got}");
}

#[test]
fn published_parameter_counts() {
    let text = std::fs::read_to_string(golden("parameters.json")).expect("a golden file");
    let published: Value = serde_json::from_str(&text).expect("JSON");
    let device = Device::flex();
    let config = |name: &str| published[name]["config"].clone();
    let count = |name: &str| published[name]["parameters"].as_u64().expect("a number") as usize;
    let parse = "a config of this crate";

    for (name, projection_dim) in [
        ("clip-vit-base-patch32", 512),
        ("clip-vit-large-patch14", 768),
    ] {
        let clip = ClipConfig {
            projection_dim: Some(projection_dim),
            ..serde_json::from_value(config(name)).expect(parse)
        };
        assert_eq!(clip.init(&device).num_params(), count(name), "{name}");
    }
    let siglip: SiglipConfig = serde_json::from_value(config("siglip-so400m")).expect(parse);
    assert_eq!(siglip.init(&device).num_params(), count("siglip-so400m"));
    let dinov2: Dinov2Config = serde_json::from_value(config("dinov2-large")).expect(parse);
    assert_eq!(dinov2.init(&device).num_params(), count("dinov2-large"));
    assert_eq!(
        MaeConfig::large().init(&device).num_params(),
        count("mae-large")
    );
    let videomae = VideoMaeConfig {
        norm: true,
        ..VideoMaeConfig::large()
    };
    assert_eq!(videomae.init(&device).num_params(), count("videomae-large"));

    // BLIP-2's encoder with its norm; and what MiniGPT-v2 and Emotion-LLaMA make of it.
    let eva = |image_size, ln_vision| EvaConfig {
        image_size,
        ln_vision,
        ..EvaConfig::default()
    };
    let params = |config: EvaConfig| config.init(&device).num_params();
    assert_eq!(params(eva(224, LnVision::Identity)), count("blip2-vit-g"));
    assert_eq!(params(eva(448, LnVision::Absent)), 986_975_872);

    // What the shipped configs say of themselves.
    let said = [
        ("clip-vit-base-patch32", count("clip-vit-base-patch32")),
        ("clip-vit-large-patch14", count("clip-vit-large-patch14")),
        (
            "clip-vit-large-patch14-patches",
            count("clip-vit-large-patch14"),
        ),
        ("eva-vit-g-224", count("blip2-vit-g")),
        ("eva-vit-g-448", 986_975_872),
        ("siglip-so400m", count("siglip-so400m")),
        ("dinov2-large", count("dinov2-large")),
        ("mae-large", count("mae-large")),
        ("videomae-large", count("videomae-large")),
    ];
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/encoders");
    for (name, count) in said {
        let path = configs.join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(path).expect("a shipped config");
        assert!(text.contains(&with_commas(count)), "{name}: {count}");
    }
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join(",")
}

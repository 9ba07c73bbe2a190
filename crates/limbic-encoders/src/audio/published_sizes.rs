//! The published models have as many parameters here as in the reference implementations.

use burn::module::Module;
use burn::tensor::Device;

use super::imagebind_config::ImageBindConfig;
use super::wav2vec2_config::Wav2Vec2Config;
use super::whisper::WhisperConfig;

/// The keys in which the large models' `config.json` differ from the base models'.
const LARGE: &str = r#""hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096"#;
const STABLE: &str = r#""do_stable_layer_norm": true, "feat_extract_norm": "layer""#;

/// `reference` counts a vector for masked time steps, which is not loaded, and the lengths of the positional
/// convolution's weight, which are joined to it: `sum(p.numel() for p in Model(Config(...)).parameters())` of
/// transformers 5.24.
#[track_caller]
fn assert_speech(json: &str, reference: usize) {
    let config: Wav2Vec2Config = serde_json::from_str(&format!("{{{json}}}")).expect("known keys");
    assert_eq!(config.problem(), None);
    let module = config.init(&Device::flex());
    let joined = config.hidden_size + config.num_conv_pos_embeddings;
    assert_eq!(module.num_params() + joined, reference);
}

#[test]
fn hubert() {
    assert_speech(r#""model_type": "hubert""#, 94_371_712);
    // chinese-hubert-large has no biases in its stem; facebook/hubert-large-ll60k has.
    let chinese = format!(r#""model_type": "hubert", {LARGE}, {STABLE}, "conv_bias": false"#);
    assert_speech(&chinese, 315_435_136);
    let english = format!(r#""model_type": "hubert", {LARGE}, {STABLE}, "conv_bias": true"#);
    assert_speech(&english, 315_438_720);
}

#[test]
fn wav2vec2() {
    assert_speech(r#""model_type": "wav2vec2""#, 94_371_712);
    assert_speech(
        &format!(r#""model_type": "wav2vec2", {LARGE}"#),
        315_428_992,
    );
}

#[test]
fn wavlm() {
    assert_speech(r#""model_type": "wavlm""#, 94_381_936);
    let large = format!(r#""model_type": "wavlm", {LARGE}, {STABLE}"#);
    assert_speech(&large, 315_453_120);
}

#[test]
fn whisper() {
    let json = r#"{"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "num_mel_bins": 80, "max_source_positions": 1500}"#;
    let config: WhisperConfig = serde_json::from_str(json).expect("known keys");
    assert_eq!(config.init(&Device::flex()).num_params(), 636_784_640);
}

#[test]
fn imagebind() {
    // 86,235,648 parameters, and the scale, which PyTorch keeps as a buffer.
    let module = ImageBindConfig::default().init(&Device::flex());
    assert_eq!(module.num_params(), 86_235_648 + 1);
}

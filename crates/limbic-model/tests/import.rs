//! Published checkpoints in tiny (scripts/golden/importers.py): every value lands where it should.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_llama::{LlamaConfig, LoraConfig};
use limbic_model::{EmotionLlm, EmotionLlmConfig, Imported, ModelError, Part, Published};
use limbic_weights::Weights;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/import")
        .join(name)
}

/// An input whose features are `dim` wide.
fn input(name: &str, dim: usize, projector: &str) -> String {
    format!(
        r#"{{"name": "{name}", "placeholder": "<{name}>", "projector": {projector},
             "encoder": {{"kind": "log_mel", "mel": {{"n_mels": {dim}}}, "log": "log10", "floor": 1e-10}}}}"#
    )
}

fn config(inputs: &[String], fusions: &str) -> EmotionLlmConfig {
    EmotionLlmConfig {
        inputs: serde_json::from_str(&format!("[{}]", inputs.join(","))).unwrap(),
        fusions: serde_json::from_str(fusions).unwrap(),
        head: None,
        valence: None,
        alignment: None,
        mask: false,
    }
}

fn emotion_llama() -> EmotionLlmConfig {
    let inputs = [
        input(
            "video",
            6,
            r#"{"kind": "merge", "tokens": 2, "group": 4, "skip": 1}"#,
        ),
        input("face", 5, r#"{"kind": "linear"}"#),
        input("movement", 5, r#"{"kind": "linear"}"#),
        input("audio", 4, r#"{"kind": "linear"}"#),
        input("scene", 6, r#"{"kind": "linear", "select": "first"}"#),
    ];
    config(&inputs, "[]")
}

fn query_transformer(queries: usize, layers: usize, positions: usize) -> String {
    format!(
        r#"{{"kind": "bert_qformer", "queries": {queries}, "layers": {layers}, "heads": 2, "dim": 4,
             "intermediate": 6, "positions": {positions}}}"#
    )
}

fn affectgpt_v1() -> EmotionLlmConfig {
    let inputs = [
        input("video", 6, &query_transformer(3, 2, 7)),
        input("audio", 4, &query_transformer(2, 1, 5)),
    ];
    config(&inputs, "[]")
}

fn affectgpt_v2(sources: &str) -> EmotionLlmConfig {
    let inputs = [
        input("face", 6, r#"{"kind": "attention"}"#),
        input("audio", 4, r#"{"kind": "attention"}"#),
        input("image", 6, r#"{"kind": "mean"}"#),
    ];
    let fusion = format!(
        r#"[{{"name": "multi", "placeholder": "<multi>", "sources": {sources}, "fusion": {{"kind": "attention"}}}}]"#
    );
    config(&inputs, &fusion)
}

fn affectgpt_v2_qformer() -> EmotionLlmConfig {
    let inputs = [
        input("face", 6, &query_transformer(1, 1, 7)),
        input("audio", 4, &query_transformer(1, 1, 5)),
        input("image", 6, r#"{"kind": "mean"}"#),
    ];
    let fusion = r#"[{"name": "multi", "placeholder": "<multi>", "sources": ["face", "audio"],
        "fusion": {"kind": "qformer", "queries": 1, "layers": 1, "heads": 2, "dim": 4, "intermediate": 6,
                   "positions": 11}}]"#;
    config(&inputs, fusion)
}

const SEVEN: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

fn model(config: &EmotionLlmConfig, targets: &[&str], rank: usize) -> EmotionLlm {
    let device = Device::flex();
    let llama = LlamaConfig {
        intermediate_size: 16,
        ..LlamaConfig::small(20, 8, 2, 2)
    };
    let mut llama = limbic_weights::seed(llama.init(&device), 1);
    if !targets.is_empty() {
        llama = llama
            .with_lora(&LoraConfig::new(rank, 4.0, targets), 1)
            .unwrap();
    }
    config.init(llama, 1, &device).unwrap()
}

fn around_decoder(model: &EmotionLlm) -> Weights {
    Weights::collect_only(model, |name| Part::of(name) != Some(Part::Decoder))
}

fn import(
    published: Published,
    file: &str,
    config: &EmotionLlmConfig,
    targets: &[&str],
) -> Result<Imported, ModelError> {
    published.import(&golden(file), config, model(config, targets, 2))
}

/// Everything around the decoder is what the script says, and nothing is left.
fn assert_lands(published: Published, name: &str, config: &EmotionLlmConfig, targets: &[&str]) {
    let imported = import(published, &format!("{name}.pth"), config, targets).unwrap();
    let wanted = Weights::read(&golden(&format!("{name}.safetensors"))).unwrap();
    let got = around_decoder(&imported.model);
    let names = |weights: &Weights| weights.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&wanted), "{name}");
    assert_eq!(got.sha256(), wanted.sha256(), "{name}");
    assert_eq!(imported.report.matched.len(), wanted.tensors.len());
    assert_eq!(imported.left, Vec::<String>::new());
    assert_ne!(got, around_decoder(&model(config, targets, 2)));
}

#[test]
fn every_value_lands_where_it_should() {
    let two = ["q_proj", "v_proj"];
    assert_lands(
        Published::EmotionLlama,
        "emotion_llama",
        &emotion_llama(),
        &two,
    );
    let mut minigpt = emotion_llama();
    minigpt.inputs.truncate(1);
    assert_lands(Published::MinigptV2, "minigpt_v2", &minigpt, &two);
    assert_lands(Published::AffectgptV1, "affectgpt_v1", &affectgpt_v1(), &[]);
    let v2 = affectgpt_v2(r#"["face", "audio"]"#);
    assert_lands(Published::AffectgptV2, "affectgpt_v2", &v2, &SEVEN);
    let qformer = affectgpt_v2_qformer();
    assert_lands(
        Published::AffectgptV2,
        "affectgpt_v2_qformer",
        &qformer,
        &["q_proj"],
    );
}

#[test]
fn a_trainers_wrapping_and_old_names_of_peft_change_nothing() {
    let imported = import(
        Published::EmotionLlama,
        "emotion_llama_wrapped.pth",
        &emotion_llama(),
        &["q_proj", "v_proj"],
    )
    .unwrap();
    let wanted = Weights::read(&golden("emotion_llama.safetensors")).unwrap();
    assert_eq!(around_decoder(&imported.model).sha256(), wanted.sha256());
    let said = imported.report.to_string();
    for part in [
        "state of the training beside the weights: 1",
        "saves and never runs: 10",
        "follows from the model's configuration: 2",
        "without scale and shift, with which it was compared: 2",
        "no tensors, passed over",
    ] {
        assert!(said.contains(part), "{part} not in: {said}");
    }
}

#[test]
fn a_start_from_minigpt_leaves_the_other_projectors_as_they_were_seeded() {
    let config = emotion_llama();
    let two = ["q_proj", "v_proj"];
    let imported = import(Published::MinigptV2, "minigpt_v2.pth", &config, &two).unwrap();
    let wanted = Weights::read(&golden("minigpt_v2.safetensors")).unwrap();
    let seeded = around_decoder(&model(&config, &two, 2));
    let got = around_decoder(&imported.model);
    assert_eq!(imported.left.len(), 8);
    assert!(
        imported
            .left
            .contains(&"projectors.4.linear.weight".to_string())
    );
    for (name, tensor) in &got.tensors {
        let left = imported.left.contains(name);
        assert_eq!(left, !wanted.tensors.contains_key(name), "{name}");
        let source = if left { &seeded } else { &wanted };
        assert_eq!(tensor, &source.tensors[name], "{name}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let two = ["q_proj", "v_proj"];
    let emotion = emotion_llama();
    let mut few = emotion_llama();
    few.inputs.truncate(1);
    let wide = model(&emotion, &two, 3);
    let wide = Published::EmotionLlama.import(&golden("emotion_llama.pth"), &emotion, wide);
    let cases = [
        (
            import(Published::EmotionLlama, "minigpt_v2.pth", &emotion, &two),
            vec![
                "minigpt_v2.pth",
                "missing `projectors.1.linear.weight` [8, 5]",
            ],
        ),
        (
            import(Published::MinigptV2, "emotion_llama.pth", &emotion, &two),
            vec![
                "unexpected `feats_llama_proj1.weight` [8, 5]",
                "unexpected `attention.fc_att.bias`",
            ],
        ),
        (
            import(
                Published::EmotionLlama,
                "emotion_llama.pth",
                &emotion,
                &["q_proj"],
            ),
            vec!["unexpected `llama.model.layers.0.self_attn.v_proj.lora_A.weight`"],
        ),
        (
            import(
                Published::EmotionLlama,
                "emotion_llama.pth",
                &emotion,
                &SEVEN,
            ),
            vec!["missing `llama.model.layers.0.mlp.down_proj.lora_A.weight`"],
        ),
        (
            wide,
            vec![
                "`llama.model.layers.1.self_attn.v_proj.lora_B.weight` has shape [8, 2], wanted [8, 3]",
            ],
        ),
        (
            import(Published::EmotionLlama, "emotion_llama.pth", &few, &two),
            vec!["an input `face`", "the model has video"],
        ),
        (
            import(
                Published::EmotionLlama,
                "emotion_llama_normed.pth",
                &emotion,
                &two,
            ),
            vec![
                "emotion_llama_normed.pth",
                "`ln_vision.bias` holds 0.25, wanted 0",
            ],
        ),
        (
            import(
                Published::AffectgptV2,
                "affectgpt_v2.pth",
                &affectgpt_v2(r#"["audio", "face"]"#),
                &SEVEN,
            ),
            vec!["`multi` of face and audio, in this order"],
        ),
        (
            import(
                Published::AffectgptV2,
                "affectgpt_v2.pth",
                &affectgpt_v2_qformer(),
                &SEVEN,
            ),
            vec![
                "missing `projectors.0.query_tokens`",
                "unexpected `projectors.0.attention_mlp.weight`",
            ],
        ),
        (
            import(
                Published::AffectgptV1,
                "affectgpt_v1.pth",
                &affectgpt_v1(),
                &["q_proj"],
            ),
            vec!["missing `llama.model.layers.0.self_attn.q_proj.lora_A.weight`"],
        ),
    ];
    for (result, parts) in cases {
        let message = result.map(|_| ()).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{part} not in: {message}");
        }
    }
}

#[test]
fn layouts_are_called_as_their_configs_are() {
    for (name, published) in [
        ("emotion-llama", Published::EmotionLlama),
        ("minigpt-v2", Published::MinigptV2),
        ("affectgpt-v1", Published::AffectgptV1),
        ("affectgpt-v2", Published::AffectgptV2),
    ] {
        assert_eq!(Published::parse(name), Ok(published));
    }
    let message = Published::parse("emotion-lama").unwrap_err();
    assert!(message.contains("affectgpt-v2"), "{message}");
}

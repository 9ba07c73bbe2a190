//! Counts of the shipped decoders, from their shapes alone: nothing is loaded, nothing takes memory.

use std::path::Path;

use limbic_llama::{Llama, LlamaConfig, LoraConfig};
use limbic_weights::ParameterTable;

use crate::recipe::{DecoderRecipe, PretrainedDecoder};
use crate::tests::device;

fn shipped(name: &str) -> PretrainedDecoder {
    let path = format!("../../configs/backbones/{name}.yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap();
    match serde_yaml::from_str(&text).unwrap() {
        DecoderRecipe::Pretrained(decoder) => decoder,
        DecoderRecipe::Scratch(_) => panic!("{name} is no published model"),
    }
}

fn empty(name: &str) -> Llama {
    shipped(name).shape.unwrap().init(&device())
}

fn table(name: &str, lora: &LoraConfig) -> ParameterTable {
    let llama = empty(name).with_lora(lora, 0).unwrap();
    ParameterTable::of(&llama, |name| name.contains(".lora_"))
}

#[test]
fn parameters_are_those_of_the_published_models() {
    for (name, count) in [
        ("llama-2-7b-chat", 6_738_415_616),
        ("vicuna-7b", 6_738_415_616),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-7b-instruct", 7_615_616_512),
        ("qwen2.5-0.5b-instruct", 494_032_768),
    ] {
        assert_eq!(
            ParameterTable::of(&empty(name), |_| false).all,
            count,
            "{name}"
        );
    }
}

#[test]
fn adapters_are_as_large_as_published() {
    // Emotion-LLaMA's, told as PEFT tells it.
    let emotion_llama = LoraConfig {
        lora_dropout: 0.05,
        ..LoraConfig::new(64, 16.0, &["q_proj", "v_proj"])
    };
    let told = table("llama-2-7b-chat", &emotion_llama).to_string();
    assert_eq!(
        told.lines().last().unwrap(),
        "trainable params: 33,554,432 || all params: 6,771,970,048 || trainable%: 0.4955"
    );
    assert!(
        told.starts_with("model.layers.*.self_attn.q_proj.lora_A"),
        "{told}"
    );
    // Table 8 of the AffectGPT paper.
    for (rank, count) in [(8, 20_185_088), (16, 40_370_176), (32, 80_740_352)] {
        let all = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ];
        let lora = LoraConfig::new(rank, 16.0, &all);
        assert_eq!(table("qwen2.5-7b-instruct", &lora).trainable, count);
    }
}

#[test]
fn another_model_in_the_folder_is_refused_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut decoder = PretrainedDecoder {
        folder: folder.path().into(),
        ..shipped("llama-3.2-1b")
    };
    let shape = decoder.shape.clone().unwrap();
    let write = |config: &LlamaConfig| config.write_json(&folder.path().join("config.json"));
    write(&LlamaConfig {
        eos_token_ids: vec![128_001, 128_008],
        dtype: "bfloat16".into(),
        ..shape.clone()
    })
    .unwrap();
    assert_eq!(decoder.config().unwrap().dtype, "bfloat16");
    write(&LlamaConfig {
        rope_scaling: None,
        ..shape
    })
    .unwrap();
    let message = decoder.config().unwrap_err();
    assert!(
        message.contains("`rope_scaling`") && message.contains("config.json"),
        "{message}"
    );
    decoder.shape = None;
    decoder.config().unwrap();
}

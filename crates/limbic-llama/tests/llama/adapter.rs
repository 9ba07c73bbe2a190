use std::path::Path;

use burn::tensor::Device;
use limbic_llama::{Llama, LlamaConfig, LoraConfig, read_adapter, write_adapter};
use limbic_weights::{NamedTensor, Weights};

use crate::{folder, read};

fn adapted() -> Llama {
    read_adapter(read("untied"), &folder("untied").join("adapter")).unwrap()
}

#[test]
fn pefts_folder_is_written_again_with_the_same_tensors() {
    let out = tempfile::tempdir().unwrap();
    let written = out.path().join("adapter");
    write_adapter(&adapted(), &written, "some/base").unwrap();
    let tensors = |folder: &Path| Weights::read(&folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(
        tensors(&written),
        tensors(&folder("untied").join("adapter"))
    );

    let text = std::fs::read_to_string(written.join("adapter_config.json")).unwrap();
    let keys: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("  \""))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(keys.is_sorted() && keys.len() == 20, "{keys:?}");
    assert!(text.contains("\"lora_alpha\": 5,"), "{text}");
    let names: Vec<_> = std::fs::read_dir(out.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary folder stays behind");

    let again = read_adapter(read("untied"), &written).unwrap();
    assert_eq!(again.lora(), adapted().lora());
    assert_eq!(Weights::collect(&again), Weights::collect(&adapted()));
    let error = write_adapter(&adapted(), &written, "some/base").unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
}

#[test]
fn damaged_tensors_are_named() {
    const KEY: &str = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
    let message = |change: fn(&mut Weights)| {
        let out = tempfile::tempdir().unwrap();
        let written = out.path().join("adapter");
        write_adapter(&adapted(), &written, "some/base").unwrap();
        let path = written.join("adapter_model.safetensors");
        let mut weights = Weights::read(&path).unwrap();
        change(&mut weights);
        weights.write(&path).unwrap();
        let error = read_adapter(read("untied"), &written);
        error.unwrap_err().to_string()
    };
    let missing = message(|weights| drop(weights.tensors.remove(KEY)));
    assert!(
        missing.contains("q_proj.lora_A") && missing.contains("missing"),
        "{missing}"
    );
    let unexpected = message(|weights| {
        let tensor = weights.tensors[KEY].clone();
        weights
            .tensors
            .insert(KEY.replace("layers.1", "layers.2"), tensor);
    });
    assert!(
        unexpected.contains("unexpected") && unexpected.contains("layers.2"),
        "{unexpected}"
    );
    let other_rank = message(|weights| {
        let (shape, values) = (vec![4, 36], vec![0.0; 144]);
        weights
            .tensors
            .insert(KEY.into(), NamedTensor { shape, values });
    });
    assert!(
        other_rank.contains("[4, 36]") && other_rank.contains("[3, 36]"),
        "{other_rank}"
    );
}

#[test]
fn settings_not_built_here_are_refused_by_key() {
    for (from, to, key) in [
        (r#""revision": null"#, r#""lora_bias": true"#, "lora_bias"),
        (
            r#""init_lora_weights": true"#,
            r#""init_lora_weights": "pissa""#,
            "init_lora_weights",
        ),
        (r#""bias": "none""#, r#""bias": "all""#, "bias"),
        (
            r#""rank_pattern": {}"#,
            r#""rank_pattern": {"q_proj": "4"}"#,
            "rank_pattern",
        ),
        (
            r#""modules_to_save": null"#,
            r#""modules_to_save": ["lm_head"]"#,
            "modules_to_save",
        ),
        (
            r#""revision": null"#,
            r#""some_new_variant": true"#,
            "some_new_variant",
        ),
        (
            r#""peft_type": "LORA""#,
            r#""peft_type": "IA3""#,
            "peft_type",
        ),
        (r#""r": 3"#, r#""r": "3""#, "`r`"),
        (
            r#""lora_dropout": 0.0"#,
            r#""lora_dropout": "no""#,
            "lora_dropout",
        ),
    ] {
        let out = tempfile::tempdir().unwrap();
        let written = out.path().join("adapter");
        write_adapter(&adapted(), &written, "some/base").unwrap();
        let path = written.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} not in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let error = read_adapter(read("untied"), &written)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(key) && error.contains("adapter_config.json"),
            "{error}"
        );
    }
}

/// The folder that scripts/golden/verify_adapter.py loads with transformers and PEFT; made where
/// `LIMBIC_ADAPTER_OUT` says, and in a temporary folder otherwise.
#[test]
fn an_exported_model_and_adapter_read_back() {
    let temporary = tempfile::tempdir().unwrap();
    let out = std::env::var_os("LIMBIC_ADAPTER_OUT")
        .map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let base = out.join("base");
    std::fs::create_dir_all(&base).unwrap();
    let config = LlamaConfig {
        num_key_value_heads: 2,
        ..LlamaConfig::small(50, 48, 2, 4)
    };
    config.write_json(&base.join("config.json")).unwrap();
    let llama = limbic_weights::seed(config.init(&Device::flex()), 11);
    Weights::collect(&llama)
        .write(&base.join("model.safetensors"))
        .unwrap();

    let lora = LoraConfig {
        lora_dropout: 0.05,
        use_rslora: true,
        ..LoraConfig::new(4, 7.0, &["q_proj", "up_proj", "lm_head"])
    };
    let llama = llama.with_lora(&lora, 5).unwrap();
    // Another draw over all matrices leaves B other than zero.
    let factors = Weights::collect(&limbic_weights::seed(llama.clone(), 12));
    let mut weights = Weights::collect(&llama);
    weights
        .tensors
        .extend(factors.filter(|name| name.contains(".lora_")).tensors);
    let llama = limbic_weights::load(llama, &weights).unwrap();
    write_adapter(&llama, &out.join("adapter"), "../base").unwrap();

    let again = read_adapter(
        Llama::read(&base, &Device::flex()).unwrap(),
        &out.join("adapter"),
    );
    let again = again.unwrap();
    assert_eq!(Weights::collect(&again), weights);
    let ids = burn::tensor::Tensor::from_data([[3, 1, 4, 1, 5, 9, 2, 6]], &Device::flex());
    let (_, logits) = crate::forward(&again, again.embed(ids));
    let shape = logits.dims().to_vec();
    let values = crate::host(logits);
    assert!(values.iter().all(|value| value.is_finite()));
    let mut expected = Weights::default();
    expected
        .tensors
        .insert("logits".into(), NamedTensor { shape, values });
    expected.write(&out.join("expected.safetensors")).unwrap();
}

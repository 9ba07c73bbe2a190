use std::path::Path;

use burn::tensor::Device;
use limbic_llama::{
    Architecture, Llama, LlamaConfig, LoraConfig, Padding, RopeScaling, Targets, read_adapter,
    write_adapter,
};
use limbic_weights::{NamedTensor, Weights};

use crate::{MODELS, folder, read};

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

/// What PEFT wrote before safetensors, which trained the same.
#[test]
fn an_older_file_is_read_where_there_is_no_newer() {
    let copy = tempfile::tempdir().unwrap();
    let source = folder("tied").join("adapter");
    for file in ["adapter_config.json", "adapter_model.bin"] {
        std::fs::copy(source.join(file), copy.path().join(file)).unwrap();
    }
    let old = read_adapter(read("tied"), copy.path()).unwrap();
    let new = read_adapter(read("tied"), &source).unwrap();
    assert_eq!(Weights::collect(&old), Weights::collect(&new));
}

/// Every kind of adapter: PEFT's folder read, written and read again.
#[test]
fn all_settings_survive_our_files() {
    for name in MODELS {
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        let out = tempfile::tempdir().unwrap();
        let written = out.path().join("adapter");
        write_adapter(&adapted, &written, "some/base").unwrap();
        let again = read_adapter(read(name), &written).unwrap();
        assert_eq!(again.lora(), adapted.lora(), "{name}");
        assert_eq!(Weights::collect(&again), Weights::collect(&adapted));
    }
    // Other readers know lists only.
    let lora = LoraConfig {
        target_modules: Targets::Pattern("all-linear".into()),
        ..LoraConfig::new(2, 4.0, &[])
    };
    let out = tempfile::tempdir().unwrap();
    let written = out.path().join("adapter");
    let llama = read("untied").with_lora(&lora, 1).unwrap();
    write_adapter(&llama, &written, "some/base").unwrap();
    let again = read_adapter(read("untied"), &written).unwrap();
    let all = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj";
    assert_eq!(again.lora().unwrap().target_modules.to_string(), all);
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

/// The folders that scripts/golden/verify_adapter.py loads with transformers and PEFT; made where
/// `LIMBIC_ADAPTER_OUT` says, and in a temporary folder otherwise.
#[test]
fn an_exported_model_and_adapter_read_back() {
    let temporary = tempfile::tempdir().unwrap();
    let out = std::env::var_os("LIMBIC_ADAPTER_OUT")
        .map_or_else(|| temporary.path().to_path_buf(), Into::into);
    let small = LlamaConfig {
        num_key_value_heads: 2,
        ..LlamaConfig::small(50, 48, 2, 4)
    };
    let qwen2 = LlamaConfig {
        architecture: Architecture::Qwen2,
        tie_word_embeddings: true,
        eos_token_ids: vec![2, 3],
        ..small.clone()
    };
    let llama3 = LlamaConfig {
        rope_scaling: Some(RopeScaling::Llama3 {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 3.0,
            original_max_position_embeddings: 16,
        }),
        mlp_bias: true,
        ..small.clone()
    };
    let lora = LoraConfig {
        lora_dropout: 0.05,
        use_rslora: true,
        ..LoraConfig::new(4, 7.0, &["q_proj", "up_proj", "lm_head"])
    };
    let dora = LoraConfig {
        target_modules: Targets::Pattern("all-linear".into()),
        use_dora: true,
        rank_pattern: [("up_proj".into(), 2)].into(),
        ..lora.clone()
    };
    let patterns = LoraConfig {
        target_modules: Targets::Pattern(r"model\.layers\.1\.(?!mlp).*_proj".into()),
        exclude_modules: Some(Targets::Names(vec!["k_proj".into()])),
        rank_pattern: [("q_proj|k_proj".into(), 2)].into(),
        alpha_pattern: [(r".*\.1\.self_attn\.o_proj".into(), 2.5)].into(),
        use_rslora: false,
        ..lora.clone()
    };
    export("llama", &small, &lora, &out);
    export("qwen2", &qwen2, &dora, &out);
    export("llama3", &llama3, &patterns, &out);
}

fn export(name: &str, config: &LlamaConfig, lora: &LoraConfig, out: &Path) {
    let out = out.join(name);
    let base = out.join("base");
    std::fs::create_dir_all(&base).unwrap();
    config.write_json(&base.join("config.json")).unwrap();
    let llama = limbic_weights::seed(config.init(&Device::flex()), 11);
    let mut weights = Weights::collect(&llama);
    for (name, tensor) in &mut weights.tensors {
        if name.ends_with(".bias") {
            let values = tensor.values.iter_mut().enumerate();
            values.for_each(|(index, value)| *value = (index as f32).sin());
        }
    }
    let llama = limbic_weights::load(llama, &weights).unwrap();
    weights.write(&base.join("model.safetensors")).unwrap();

    let llama = llama.with_lora(lora, 5).unwrap();
    // Another draw over all matrices leaves B other than zero.
    let factors = Weights::collect(&limbic_weights::seed(llama.clone(), 12));
    let mut weights = Weights::collect(&llama);
    weights
        .tensors
        .extend(factors.filter(|name| name.contains(".lora_")).tensors);
    for (name, tensor) in &mut weights.tensors {
        if name.ends_with("lora_magnitude_vector") {
            tensor.values.iter_mut().for_each(|value| *value *= 1.5);
        }
    }
    let llama = limbic_weights::load(llama, &weights).unwrap();
    let folder = out.join("adapter");
    write_adapter(&llama, &folder, "../base").unwrap();

    let again = read_adapter(Llama::read(&base, &Device::flex()).unwrap(), &folder).unwrap();
    assert_eq!(Weights::collect(&again), weights);
    let rows = [vec![3, 1, 4, 1, 5, 9, 2, 6]];
    let logits = again.inspect(&rows, &Padding::Right).unwrap().logits;
    let shape = logits.dims().to_vec();
    let values = crate::host(logits);
    assert!(values.iter().all(|value| value.is_finite()));
    let mut expected = Weights::default();
    expected
        .tensors
        .insert("logits".into(), NamedTensor { shape, values });
    expected.write(&out.join("expected.safetensors")).unwrap();
}

/// PEFT writes the adapted output layer's own weight along, as `base_layer`.
#[test]
fn a_copy_of_the_base_is_compared() {
    let out = tempfile::tempdir().unwrap();
    let written = out.path().join("adapter");
    let lora = LoraConfig::new(2, 4.0, &["q_proj", "lm_head"]);
    let llama = read("untied").with_lora(&lora, 3).unwrap();
    write_adapter(&llama, &written, "some/base").unwrap();
    let path = written.join("adapter_model.safetensors");
    let mut weights = Weights::read(&path).unwrap();
    let mut head = Weights::collect(&read("untied")).tensors["lm_head.weight"].clone();
    let name = "base_model.model.lm_head.base_layer.weight";
    weights.tensors.insert(name.into(), head.clone());
    weights.write(&path).unwrap();
    read_adapter(read("untied"), &written).unwrap();
    head.values[7] += 1.0;
    weights.tensors.insert(name.into(), head);
    weights.write(&path).unwrap();
    let error = read_adapter(read("untied"), &written).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("`lm_head.base_layer.weight`"), "{error}");
}

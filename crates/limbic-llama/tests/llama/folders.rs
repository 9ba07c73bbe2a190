use std::path::Path;

use burn::tensor::Device;
use limbic_llama::{Llama, LlamaError};
use limbic_weights::{NamedTensor, Weights};

use crate::{folder, read};

/// A copy of a golden model's folder with its weights changed, and what reading it gives.
fn reread(name: &str, change: impl FnOnce(&mut Weights)) -> Result<Llama, LlamaError> {
    let copy = tempfile::tempdir().unwrap();
    let mut weights = Weights::read(&folder(name)).unwrap();
    change(&mut weights);
    weights
        .write(&copy.path().join("model.safetensors"))
        .unwrap();
    std::fs::copy(
        folder(name).join("config.json"),
        copy.path().join("config.json"),
    )
    .unwrap();
    Llama::read(copy.path(), &Device::flex())
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn what_follows_from_the_config_is_passed_over() {
    let llama = reread("untied", |weights| {
        for layer in 0..2 {
            let name = format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq");
            let (shape, values) = (vec![3], vec![1.0, 0.1, 0.01]);
            weights.tensors.insert(name, NamedTensor { shape, values });
        }
    });
    assert_eq!(
        Weights::collect(&llama.unwrap()),
        Weights::collect(&read("untied"))
    );
}

#[test]
fn a_tied_output_layer_must_be_the_embedding_table() {
    let with_head = |scale: f32| {
        reread("tied", |weights| {
            let mut head = weights.tensors["model.embed_tokens.weight"].clone();
            head.values[7] *= scale;
            weights.tensors.insert("lm_head.weight".into(), head);
        })
    };
    assert_eq!(
        Weights::collect(&with_head(1.0).unwrap()),
        Weights::collect(&read("tied"))
    );
    let message = with_head(2.0).unwrap_err().to_string();
    assert!(message.contains("tie_word_embeddings"), "{message}");
}

#[test]
fn wrong_weights_are_named() {
    let message = reread("qwen2", |weights| {
        drop(
            weights
                .tensors
                .remove("model.layers.1.self_attn.k_proj.bias"),
        );
    });
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("layers.1.self_attn.k_proj.bias") && message.contains("missing"),
        "{message}"
    );
    // A bias that the architecture does not have.
    let message = reread("qwen2", |weights| {
        let bias = weights.tensors["model.layers.1.self_attn.q_proj.bias"].clone();
        weights
            .tensors
            .insert("model.layers.1.self_attn.o_proj.bias".into(), bias);
    });
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("o_proj.bias") && message.contains("unexpected"),
        "{message}"
    );
}

#[test]
fn a_missing_shard_is_named() {
    let copy = tempfile::tempdir().unwrap();
    copy_all(&folder("qwen2"), copy.path());
    const SHARD: &str = "model-00003-of-00004.safetensors";
    std::fs::remove_file(copy.path().join(SHARD)).unwrap();
    let message = Llama::read(copy.path(), &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(message.contains(SHARD), "{message}");
}

/// A number that no machine has memory for is compared with the checkpoint before anything is built of it.
#[test]
fn more_layers_than_tensors_are_refused() {
    for layers in ["60000", "1000000", "9223372036854775807"] {
        let copy = tempfile::tempdir().unwrap();
        let from = folder("untied");
        let text = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["num_hidden_layers"] = serde_json::from_str(layers).unwrap();
        std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
        let weights = "model.safetensors";
        std::fs::copy(from.join(weights), copy.path().join(weights)).unwrap();
        let error = Llama::read(copy.path(), &Device::flex()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("`num_hidden_layers`") && error.contains("config.json"),
            "{error}"
        );
    }
}

/// Writes the folder `name` again, its tensors named anew.
fn renamed(name: &str, rename: impl Fn(&str) -> Option<String>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = folder(name);
    std::fs::copy(from.join("config.json"), copy.path().join("config.json")).unwrap();
    let weights = Weights::read(&from.join("model.safetensors")).unwrap();
    let tensors = weights.tensors.into_iter();
    let tensors = tensors.filter_map(|(name, tensor)| Some((rename(&name)?, tensor)));
    let weights = Weights {
        tensors: tensors.collect(),
    };
    weights
        .write(&copy.path().join("model.safetensors"))
        .unwrap();
    copy
}

#[test]
fn other_classes_are_read_where_whole_and_named_otherwise() {
    let open = |copy: &tempfile::TempDir| Llama::read(copy.path(), &Device::flex());
    let bare = |name: &str| name.strip_prefix("model.").map(str::to_string);
    let tied = Weights::collect(&open(&renamed("tied", bare)).unwrap());
    assert_eq!(tied.tensors, Weights::collect(&read("tied")).tensors);
    let wrapped = renamed("untied", |name| Some(format!("state_dict.{name}")));
    let wrapped = Weights::collect(&open(&wrapped).unwrap());
    assert_eq!(wrapped.tensors, Weights::collect(&read("untied")).tensors);

    let error = open(&renamed("untied", bare)).unwrap_err().to_string();
    assert!(error.contains("`LlamaModel`"), "{error}");
    let classifier = renamed("untied", |name| Some(name.replace("lm_head", "score")));
    let error = open(&classifier).unwrap_err().to_string();
    assert!(
        error.contains("`LlamaForSequenceClassification`"),
        "{error}"
    );
}

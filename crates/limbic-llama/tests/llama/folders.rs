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

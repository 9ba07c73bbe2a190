use burn::tensor::Device;
use limbic_llama::{LlamaConfig, Padding, read_adapter};
use limbic_weights::{NamedTensor, Weights};

use crate::{Reference, distance, folder, host, read};

/// How far the logits of `weights` in a model of `config` are from the reference's.
fn error(name: &str, config: &LlamaConfig, weights: &Weights) -> f32 {
    let reference = Reference::read(name);
    let llama = limbic_weights::load(config.init(&Device::flex()), weights).unwrap();
    let seen = llama.inspect(&reference.rows(), &Padding::Right).unwrap();
    distance(&host(seen.logits), reference.values("logits"))
}

/// The weights of a model, with those of the layers that `names` are part of changed.
fn changed(name: &str, names: &[&str], change: impl Fn(&mut NamedTensor)) -> Weights {
    let mut weights = Weights::collect(&read(name));
    let mut count = 0;
    for (name, tensor) in &mut weights.tensors {
        if names.iter().any(|part| name.contains(part)) {
            change(tensor);
            count += 1;
        }
    }
    assert!(count > 0, "no tensor of {name} is called {names:?}");
    weights
}

/// Puts row `order(row)` where `row` was.
fn reorder(tensor: &mut NamedTensor, order: impl Fn(usize) -> usize) {
    let width = tensor.shape.get(1).copied().unwrap_or(1);
    let old = tensor.values.clone();
    for (row, values) in tensor.values.chunks_exact_mut(width).enumerate() {
        values.copy_from_slice(&old[order(row) * width..][..width]);
    }
}

#[test]
fn each_is_far_from_the_reference() {
    for name in ["untied", "llama3", "qwen2", "biased"] {
        let config = read(name).config().clone();
        let head = config.head_dim;
        let share = config.num_attention_heads / config.num_key_value_heads;
        let groups = config.num_key_value_heads;
        let intact = error(name, &config, &Weights::collect(&read(name)));
        assert!(intact < 1e-4, "{name}: {intact}");

        // The first two query heads change places.
        let swapped = changed(name, &["q_proj"], |tensor| {
            reorder(tensor, |row| match row / head {
                0 => row + head,
                1 => row - head,
                _ => row,
            });
        });
        // Meta's interleaved layout: pair (2i, 2i+1) stands where pair (i, i + half) belongs.
        let interleaved = changed(name, &["q_proj", "k_proj"], |tensor| {
            reorder(tensor, |row| {
                let (start, i, half) = (row / head * head, row % head, head / 2);
                start + if i < half { 2 * i } else { 2 * (i - half) + 1 }
            });
        });
        // Query heads dealt out to the key-value heads in turn instead of by groups.
        let dealt = changed(name, &["q_proj"], |tensor| {
            reorder(tensor, |row| {
                let h = row / head;
                (h % groups * share + h / groups) * head + row % head
            });
        });
        // Key and value heads each one group further.
        let shifted = changed(name, &["k_proj", "v_proj"], |tensor| {
            reorder(tensor, |row| (row + head) % (groups * head));
        });
        let mut mistakes = vec![
            ("swapped heads", swapped),
            ("interleaved RoPE", interleaved),
        ];
        if groups > 1 {
            mistakes.push(("dealt query heads", dealt));
            mistakes.push(("shifted key-value heads", shifted));
        }
        if name == "qwen2" || name == "biased" {
            let none = |tensor: &mut NamedTensor| tensor.values.fill(0.0);
            mistakes.push(("no query bias", changed(name, &["q_proj.bias"], none)));
            mistakes.push(("no value bias", changed(name, &["v_proj.bias"], none)));
        }
        if name == "biased" {
            let none = |tensor: &mut NamedTensor| tensor.values.fill(0.0);
            mistakes.push(("no output bias", changed(name, &["o_proj.bias"], none)));
            mistakes.push((
                "no bias behind SwiGLU",
                changed(name, &["down_proj.bias"], none),
            ));
        }
        for (mistake, weights) in mistakes {
            let off = error(name, &config, &weights);
            assert!(
                off > 0.05,
                "{name}: {mistake} moves the logits by {off} only"
            );
        }
        if config.rope_scaling.is_some() {
            let plain = LlamaConfig {
                rope_scaling: None,
                ..config
            };
            let off = error(name, &plain, &Weights::collect(&read(name)));
            assert!(
                off > 0.05,
                "{name}: no scaling moves the logits by {off} only"
            );
        }
    }
}

/// DoRA read as plain LoRA, and patterns of ranks read without the numerators that go with them.
#[test]
fn adapters_without_their_settings_are_far_from_the_reference() {
    for (name, from, to) in [
        ("llama3", r#""use_rslora": true"#, r#""use_rslora": false"#),
        ("qwen2", r#""gate_proj": 1.5"#, r#""gate_proj": 15"#),
    ] {
        let copy = tempfile::tempdir().unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let source = folder(name).join("adapter").join(file);
            std::fs::copy(source, copy.path().join(file)).unwrap();
        }
        let path = copy.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let reference = Reference::read(name);
        let adapted = read_adapter(read(name), copy.path()).unwrap();
        let seen = adapted.inspect(&reference.rows(), &Padding::Right).unwrap();
        let off = distance(&host(seen.logits), reference.values("lora.logits"));
        assert!(off > 0.01, "{name}: {off}");
    }
    // Magnitudes without `use_dora` are not silently left out.
    let copy = tempfile::tempdir().unwrap();
    let source = folder("llama3").join("adapter");
    let weights = "adapter_model.safetensors";
    std::fs::copy(source.join(weights), copy.path().join(weights)).unwrap();
    let text = std::fs::read_to_string(source.join("adapter_config.json")).unwrap();
    let text = text.replace(r#""use_dora": true"#, r#""use_dora": false"#);
    std::fs::write(copy.path().join("adapter_config.json"), text).unwrap();
    let message = read_adapter(read("llama3"), copy.path())
        .unwrap_err()
        .to_string();
    assert!(message.contains("lora_magnitude_vector"), "{message}");
}

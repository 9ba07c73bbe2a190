use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use limbic_llama::{Dropout, Llama, LlamaConfig, LoraConfig, Padding, read_adapter};
use limbic_weights::{CounterRng, Weights};

use crate::{
    MODELS, Reference, distance, folder, forward, forward_with, host, named_gradients, read, track,
};

#[test]
fn hidden_states_and_logits_are_transformers() {
    for name in MODELS {
        let (llama, reference) = (read(name), Reference::read(name));
        let seen = llama.inspect(&reference.rows(), &Padding::Right).unwrap();
        assert_eq!(seen.hidden.len(), llama.config().num_hidden_layers + 1);
        for (index, hidden) in seen.hidden.into_iter().enumerate() {
            let off = distance(&host(hidden), reference.values(&format!("hidden.{index}")));
            assert!(off < 2e-5, "{name}: hidden.{index} {off}");
        }
        let logits = host(seen.logits);
        let off = distance(&logits, reference.values("logits"));
        assert!(off < 1e-4, "{name}: logits {off}");
        // The way of training and generation computes the same.
        let (_, trained) = forward(&llama, llama.embed(reference.ids()));
        assert_eq!(host(trained), logits, "{name}");
    }
}

/// Row 0 begins three slots late; transformers counts its positions from the first slot, we from its own begin.
#[test]
fn left_padding_is_transformers() {
    for name in MODELS {
        let (llama, reference) = (read(name), Reference::read(name));
        let rows = reference.rows();
        let slots = rows[0].len();
        let mask = [3, 0].map(|pads| (0..slots).map(|slot| slot >= pads).collect());
        let padding = Padding::of_mask(&mask).unwrap();
        assert_eq!(padding, Padding::Left(vec![3, 0]));
        let mut seen = llama.inspect(&rows, &padding).unwrap();
        let held = |values: &[f32]| {
            let width = values.len() / (2 * slots);
            values[3 * width..].to_vec()
        };
        let hidden = host(seen.hidden.pop().unwrap());
        let off = distance(&held(&hidden), &held(reference.values("padded.hidden")));
        assert!(off < 2e-5, "{name}: hidden {off}");
        let off = distance(
            &held(&host(seen.logits)),
            &held(reference.values("padded.logits")),
        );
        assert!(off < 1e-4, "{name}: logits {off}");
        assert!(distance(&hidden, reference.values("hidden.0")) > 0.1);
    }
}

#[test]
fn unusable_rows_are_refused() {
    let llama = read("untied");
    for (rows, part) in [
        (vec![vec![1, 53]], "53"),
        (vec![vec![1, 2], vec![1]], "row 1 has 1"),
        (vec![vec![]], "0 in a row"),
        (vec![vec![1; 65]], "65 in a row, wanted 1 to 64"),
    ] {
        let error = llama.inspect(&rows, &Padding::Right).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = llama.inspect(&[vec![1]], &Padding::Left(vec![0, 1]));
    assert!(error.unwrap_err().to_string().contains("padding is for 2"));
}

/// Products in BF16 between F32: near the F32 result, and every part takes such weights.
#[test]
fn half_precision_weights_compute_nearly_the_same() {
    for name in MODELS {
        let reference = Reference::read(name);
        let llama = read(name).map(&mut Halver);
        let adapted = read_adapter(llama.clone(), &folder(name).join("adapter")).unwrap();
        let seen = llama.inspect(&reference.rows(), &Padding::Right).unwrap();
        assert_eq!(seen.logits.dtype(), DType::F32);
        let off = distance(&host(seen.logits), reference.values("logits"));
        assert!(off > 1e-5 && off < 0.1, "{name}: {off}");
        let (_, logits) = forward(&adapted, adapted.embed(reference.ids()));
        let off = distance(&host(logits), reference.values("lora.logits"));
        assert!(off > 1e-5 && off < 0.1, "{name}: {off}");
        let merged = adapted.merge_lora();
        assert_eq!(
            merged.model.layers[0].self_attn.q_proj.weight.val().dtype(),
            DType::BF16
        );
    }
}

/// `llama3` is stored in BF16.
#[test]
fn weights_keep_their_precision_on_request() {
    let reference = Reference::read("llama3");
    let stored = Llama::read_as(&folder("llama3"), None, &Device::flex()).unwrap();
    for (llama, dtype, bound) in [
        (read("llama3"), DType::F32, 1e-4),
        (stored, DType::BF16, 0.1),
    ] {
        assert_eq!(llama.model.norm.weight.val().dtype(), dtype);
        assert_eq!(llama.model.embed_tokens.weight.val().dtype(), dtype);
        let seen = llama.inspect(&reference.rows(), &Padding::Right).unwrap();
        let off = distance(&host(seen.logits), reference.values("logits"));
        assert!(off < bound, "{dtype:?}: {off}");
    }
}

struct Halver;

impl ModuleMapper for Halver {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().cast(FloatDType::BF16))
    }
}

#[test]
fn gradients_of_base_weights_are_torchs() {
    for name in MODELS {
        let reference = Reference::read(name);
        let llama = track(read(name), |_| true);
        let (_, logits) = forward(&llama, llama.embed(reference.ids()));
        let gradients = (logits * reference.tensor("direction")).sum().backward();
        let got = named_gradients(&llama, &gradients.into());
        let wanted = reference.tensors.below("gradient.");
        let biases = usize::from(["qwen2", "biased"].contains(&name));
        assert_eq!(wanted.tensors.len(), 5 + biases);
        for (key, wanted) in wanted.tensors {
            let off = distance(&got[&key], &wanted.values);
            assert!(off < 1e-4, "{name}: {key} {off}");
        }
    }
}

/// Weights plain, adapters and inputs tracked: the way of training.
#[test]
fn adapters_and_their_gradients_are_pefts() {
    for name in MODELS {
        let reference = Reference::read(name);
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        let seen = adapted.inspect(&reference.rows(), &Padding::Right).unwrap();
        for (index, hidden) in seen.hidden.into_iter().enumerate() {
            let key = format!("lora.hidden.{index}");
            let off = distance(&host(hidden), reference.values(&key));
            assert!(off < 2e-5, "{name}: {key} {off}");
        }
        compare_gradients(name, "lora", adapted, Dropout::OFF);
    }
}

/// PEFT's sum for DoRA is another one where dropout acts; scripts/golden/llama.py draws our masks.
#[test]
fn dora_with_dropout_is_pefts() {
    let adapted = read_adapter(read("biased"), &folder("biased").join("adapter")).unwrap();
    let dropout = Dropout::keyed(CounterRng::new(3));
    compare_gradients("biased", "dropout", adapted, dropout);
    let reference = Reference::read("biased");
    let [dropped, plain] = ["dropout", "lora"].map(|k| reference.values(&format!("{k}.logits")));
    assert!(distance(dropped, plain) > 0.1);
}

fn compare_gradients(name: &str, prefix: &str, adapted: Llama, dropout: Dropout) {
    let reference = Reference::read(name);
    let embeddings = adapted.embed(reference.ids()).autodiff().require_grad();
    let llama = track(adapted, |name| name.contains(".lora_"));
    let (_, logits) = forward_with(&llama, embeddings.clone(), dropout);
    let off = distance(
        &host(logits.clone().inner()),
        reference.values(&format!("{prefix}.logits")),
    );
    assert!(off < 1e-4, "{name}: {prefix} logits {off}");

    let gradients = (logits * reference.tensor("direction")).sum().backward();
    let at_embeddings = host(embeddings.grad(&gradients).unwrap());
    let mut got = named_gradients(&llama, &gradients.into());
    got.insert("embeddings".into(), at_embeddings);
    let wanted = reference
        .tensors
        .below(&format!("{prefix}.gradient."))
        .tensors;
    // Every adapter of PEFT has its gradient, and nothing else has one.
    assert_eq!(
        wanted.keys().collect::<Vec<_>>(),
        got.keys().collect::<Vec<_>>(),
        "{name}"
    );
    for (key, wanted) in wanted {
        let off = distance(&got[&key], &wanted.values);
        assert!(off < 1e-4, "{name}: {prefix} {key} {off}");
    }
}

#[test]
fn merged_weights_are_pefts_and_come_back_to_the_bit() {
    for name in MODELS {
        let reference = Reference::read(name);
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        let before = Weights::collect(&adapted);
        let logits = |llama: &Llama| host(forward(llama, llama.embed(reference.ids())).1);
        let merged = adapted.merge();
        assert!(merged.llama.lora().is_none());
        let off = distance(&logits(&merged.llama), reference.values("lora.logits"));
        assert!(off < 1e-4, "{name}: {off}");
        const KEY: &str = "model.layers.0.self_attn.q_proj.weight";
        let weights = Weights::collect(&merged.llama);
        let off = distance(
            &weights.tensors[KEY].values,
            reference.values(&format!("merged.{KEY}")),
        );
        assert!(off < 1e-6, "{name}: {off}");
        assert_ne!(weights.tensors[KEY], before.tensors[KEY]);
        assert_eq!(Weights::collect(&merged.unmerge()), before, "{name}");
    }
}

#[test]
fn fresh_adapters_change_nothing_and_merged_ones_compute_the_same() {
    let (llama, reference) = (read("untied"), Reference::read("untied"));
    let embeddings = llama.embed(reference.ids());
    let logits = |llama: &Llama| host(forward(llama, embeddings.clone()).1);
    let base = logits(&llama);
    let fresh = llama
        .clone()
        .with_lora(&lora(&["q_proj", "lm_head"]), 1)
        .unwrap();
    assert_eq!(logits(&fresh), base);

    let adapted = read_adapter(llama.clone(), &folder("untied").join("adapter")).unwrap();
    let unmerged = logits(&adapted);
    let merged = adapted.merge_lora();
    assert!(merged.lora().is_none());
    assert!(distance(&unmerged, &base) > 0.1);
    assert!(distance(&logits(&merged), &unmerged) < 1e-5);
    let names = |llama: &Llama| {
        Weights::collect(llama)
            .tensors
            .into_keys()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&merged), names(&llama));
}

#[test]
fn dropout_acts_on_adapters_by_its_key_alone() {
    let reference = Reference::read("untied");
    let adapted = read_adapter(read("untied"), &folder("untied").join("adapter")).unwrap();
    let with = |probability: f64| {
        let mut lora = adapted.lora().unwrap().clone();
        lora.lora_dropout = probability;
        let weights = Weights::collect(&adapted);
        let fresh = read("untied").with_lora(&lora, 1).unwrap();
        limbic_weights::load(fresh, &weights).unwrap()
    };
    let embeddings = adapted.embed(reference.ids());
    let run = |llama: &Llama, dropout| {
        host(llama.hidden(embeddings.clone(), &Padding::Right, None, dropout))
    };
    let key = |seed| Dropout::keyed(CounterRng::new(seed));
    let (off, on) = (with(0.0), with(0.5));
    let plain = run(&adapted, Dropout::OFF);
    assert_eq!(run(&off, key(1)), plain);
    assert_eq!(run(&on, Dropout::OFF), plain);
    assert_eq!(run(&on, key(1)), run(&on, key(1)));
    assert!(distance(&run(&on, key(1)), &plain) > 0.01);
    assert!(distance(&run(&on, key(1)), &run(&on, key(2))) > 0.01);
}

#[test]
fn unknown_targets_are_refused_with_the_known_ones() {
    let message = |name, target| {
        let error = read(name).with_lora(&lora(&["q_proj", target]), 1);
        error.unwrap_err().to_string()
    };
    let text = message("untied", "query");
    for part in ["`query`", "q_proj", "down_proj", "lm_head"] {
        assert!(text.contains(part), "{text}");
    }
    // A tied model has no output layer of its own to adapt.
    assert!(message("tied", "lm_head").contains("`lm_head`"));
}

#[test]
fn a_model_is_a_function_of_its_seed() {
    let build = |seed| {
        let config = LlamaConfig::small(50, 32, 2, 4);
        let llama = limbic_weights::seed(config.init(&Device::flex()), seed);
        let llama = llama.with_lora(&lora(&["v_proj"]), seed).unwrap();
        Weights::collect(&llama).sha256()
    };
    assert_eq!(build(3), build(3));
    assert_ne!(build(3), build(4));
}

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig::new(4, 8.0, targets)
}

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use limbic_llama::{Dropout, Llama, LlamaConfig, LoraConfig, Padding, read_adapter};
use limbic_weights::{CounterRng, ModulePath, Weights};

use crate::{MODELS, Reference, distance, folder, forward, host, read, track};

#[test]
fn hidden_states_and_logits_are_transformers() {
    for name in MODELS {
        let (llama, reference) = (read(name), Reference::read(name));
        let (hidden, logits) = forward(&llama, llama.embed(reference.ids()));
        let hidden = distance(&host(hidden), reference.values("block_1"));
        let logits = distance(&host(logits), reference.values("logits"));
        assert!(hidden < 2e-5, "{name}: hidden {hidden}");
        assert!(logits < 1e-4, "{name}: logits {logits}");
    }
}

/// What the comparison above would miss is tested here: each plausible mistake must move the logits far.
#[test]
fn mistaken_layouts_are_seen() {
    let (llama, reference) = (read("untied"), Reference::read("untied"));
    let weights = Weights::collect(&llama);
    let heads_of = |name: &str| if name.contains("q_proj") { 6 } else { 2 };
    let rows = |names: &[&str], order: &dyn Fn(usize, usize) -> usize| {
        let mut changed = weights.clone();
        for (name, tensor) in &mut changed.tensors {
            if names.iter().any(|part| name.contains(part)) {
                let (count, width) = (tensor.shape[0], tensor.shape[1]);
                let old = tensor.values.clone();
                for row in 0..count {
                    let from = order(row, count / heads_of(name));
                    tensor.values[row * width..][..width]
                        .copy_from_slice(&old[from * width..][..width]);
                }
            }
        }
        changed
    };
    // Meta's interleaved layout: pair (2i, 2i+1) stands where pair (i, i + half) belongs.
    let interleaved = rows(&["q_proj", "k_proj"], &|row, head| {
        let (start, i) = (row / head * head, row % head);
        start
            + if i < head / 2 {
                2 * i
            } else {
                2 * (i - head / 2) + 1
            }
    });
    // Query heads dealt out to the two key-value heads in turn instead of by threes.
    let dealt = rows(&["q_proj"], &|row, head| {
        let (h, i) = (row / head, row % head);
        (h % 2 * 3 + h / 2) * head + i
    });
    let swapped = rows(&["k_proj", "v_proj"], &|row, head| {
        (row + head) % (2 * head)
    });
    for (mistake, weights) in [
        ("interleaved RoPE", interleaved),
        ("query heads", dealt),
        ("key-value heads", swapped),
    ] {
        let device = Device::flex();
        let llama = limbic_weights::load(llama.config().init(&device), &weights).unwrap();
        let (_, logits) = forward(&llama, llama.embed(reference.ids()));
        let logits = distance(&host(logits), reference.values("logits"));
        assert!(logits > 0.1, "{mistake} moves the logits by {logits} only");
    }
}

#[test]
fn gradients_of_base_weights_are_torchs() {
    for name in MODELS {
        let reference = Reference::read(name);
        let llama = track(read(name), |_| true);
        let (_, logits) = forward(&llama, llama.embed(reference.ids()));
        let gradients = (logits * reference.tensor("direction")).sum().backward();
        let got = named_gradients(&llama, &gradients);
        let wanted = reference.tensors.below("gradient.");
        assert_eq!(wanted.tensors.len(), 5);
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
        let base = read(name);
        let embeddings = base.embed(reference.ids()).autodiff().require_grad();
        let adapted = read_adapter(base, &folder(name).join("adapter")).unwrap();
        let llama = track(adapted, |name| name.contains(".lora_"));
        let (hidden, logits) = forward(&llama, embeddings.clone());
        let off = distance(&host(hidden.inner()), reference.values("lora.block_1"));
        assert!(off < 2e-5, "{name}: hidden {off}");
        let off = distance(
            &host(logits.clone().inner()),
            reference.values("lora.logits"),
        );
        assert!(off < 1e-4, "{name}: logits {off}");

        let gradients = (logits * reference.tensor("direction")).sum().backward();
        let mut got = named_gradients(&llama, &gradients);
        got.insert(
            "embeddings".into(),
            host(embeddings.grad(&gradients).unwrap()),
        );
        let wanted = reference.tensors.below("lora.gradient.").tensors;
        // 2 layers, 5 targets, A and B; and nothing else has a gradient.
        assert_eq!((wanted.len(), got.len()), (21, 21));
        for (key, wanted) in wanted {
            let off = distance(&got[&key], &wanted.values);
            assert!(off < 1e-4, "{name}: {key} {off}");
        }
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
    LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: 0.0,
        target_modules: targets.iter().map(|target| target.to_string()).collect(),
        use_rslora: false,
    }
}

fn named_gradients(llama: &Llama, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Collector<'a> {
        path: ModulePath,
        gradients: &'a Gradients,
        named: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collector<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.named.insert(self.path.name(), host(gradient));
            }
        }
    }
    let mut collector = Collector {
        path: ModulePath::default(),
        gradients,
        named: BTreeMap::new(),
    };
    llama.visit(&mut collector);
    collector.named
}

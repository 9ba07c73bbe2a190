use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use limbic_llama::{Dropout, Llama, LlamaConfig, LoraConfig, Padding};
use limbic_weights::CounterRng;

use super::{distance, host, track};

const LENGTHS: [usize; 4] = [5, 1, 17, 8];

/// Adapters with both factors drawn, so that all of them get gradients.
fn adapted(groups: usize) -> Llama {
    let config = LlamaConfig {
        num_key_value_heads: groups,
        max_position_embeddings: 20,
        ..LlamaConfig::small(50, 32, 2, 4)
    };
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"];
    let llama = config
        .init(&Device::flex())
        .with_lora(&LoraConfig::new(4, 8.0, &targets), 1)
        .unwrap();
    track(limbic_weights::seed(llama, 3), |name| name.contains("lora"))
}

/// `[1, slots, 32]`, the same for the same sample.
fn embeddings(sample: usize) -> Tensor<3> {
    let rng = CounterRng::new(5).index(sample as u64);
    let values: Vec<f32> = (0..LENGTHS[sample] as u64 * 32)
        .map(|i| rng.normal(i) as f32)
        .collect();
    let data = TensorData::new(values, [1, LENGTHS[sample], 32]);
    Tensor::<3>::from_data(data, &Device::flex())
}

/// Hidden states, and the gradients of a sum weighted alike for alike states, by embeddings and by all adapters.
struct Passed {
    hidden: Vec<f32>,
    by_embeddings: Vec<f32>,
    by_adapters: Vec<f32>,
}

fn pass(llama: &Llama, embeddings: Tensor<3>, padding: &Padding) -> Passed {
    let embeddings = embeddings.autodiff().require_grad();
    let hidden = llama.hidden(embeddings.clone(), padding, None, Dropout::OFF);
    let gradients = hidden.clone().sin().sum().backward();
    let mut by_adapters = Collected {
        gradients: &gradients,
        values: Vec::new(),
    };
    llama.visit(&mut by_adapters);
    Passed {
        hidden: host(hidden.inner()),
        by_embeddings: host(embeddings.grad(&gradients).unwrap()),
        by_adapters: by_adapters.values,
    }
}

struct Collected<'a> {
    gradients: &'a Gradients,
    values: Vec<f32>,
}

impl ModuleVisitor for Collected<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if tensor.is_tracked() {
            self.values
                .extend(host(tensor.grad(self.gradients).unwrap()));
        }
    }
}

#[test]
fn packed_samples_are_what_they_are_alone_gradients_included() {
    for groups in [4, 2, 1] {
        let llama = adapted(groups);
        let rows = (0..LENGTHS.len()).map(embeddings);
        let row = Tensor::cat(rows.collect(), 1);
        let packed = pass(&llama, row.clone(), &Padding::Packed(LENGTHS.to_vec()));
        let alone: Vec<Passed> = (0..LENGTHS.len())
            .map(|sample| pass(&llama, embeddings(sample), &Padding::Right))
            .collect();
        let all =
            |values: fn(&Passed) -> &[f32]| alone.iter().map(values).collect::<Vec<_>>().concat();
        let mut by_adapters = vec![0.0; packed.by_adapters.len()];
        for passed in &alone {
            for (sum, value) in by_adapters.iter_mut().zip(&passed.by_adapters) {
                *sum += value;
            }
        }
        let distances = |packed: &Passed| {
            [
                distance(&packed.hidden, &all(|passed| &passed.hidden)),
                distance(&packed.by_embeddings, &all(|passed| &passed.by_embeddings)),
                distance(&packed.by_adapters, &by_adapters),
            ]
        };
        let found = distances(&packed);
        assert!(
            found.iter().all(|distance| *distance < 1e-6),
            "{groups}: {found:?}"
        );

        // One border in the wrong place, and two samples see one another.
        let [a, b, c, d] = LENGTHS;
        let leaking = pass(&llama, row, &Padding::Packed(vec![a + b, c, d]));
        let found = distances(&leaking);
        assert!(
            found.iter().all(|distance| *distance > 1e-3),
            "{groups}: {found:?}"
        );
    }
}

#[test]
fn positions_are_counted_per_sample() {
    let llama = adapted(4);
    // 31 slots in all, but 20 positions: the longest sample has 17.
    let config = llama.config();
    assert!(LENGTHS.iter().sum::<usize>() > config.max_position_embeddings);
    let ids = vec![vec![3; 22]];
    let packed = llama.inspect(&ids, &Padding::Packed(vec![11, 11])).unwrap();
    let logits = host(packed.logits.inner());
    let (first, second) = logits.split_at(logits.len() / 2);
    assert!(distance(first, second) < 1e-6);

    for (lengths, part) in [
        (vec![21, 1], "21 in a row"),
        (vec![11, 10], "packed samples of [11, 10] slots"),
    ] {
        let error = llama.inspect(&ids, &Padding::Packed(lengths)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

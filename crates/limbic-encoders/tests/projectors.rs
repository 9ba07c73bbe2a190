//! What must hold for every projector.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use limbic_encoders::{Projector, ProjectorConfig};
use limbic_weights::{CounterRng, Weights};

const DIM: usize = 6;

fn projectors() -> Vec<(ProjectorConfig, Projector)> {
    let build = |yaml: &str| {
        let config: ProjectorConfig = serde_yaml::from_str(yaml).expect("a config of this crate");
        let projector = limbic_weights::seed(config.init(DIM, 5, &Device::flex()), 3);
        (config, projector)
    };
    vec![
        build(
            "{kind: qformer, queries: 4, layers: 2, heads: 2, dim: 8, intermediate: 16, max_length: 12, standardise: true}",
        ),
        build("{kind: linear, tokens: 3, standardise: true}"),
        build("{kind: mean_pool, hidden: 8, statistics: true, standardise: true}"),
        build("{kind: mean_pool, hidden: 8, standardise: true}"),
        build(
            "{kind: bert_qformer, queries: 3, heads: 2, dim: 8, intermediate: 12, positions: 5, \
             features_per_position: 3, standardise: true}",
        ),
        build("{kind: linear, select: first, standardise: true}"),
        build("{kind: attention, tokens: 2, standardise: true}"),
        build("{kind: attention, softmax: true, standardise: true}"),
        build("{kind: mean, tokens: 2, standardise: true}"),
    ]
}

/// `[1, length, DIM]` of seeded noise around 2, followed by zero rows up to `padded`.
fn clip(seed: u64, length: usize, padded: usize) -> Tensor<3> {
    let rng = CounterRng::new(seed);
    let mut values: Vec<f32> = (0..length * DIM)
        .map(|i| rng.normal(i as u64) as f32 + 2.0)
        .collect();
    values.resize(padded * DIM, 0.0);
    Tensor::from_data(TensorData::new(values, [1, padded, DIM]), &Device::flex())
}

fn largest_difference(a: Tensor<3>, b: Tensor<3>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar::<f32>()
}

#[test]
fn padding_does_not_influence_a_clip() {
    for (config, projector) in projectors() {
        let projector = projector.with_statistics(vec![1.5; DIM], vec![0.7; DIM]);
        let lengths = [1, 4, 11];
        let batch = Tensor::cat(
            lengths
                .iter()
                .map(|length| clip(*length as u64, *length, 11))
                .collect(),
            0,
        );
        let together = projector.forward(batch, &lengths);
        assert_eq!(together.dims(), [3, config.num_tokens(), 5]);
        assert_eq!(projector.num_tokens(), config.num_tokens());
        assert_eq!(projector.accepts(), config.accepts());
        for (row, length) in lengths.into_iter().enumerate() {
            let alone = projector.forward(clip(length as u64, length, length), &[length]);
            let difference = largest_difference(alone.clone(), together.clone().narrow(0, row, 1));
            assert!(
                difference < 1e-5,
                "{config:?}, length {length}: {difference}"
            );
            let other = projector.forward(clip(99, length, length), &[length]);
            assert!(
                largest_difference(alone, other) > 1e-4,
                "{config:?}: the clip does not matter"
            );
        }
    }
}

#[test]
fn a_padded_batch_has_finite_gradients() {
    for (config, projector) in projectors() {
        let features = clip(1, 2, 9).autodiff().require_grad();
        let gradients = projector
            .forward(features.clone(), &[2])
            .square()
            .sum()
            .backward();
        let gradient = features.grad(&gradients).expect("tracked");
        let sum = gradient.clone().abs().sum().into_scalar::<f32>();
        assert!(sum.is_finite() && sum > 0.0, "{config:?}: {sum}");
        let beyond = gradient.narrow(1, 2, 7).abs().sum().into_scalar::<f32>();
        assert_eq!(beyond, 0.0, "{config:?}: padding has a gradient");
    }
}

#[test]
fn statistics_are_subtracted_and_divided_by() {
    for (config, projector) in projectors() {
        let features = clip(5, 7, 7);
        let standardised = projector
            .clone()
            .with_statistics(vec![2.0; DIM], vec![4.0; DIM])
            .forward(features.clone(), &[7]);
        let by_hand = projector.forward((features - 2.0) / 4.0, &[7]);
        assert!(
            largest_difference(standardised, by_hand) < 1e-6,
            "{config:?}"
        );
    }
}

#[test]
fn only_the_statistics_are_frozen() {
    struct Frozen(usize);
    impl ModuleVisitor for Frozen {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 += usize::from(!param.is_require_grad());
        }
    }
    for (config, _) in projectors() {
        let projector = config
            .init(DIM, 5, &Device::flex().autodiff())
            .with_statistics(vec![0.0; DIM], vec![1.0; DIM])
            .train();
        let mut frozen = Frozen(0);
        projector.visit(&mut frozen);
        assert_eq!(frozen.0, 2, "{config:?}");
    }
}

#[test]
fn names_do_not_tell_the_kind() {
    let (_, projector) = projectors().swap_remove(1);
    let names: Vec<String> = Weights::collect(&projector).tensors.into_keys().collect();
    assert_eq!(
        names,
        [
            "body.linear.bias",
            "body.linear.weight",
            "input_mean",
            "input_std"
        ]
    );
}

#[test]
fn impossible_sizes_name_the_key() {
    let cases = [
        ("{kind: linear, tokens: 0}", "tokens"),
        ("{kind: mean_pool, hidden: 0}", "hidden"),
        (
            "{kind: qformer, queries: 4, layers: 2, heads: 3, dim: 8, intermediate: 16, max_length: 12}",
            "heads",
        ),
        (
            "{kind: qformer, queries: 4, layers: 2, heads: 2, dim: 8, intermediate: 16, max_length: 12, cross_attention_every: 3}",
            "cross_attention_every",
        ),
    ];
    for (yaml, key) in cases {
        let config: ProjectorConfig = serde_yaml::from_str(yaml).expect("well-formed");
        let message = config
            .check()
            .expect_err("sizes that cannot work")
            .to_string();
        assert!(message.contains(key), "{message}");
    }
    let unknown = serde_yaml::from_str::<ProjectorConfig>("{kind: linear, tokens: 2, token: 3}");
    assert!(
        unknown
            .expect_err("`token` is no key")
            .to_string()
            .contains("token")
    );
}

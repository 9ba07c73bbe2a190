use burn::tensor::Tensor;
use limbic_data::Task;
use limbic_model::{Part, Trainables};
use limbic_weights::CounterRng;

use super::{World, device};
use crate::{Batching, Dataset, LossMeans, LossRecipe, Replicas, Shards, StepGradient, Term};

struct Case {
    world: World,
    dataset: Dataset,
    dropout: f64,
    loss: LossRecipe,
    batching: Batching,
}

/// Every objective, in a form that makes it depend on all samples where it can.
fn all_losses() -> LossRecipe {
    serde_yaml::from_str(
        "{lm_weight: 1.0, class_weight: 0.5, label_smoothing: 0.1, label_weights: {happy: 1.0, sad: 2.5}, \
         focal_gamma: 2.0, valence_weight: 0.7, valence: {mse: 1.0, ccc: 0.5}, \
         contrastive_weight: [[0, 0.0], [8, 1.0]], masked_weight: 0.4, mask_share: 0.3}",
    )
    .unwrap()
}

/// The two losses that texts and labels have.
fn two_losses() -> LossRecipe {
    serde_yaml::from_str(
        "{lm_weight: 1.0, class_weight: 0.5, label_smoothing: 0.1, valence_weight: 0}",
    )
    .unwrap()
}

impl Case {
    fn new(dropout: f64, loss: LossRecipe) -> Self {
        let world = World::new();
        let (dataset, _) = world.dataset(
            world.clips(8),
            &[(Task::Emotion, 1.0), (Task::Reason, 1.0)],
            512,
        );
        Self {
            world,
            dataset,
            dropout,
            loss,
            batching: Batching::Padded,
        }
    }

    /// The gradient over the samples `first..first + 8`, cut into `shards`, by `devices` replicas.
    fn gradient(&self, first: u64, shards: usize, devices: usize) -> (StepGradient, Vec<f32>) {
        let model = self.world.model(self.dropout);
        let parts = [Part::Decoder, Part::Lora, Part::Projectors, Part::Head];
        let trainables = Trainables::of(&model, &parts);
        let values: Tensor<1> = trainables.gather(&model);
        let drawn = self.dataset.draw(first, 8).unwrap();
        let shards = Shards::cut(drawn, shards, self.batching);
        let objectives = self.world.objectives(&self.loss, &self.dataset);
        let replicas = Replicas::new(&model, &vec![device(); devices]).unwrap();
        let key = CounterRng::new(5).index(first);
        let step = replicas.gradient(&trainables, &values, &shards, &objectives, 4, key);
        let gradient = step.gradient.to_data().try_into_vec().unwrap();
        (step, gradient)
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_devices() {
    for (first, loss) in [(0, two_losses()), (0, all_losses()), (8, all_losses())] {
        let case = Case::new(0.1, loss);
        let (one, bits) = case.gradient(first, 4, 1);
        assert!(bits.iter().all(|g| g.is_finite()) && bits.iter().any(|g| *g != 0.0));
        // Three do not divide four shards: the last replica has fewer.
        for devices in [2, 3, 4] {
            let (many, other) = case.gradient(first, 4, devices);
            assert_eq!(bits, other, "{devices} devices");
            assert_eq!(
                (one.read().0, one.divisors, one.positions),
                (many.read().0, many.divisors, many.positions)
            );
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_cut_but_for_rounding() {
    for loss in [two_losses(), all_losses()] {
        let case = Case::new(0.0, loss);
        let (whole, wanted) = case.gradient(0, 1, 1);
        let largest = wanted.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for shards in [2, 4, 8] {
            let (cut, got) = case.gradient(0, shards, 2);
            assert_eq!(cut.divisors, whole.divisors);
            for term in Term::ALL {
                let (got, wanted) = (cut.read().0[term], whole.read().0[term]);
                assert!((got - wanted).abs() < 1e-4, "{term:?}: {got} {wanted}");
            }
            let distance = got
                .iter()
                .zip(&wanted)
                .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                distance < 1e-5 * largest.max(1.0),
                "{shards} shards differ by {distance} of {largest}"
            );
        }
    }
}

#[test]
fn dropout_is_another_in_every_step() {
    let case = Case::new(0.5, two_losses());
    assert_eq!(case.gradient(0, 4, 1).1, case.gradient(0, 4, 1).1);
    let without = Case::new(0.0, two_losses());
    // Second factors begin as zeros, so the drop shows in their gradients alone.
    assert_ne!(case.gradient(0, 4, 1).1, without.gradient(0, 4, 1).1);
}

/// The gradient of what gathers all samples of a step is that of one tape over all of them, and of the step's loss.
#[test]
fn gathered_gradients_are_those_of_finite_differences() {
    let case = Case::new(0.0, all_losses());
    let model = case.world.model(0.0);
    let trainables = Trainables::of(&model, &[Part::Projectors, Part::Head]);
    let values: Tensor<1> = trainables.gather(&model);
    let drawn = case.dataset.draw(0, 8).unwrap();
    let shards = Shards::cut(drawn, 4, Batching::Padded);
    let objectives = case.world.objectives(&case.loss, &case.dataset);
    let replicas = Replicas::new(&model, &[device(), device()]).unwrap();
    let step = |values: &Tensor<1>| {
        let key = CounterRng::new(5);
        replicas.gradient(&trainables, values, &shards, &objectives, 4, key)
    };
    let loss = |values: &[f32]| {
        let got = step(&Tensor::from_data(values, &device()));
        let weights = objectives.weights(4);
        LossMeans::new(objectives.active(), &got.read().0, &got.divisors, &weights).total
    };
    let host = |tensor: Tensor<1>| -> Vec<f32> { tensor.into_data().try_into_vec().unwrap() };
    let gradient = host(step(&values).gradient);
    let values = host(values);
    let at = |name: &str| {
        let (_, _, range) = trainables
            .parameters()
            .find(|(of, ..)| *of == name)
            .unwrap();
        range
            .max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs()))
            .unwrap()
    };
    for name in [
        "alignment.log_scale",
        "alignment.clip.weight",
        "alignment.caption.weight",
        "valence.output.weight",
        "mask.embedding",
        "head.output.weight",
    ] {
        let index = at(name);
        let got = f64::from(gradient[index]);
        let shift = (0.02 / got.abs()).min(1e-2) as f32;
        let shifted = |shift: f32| {
            let mut values = values.clone();
            values[index] += shift;
            loss(&values)
        };
        let wanted = (shifted(shift) - shifted(-shift)) / (2.0 * f64::from(shift));
        assert!(
            (got - wanted).abs() < 0.02 * wanted.abs() + 1e-3,
            "{name}: gradient {got}, finite difference {wanted}"
        );
        assert!(
            got.abs() > 1e-3,
            "{name}: {got} is too small to tell anything"
        );
    }
}

#[test]
fn packed_shards_give_the_gradients_of_padded_ones() {
    for loss in [two_losses(), all_losses()] {
        for first in [0, 8] {
            let padded = Case::new(0.0, loss.clone());
            let packed = Case {
                batching: Batching::Packed,
                ..Case::new(0.0, loss.clone())
            };
            let (of_padded, wanted) = padded.gradient(first, 4, 2);
            let (of_packed, got) = packed.gradient(first, 4, 2);
            assert_eq!(of_packed.divisors, of_padded.divisors);
            assert_eq!(of_packed.positions, of_padded.positions);
            assert!(of_packed.slots < of_padded.slots);
            for term in Term::ALL {
                let (got, wanted) = (of_packed.read().0[term], of_padded.read().0[term]);
                assert!(
                    (got - wanted).abs() < 1e-6 * wanted.abs().max(1.0),
                    "{term:?}"
                );
            }
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
            };
            let difference = norm(&mut got.iter().zip(&wanted).map(|(a, b)| a - b));
            let share = difference / norm(&mut wanted.iter().copied());
            assert!(share < 1e-6, "{share}");
            // As many devices as there are, the same bits.
            assert_eq!(packed.gradient(first, 4, 3).1, got);
        }
    }
}

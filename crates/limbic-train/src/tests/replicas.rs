use burn::tensor::Tensor;
use limbic_data::Task;
use limbic_model::{Part, Trainables};
use limbic_weights::CounterRng;

use super::{World, device};
use crate::dataset::Drawn;
use crate::{Dataset, LossRecipe, Replicas, StepGradient};

struct Case {
    world: World,
    dataset: Dataset,
    dropout: f64,
}

impl Case {
    fn new(dropout: f64) -> Self {
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
        }
    }

    /// The gradient over the samples `first..first + 8`, cut into `shards`, by `devices` replicas.
    fn gradient(&self, first: u64, shards: usize, devices: usize) -> (StepGradient, Vec<f32>) {
        let model = self.world.model(self.dropout);
        let parts = [Part::Decoder, Part::Lora, Part::Projectors, Part::Head];
        let trainables = Trainables::of(&model, &parts);
        let values: Tensor<1> = trainables.gather(&model);
        let drawn = self.dataset.draw(first, 8).unwrap();
        let shards: Vec<&[Drawn]> = drawn.chunks(8 / shards).collect();
        let loss = LossRecipe {
            lm_weight: 1.0,
            class_weight: 0.5,
            label_smoothing: 0.1,
        };
        let replicas = Replicas::new(&model, &vec![device(); devices]).unwrap();
        let key = CounterRng::new(5).index(first);
        let step = replicas.gradient(&trainables, &values, &shards, &loss, key);
        let gradient = step.gradient.to_data().try_into_vec().unwrap();
        (step, gradient)
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_devices() {
    let case = Case::new(0.1);
    for first in [0, 8, 16] {
        let (one, bits) = case.gradient(first, 4, 1);
        assert!(bits.iter().all(|g| g.is_finite()) && bits.iter().any(|g| *g != 0.0));
        // Three do not divide four shards: the last replica has fewer.
        for devices in [2, 3, 4] {
            let (many, other) = case.gradient(first, 4, devices);
            assert_eq!(bits, other, "{devices} devices");
            assert_eq!(
                (one.sums, one.counts, one.positions),
                (many.sums, many.counts, many.positions)
            );
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_cut_but_for_rounding() {
    let case = Case::new(0.0);
    let (whole, wanted) = case.gradient(0, 1, 1);
    let largest = wanted.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    for shards in [2, 4, 8] {
        let (cut, got) = case.gradient(0, shards, 2);
        assert_eq!(cut.counts, whole.counts);
        assert!(
            (cut.sums.lm - whole.sums.lm).abs() < 1e-4,
            "{} {}",
            cut.sums.lm,
            whole.sums.lm
        );
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

#[test]
fn dropout_is_another_in_every_step() {
    let case = Case::new(0.5);
    assert_eq!(case.gradient(0, 4, 1).1, case.gradient(0, 4, 1).1);
    let without = Case::new(0.0);
    // Second factors begin as zeros, so the drop shows in their gradients alone.
    assert_ne!(case.gradient(0, 4, 1).1, without.gradient(0, 4, 1).1);
}

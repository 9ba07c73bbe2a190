use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use limbic_llama::{Dropout, Pass, Recompute, Tape};
use limbic_weights::Weights;

use super::{ALL_PARTS, Fixture, device, host};
use crate::{Asked, EmotionLlm, Part, Trainables};

/// Cross-entropy summed over supervised tokens; with `all`, every other objective beside it.
fn loss(model: &EmotionLlm, fixture: &Fixture, rows: &[usize], all: bool) -> Tensor<1> {
    loss_in(model, fixture, rows, all, Pass::PLAIN)
}

/// The same in passes of this kind.
fn loss_in(
    model: &EmotionLlm,
    fixture: &Fixture,
    rows: &[usize],
    all: bool,
    pass: Pass,
) -> Tensor<1> {
    let batch = fixture.batch(&fixture.two(), rows);
    let readout = model.forward(&batch, Asked::ALL, pass);
    let sum = |(logits, targets): (Tensor<2>, Tensor<1, burn::tensor::Int>)| {
        log_softmax(logits, 1)
            .gather(1, targets.unsqueeze_dim(1))
            .sum()
            .neg()
    };
    let told = |tokens| model.token_loss(tokens, Dropout::OFF);
    let tokens = told(readout.tokens.unwrap());
    if !all {
        return tokens;
    }
    let (predicted, valences) = readout.valences.unwrap();
    let (masked, pairs) = fixture.captions();
    let masked = told(model.tell_masked(&masked, pass));
    let (clips, captions) = model.pair(&pairs, pass);
    let scale = model.alignment.as_ref().unwrap().log_scale.val().exp();
    let cosines = clips.matmul(captions.transpose()) * scale.unsqueeze();
    let own = log_softmax(cosines, 1) * Tensor::eye(2, &device());
    tokens
        + sum(readout.classes.unwrap())
        + (predicted - valences).square().sum()
        + masked
        + own.sum().neg()
}

#[test]
fn gather_and_scatter_are_inverses() {
    let model = Fixture::new(1).with_lora().artifact.model;
    for parts in [
        &ALL_PARTS[..],
        &[Part::Lora, Part::Head],
        &[Part::Projectors],
    ] {
        let trainables = Trainables::of(&model, parts);
        let flat = trainables.gather(&model);
        let other =
            Trainables::of(&model, parts).scatter_plain(model.clone(), &(flat.clone() * 2.0));
        assert_ne!(
            Weights::collect(&other).sha256(),
            Weights::collect(&model).sha256()
        );
        let back = trainables.scatter_plain(other, &flat);
        assert_eq!(
            Weights::collect(&back).sha256(),
            Weights::collect(&model).sha256()
        );
        assert_eq!(host(trainables.gather(&back)), host(flat.clone()));

        let weights = trainables.to_weights(&model, &flat);
        assert_eq!(weights.num_values(), trainables.num_values());
        let blank = trainables.scatter_plain(model.clone(), &flat.zeros_like());
        assert_eq!(
            host(trainables.from_weights(&blank, &weights).unwrap()),
            host(flat)
        );
    }
}

#[test]
fn every_value_belongs_to_one_part_and_statistics_to_none() {
    let model = Fixture::new(1).with_lora().artifact.model;
    let all = Trainables::of(&model, &ALL_PARTS);
    let statistics = 2 * 4 + 2 * (4 + 9);
    assert_eq!(
        all.num_values() + statistics,
        burn::module::Module::num_params(&model)
    );
    let of_parts: usize = ALL_PARTS.iter().map(|part| all.num_values_of(*part)).sum();
    assert_eq!(of_parts, all.num_values());
    // Rank 2 beside q (16 to 16), v (16 to 8: one of two heads) and down (48 to 16) in two blocks.
    assert_eq!(
        all.num_values_of(Part::Lora),
        2 * 2 * ((16 + 16) + (16 + 8) + (48 + 16))
    );
    assert_eq!(all.stretches().last().unwrap().1.end, all.num_values());
    assert!(!all.contains("projectors.0.input_mean"));
    assert!(!all.contains("fusions.0.statistics.0.input_mean"));
    assert!(all.contains("fusions.0.body.fc_att.weight"));
}

#[test]
fn only_what_is_trained_is_tracked() {
    let model = Fixture::new(1).with_lora().artifact.model;
    for parts in [
        &ALL_PARTS[..],
        &[Part::Lora, Part::Projectors],
        &[Part::Head],
    ] {
        let trainables = Trainables::of(&model, parts);
        let flat = trainables.gather(&model);
        let tracked = trainables.scatter_tracked(model.clone(), &flat);
        trainables.assert_split(&tracked);
        Trainables::of(&model, &[]).assert_split(&trainables.scatter_plain(tracked, &flat));
    }
}

#[test]
#[should_panic(expected = "lora_A")]
fn a_broken_split_is_seen() {
    let model = Fixture::new(1).with_lora().artifact.model;
    let adapters = Trainables::of(&model, &[Part::Lora]);
    let tracked = adapters.scatter_tracked(model.clone(), &adapters.gather(&model));
    Trainables::of(&model, &[Part::Head]).assert_split(&tracked);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let fixture = Fixture::new(1).with_lora();
    let model = &fixture.artifact.model;
    let trainables = Trainables::of(model, &ALL_PARTS);
    let flat = trainables.gather(model);
    let tracked = trainables.scatter_tracked(model.clone(), &flat);
    let backward = loss(&tracked, &fixture, &[0, 1], true).backward();
    let gradients = host(trainables.gradients(&tracked, &backward.into()).0);
    let values = host(flat);
    let at = |index: usize, shift: f32| {
        let mut values = values.clone();
        values[index] += shift;
        let flat = Tensor::from_data(values.as_slice(), &device());
        f64::from(
            host(loss(
                &trainables.scatter_plain(model.clone(), &flat),
                &fixture,
                &[0, 1],
                true,
            ))[0],
        )
    };
    for part in ALL_PARTS {
        let mut places: Vec<usize> = trainables
            .stretches()
            .into_iter()
            .filter(|(of, _)| *of == part)
            .flat_map(|(_, range)| range)
            .collect();
        // Where the gradient is large, F32 resolves the difference of two losses.
        places.sort_by(|a, b| gradients[*b].abs().total_cmp(&gradients[*a].abs()));
        for index in places.into_iter().take(4) {
            let got = f64::from(gradients[index]);
            // Small enough for curvature, large enough for F32: both losses differ by about 0.012.
            let step = (0.006 / gradients[index].abs()).min(4e-3);
            let wanted = (at(index, step) - at(index, -step)) / (2.0 * f64::from(step));
            assert!(
                (got - wanted).abs() < 0.02 * wanted.abs() + 2e-3,
                "{part:?}, value {index}: gradient {got}, finite difference {wanted}"
            );
            assert!(got.abs() > 1e-2, "{part:?}: too small to tell anything");
        }
    }
}

/// Three passes through one decoder, all parts trained: what is written by hand against burn's tape, which finite
/// differences above hold.
#[test]
fn gradients_do_not_depend_on_the_way_back() {
    for is_tied in [false, true] {
        let fixture = Fixture::with_output_layer(1, is_tied).with_lora();
        let model = &fixture.artifact.model;
        for parts in [
            &ALL_PARTS[..],
            &[Part::Lora],
            &[Part::Projectors, Part::Head],
        ] {
            let trainables = Trainables::of(model, parts);
            let tracked = trainables.scatter_tracked(model.clone(), &trainables.gather(model));
            let on_burns = loss(&tracked, &fixture, &[0, 1], true).backward().into();
            let (wanted, took_part) = trainables.gradients(&tracked, &on_burns);
            let wanted = host(wanted);
            let largest = wanted.iter().fold(0.0f32, |most, g| most.max(g.abs()));
            for recompute in [Recompute::None, Recompute::Block] {
                let tape = Tape::new(recompute);
                let pass = Pass {
                    tape: Some(&tape),
                    ..Pass::PLAIN
                };
                let loss = loss_in(&tracked, &fixture, &[0, 1], true, pass);
                let slopes = tape.backward(loss);
                let (got, took_part_here) = trainables.gradients(&tracked, &slopes);
                assert_eq!(
                    took_part_here, took_part,
                    "{is_tied} {parts:?} {recompute:?}"
                );
                for (index, (got, wanted)) in host(got).iter().zip(&wanted).enumerate() {
                    assert!(
                        (got - wanted).abs() < 2e-5 * largest,
                        "{is_tied} {parts:?} {recompute:?}, value {index}: {got} {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_takes_no_part_in_the_loss_has_zeros() {
    let fixture = Fixture::new(1).with_lora();
    let model = &fixture.artifact.model;
    // The second clip has no pitch, and the loss leaves the class head out.
    let trainables = Trainables::of(model, &ALL_PARTS);
    let tracked = trainables.scatter_tracked(model.clone(), &trainables.gather(model));
    let backward = loss(&tracked, &fixture, &[1], false).backward();
    let (gradients, took_part) = trainables.gradients(&tracked, &backward.into());
    let gradients = host(gradients);
    for ((name, part, range), took_part) in trainables.parameters().zip(took_part) {
        if name.starts_with("projectors.1.") || name.starts_with("head.") {
            assert!(!took_part, "{name}");
        }
        if part == Part::Lora || gradients[range].iter().any(|g| *g != 0.0) {
            assert!(took_part, "{name}");
        }
    }
    assert_eq!(gradients.len(), trainables.num_values());
    let pitch =
        limbic_weights::Weights::collect(model.projectors[1].as_ref().unwrap()).num_values();
    let zeros = |part: Part| {
        let stretches = trainables.stretches();
        let of_part = stretches.iter().filter(|(of, _)| *of == part);
        of_part
            .flat_map(|(_, range)| &gradients[range.clone()])
            .filter(|g| **g == 0.0)
            .count()
    };
    assert_eq!(zeros(Part::Head), trainables.num_values_of(Part::Head));
    let both = limbic_weights::Weights::collect(&model.fusions[0]).num_values() - 2 * (4 + 9);
    assert!(
        zeros(Part::Fusions) >= both
            && zeros(Part::Fusions) < trainables.num_values_of(Part::Fusions)
    );
    assert!(zeros(Part::Projectors) >= pitch);
    assert!(zeros(Part::Projectors) < trainables.num_values_of(Part::Projectors));
    assert_eq!(zeros(Part::Lora), 0);
}

#[test]
fn all_three_tensors_of_an_adapter_are_its_part() {
    for tensor in ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"] {
        let name = format!("llama.model.layers.0.self_attn.q_proj.{tensor}");
        assert_eq!(Part::of(&name), Some(Part::Lora), "{name}");
    }
    let base = "llama.model.layers.0.self_attn.q_proj.bias";
    assert_eq!(Part::of(base), Some(Part::Decoder));
}

use burn::tensor::Tensor;
use limbic_data::Segment;
use limbic_llama::{Padding, Pass};

use super::{ALL_PARTS, Fixture, distance, host};
use crate::{Asked, Batch, Layout, Readout, Trainables};

/// States of supervised tokens, and class logits.
fn logits(readout: Readout) -> (Vec<f32>, Vec<f32>) {
    (
        host(readout.tokens.unwrap().states),
        host(readout.classes.unwrap().0),
    )
}

#[test]
fn counts_are_those_of_the_samples() {
    let fixture = Fixture::new(1);
    let compiled = fixture.two();
    let batch = fixture.batch(&compiled, &[0, 1]);
    let answers = compiled[0].answer.len() + compiled[1].answer.len();
    assert_eq!(
        (batch.size, batch.num_labelled, batch.num_supervised),
        (2, 2, answers)
    );
    assert_eq!(
        batch.num_positions,
        compiled[0].length() + compiled[1].length()
    );
    assert_eq!(batch.length, compiled[0].length());
    assert!(
        compiled[1].length() < batch.length,
        "the second sample is to be padded"
    );
    assert!(
        fixture.batch(&compiled, &[1]).media[1].is_none(),
        "no clip of it has a pitch"
    );
}

#[test]
fn neighbours_and_padding_do_not_matter() {
    let fixture = Fixture::new(1).with_lora();
    let model = &fixture.artifact.model;
    let compiled = fixture.two();
    let (tokens, classes) =
        logits(model.forward(&fixture.batch(&compiled, &[0, 1]), Asked::ALL, Pass::PLAIN));
    let (mut alone_tokens, mut alone_classes) = (Vec::new(), Vec::new());
    for row in [0, 1] {
        let (tokens, classes) =
            logits(model.forward(&fixture.batch(&compiled, &[row]), Asked::ALL, Pass::PLAIN));
        alone_tokens.extend(tokens);
        alone_classes.extend(classes);
    }
    assert!(distance(&tokens, &alone_tokens) < 1e-5);
    assert!(distance(&classes, &alone_classes) < 1e-5);
    // Two values of the fused tokens may differ in their order of summation, and in nothing else.
    let fused = |rows: &[usize]| model.fuse(&fixture.batch(&compiled, rows), 1).unwrap();
    let (both, second) = (fused(&[0, 1]), fused(&[1]));
    assert_eq!((both.samples, second.samples), (vec![0, 1], vec![0]));
    let of_second = host(both.tokens.narrow(0, 1, 1));
    assert!(distance(&of_second, &host(second.tokens)) < 1e-6);
    // Not because nothing matters: the samples differ, and so do their logits.
    assert!(distance(&classes[..3], &classes[3..]) > 1e-3);
}

#[test]
fn the_class_head_cannot_see_the_answer() {
    let fixture = Fixture::new(1).with_lora();
    let model = &fixture.artifact.model;
    let mut compiled = fixture.two();
    let (tokens, classes) =
        logits(model.forward(&fixture.batch(&compiled, &[0, 1]), Asked::ALL, Pass::PLAIN));
    for sample in &mut compiled {
        for id in &mut sample.answer {
            *id = (*id + 17) % 250;
        }
    }
    let batch = fixture.batch(&compiled, &[0, 1]);
    let (other_tokens, other_classes) = logits(model.forward(&batch, Asked::ALL, Pass::PLAIN));
    assert_eq!(classes, other_classes);
    assert!(
        distance(&tokens, &other_tokens) > 1e-4,
        "the answer is seen by what follows it"
    );
    let judged = host(model.judge(&batch).classes.unwrap());
    assert!(distance(&judged, &classes) < 1e-5);
}

#[test]
fn an_absent_medium_takes_no_part() {
    let fixture = Fixture::new(1);
    let compiled = fixture.two();
    let of_clip = |model: &crate::EmotionLlm, row: usize| {
        logits(model.forward(&fixture.batch(&compiled, &[row]), Asked::ALL, Pass::PLAIN)).1
    };
    let model = &fixture.artifact.model;
    // Another pitch projector changes the clip that has a pitch, and not a bit of the one that has none.
    let mut other = model.clone();
    other.projectors[1] = Fixture::new(2).artifact.model.projectors[1].clone();
    // Nor does a fusion that reads it.
    other.fusions[0] = Fixture::new(2).artifact.model.fusions[0].clone();
    assert!(model.fuse(&fixture.batch(&compiled, &[1]), 0).is_none());
    assert!(distance(&of_clip(model, 0), &of_clip(&other, 0)) > 1e-6);
    assert_eq!(of_clip(model, 1), of_clip(&other, 1));
}

#[test]
#[should_panic(expected = "the compiler leaves out the slot")]
fn a_slot_without_its_medium_is_refused() {
    let fixture = Fixture::new(1);
    let with_pitch = fixture.compile("no", [true, true], Some("sad"));
    fixture.batch(&[with_pitch.clone(), with_pitch], &[1]);
}

/// A line of the template that also waits for the transcript is left out though its medium is there.
#[test]
fn a_medium_without_a_slot_takes_no_part() {
    let fixture = Fixture::new(1);
    let model = &fixture.artifact.model;
    let compiled = fixture.two();
    let mut without = compiled.clone();
    without[0]
        .prompt
        .retain(|segment| matches!(segment, Segment::Text(_)));
    let of_second = |compiled, rows: &[usize]| {
        let (_, classes) =
            logits(model.forward(&fixture.batch(compiled, rows), Asked::ALL, Pass::PLAIN));
        classes[classes.len() - 3..].to_vec()
    };
    let (beside, alone) = (of_second(&without, &[0, 1]), of_second(&compiled, &[1]));
    assert!(distance(&beside, &alone) < 1e-5);
}

/// States, class logits and valences of `batch`, one after the other, and the gradient of a sum over their squares.
fn read_with_gradient(fixture: &Fixture, batch: &Batch) -> (Vec<f32>, Vec<f32>) {
    let model = fixture.artifact.model.clone();
    let trainables = Trainables::of(&model, &ALL_PARTS);
    let values = trainables.gather(&model);
    let model = trainables.scatter_tracked(model, &values);
    let readout = model.forward(batch, Asked::ALL, Pass::PLAIN);
    let flat = |x: Tensor<2>| x.reshape([-1]);
    let values = Tensor::cat(
        vec![
            flat(readout.tokens.unwrap().states),
            flat(readout.classes.unwrap().0),
            readout.valences.unwrap().0,
        ],
        0,
    );
    let slopes = values.clone().square().sum().backward();
    (
        host(values),
        host(trainables.gradients(&model, &slopes.into()).0),
    )
}

#[test]
fn packed_samples_are_read_as_padded_ones_are() {
    let fixture = Fixture::new(1).with_lora();
    let compiled = fixture.two();
    // The shorter one first and last, so that neither end of the row is special.
    let rows = [1, 0, 1];
    let [padded, mut packed] =
        [Layout::Padded, Layout::Packed].map(|layout| fixture.batch_as(layout, &compiled, &rows));
    assert_eq!(
        (padded.rows, padded.num_slots()),
        (3, 3 * compiled[0].length())
    );
    assert_eq!((packed.rows, packed.num_slots()), (1, packed.num_positions));
    assert_eq!(packed.num_positions, padded.num_positions);
    assert!(packed.num_slots() < padded.num_slots());

    let share = |got: &[f32], wanted: &[f32]| {
        distance(got, wanted) / wanted.iter().fold(0.0f32, |m, v| m.max(v.abs()))
    };
    let (wanted, slopes) = read_with_gradient(&fixture, &padded);
    let (got, of_packed) = read_with_gradient(&fixture, &packed);
    assert!(share(&got, &wanted) < 1e-6, "{}", share(&got, &wanted));
    assert!(
        share(&of_packed, &slopes) < 1e-6,
        "{}",
        share(&of_packed, &slopes)
    );

    // Were samples to see their neighbours, or to stand behind them, it would show.
    packed.padding = Padding::Right;
    let (got, of_packed) = read_with_gradient(&fixture, &packed);
    assert!(share(&got, &wanted) > 1e-3, "{}", share(&got, &wanted));
    assert!(
        share(&of_packed, &slopes) > 1e-3,
        "{}",
        share(&of_packed, &slopes)
    );
}

#[test]
fn media_of_packed_samples_stand_uncut_in_their_slots() {
    let fixture = Fixture::new(1);
    let model = &fixture.artifact.model;
    let compiled = fixture.two();
    let packed = host(model.embed(&fixture.batch_as(Layout::Packed, &compiled, &[0, 1])));
    let alone = [0, 1].map(|row| host(model.embed(&fixture.batch(&compiled, &[row]))));
    assert!(distance(&packed, &alone.concat()) < 1e-6);
}

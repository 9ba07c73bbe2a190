use limbic_data::Segment;
use limbic_llama::Dropout;

use super::{Fixture, distance, host};
use crate::{Asked, Readout};

/// Token logits and class logits.
fn logits(readout: Readout) -> (Vec<f32>, Vec<f32>) {
    (
        host(readout.tokens.unwrap().0),
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
        logits(model.forward(&fixture.batch(&compiled, &[0, 1]), Asked::ALL, Dropout::OFF));
    let (mut alone_tokens, mut alone_classes) = (Vec::new(), Vec::new());
    for row in [0, 1] {
        let (tokens, classes) =
            logits(model.forward(&fixture.batch(&compiled, &[row]), Asked::ALL, Dropout::OFF));
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
        logits(model.forward(&fixture.batch(&compiled, &[0, 1]), Asked::ALL, Dropout::OFF));
    for sample in &mut compiled {
        for id in &mut sample.answer {
            *id = (*id + 17) % 250;
        }
    }
    let batch = fixture.batch(&compiled, &[0, 1]);
    let (other_tokens, other_classes) = logits(model.forward(&batch, Asked::ALL, Dropout::OFF));
    assert_eq!(classes, other_classes);
    assert!(
        distance(&tokens, &other_tokens) > 1e-4,
        "the answer is seen by what follows it"
    );
    assert_eq!(host(model.judge(&batch).classes.unwrap()), classes);
}

#[test]
fn an_absent_medium_takes_no_part() {
    let fixture = Fixture::new(1);
    let compiled = fixture.two();
    let of_clip = |model: &crate::EmotionLlm, row: usize| {
        logits(model.forward(&fixture.batch(&compiled, &[row]), Asked::ALL, Dropout::OFF)).1
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
            logits(model.forward(&fixture.batch(compiled, rows), Asked::ALL, Dropout::OFF));
        classes[classes.len() - 3..].to_vec()
    };
    let (beside, alone) = (of_second(&without, &[0, 1]), of_second(&compiled, &[1]));
    assert!(distance(&beside, &alone) < 1e-5);
}

use std::collections::BTreeSet;

use limbic_data::{Compiled, Task};

use super::World;
use crate::{Dataset, LossRecipe, Objectives};

/// Clip and compiled sample of each draw.
fn drawn(dataset: &Dataset, first: u64, count: usize) -> Vec<(String, Compiled)> {
    let draws = dataset.draw(first, count).unwrap();
    draws
        .into_iter()
        .map(|drawn| (drawn.sample.encoded.clip.id.clone(), drawn.compiled))
        .collect()
}

#[test]
fn an_epoch_holds_every_clip_once_in_an_order_of_its_own() {
    let world = World::new();
    let (dataset, _) = world.dataset(world.clips(10), &[(Task::Emotion, 1.0)], 512);
    let ids = |epoch: u64| -> Vec<String> {
        drawn(&dataset, epoch * 10, 10)
            .into_iter()
            .map(|(id, _)| id)
            .collect()
    };
    let orders: BTreeSet<Vec<String>> = (0..4).map(ids).collect();
    assert_eq!(orders.len(), 4, "four epochs, four orders");
    for order in orders {
        assert_eq!(order.into_iter().collect::<BTreeSet<_>>().len(), 10);
    }
    assert_eq!(dataset.position(23), (2, 3));
}

#[test]
fn draws_do_not_depend_on_where_one_begins() {
    let world = World::new();
    let tasks = [(Task::Emotion, 1.0), (Task::Reason, 1.0)];
    let (dataset, _) = world.dataset(world.clips(7), &tasks, 512);
    let whole = drawn(&dataset, 0, 30);
    // Across the ends of epochs too, and in steps of any size.
    assert_eq!(drawn(&dataset, 5, 20), whole[5..25]);
    let in_steps: Vec<_> = (0..10)
        .flat_map(|step| drawn(&dataset, step * 3, 3))
        .collect();
    assert_eq!(in_steps, whole);
    let (again, _) = world.dataset(world.clips(7), &tasks, 512);
    assert_eq!(drawn(&again, 0, 30), whole);
}

#[test]
fn tasks_and_wordings_are_drawn_by_weight() {
    let world = World::new();
    let (dataset, _) = world.dataset(
        world.clips(10),
        &[(Task::Emotion, 3.0), (Task::Reason, 1.0)],
        512,
    );
    let count = 2000;
    let draws = drawn(&dataset, 0, count);
    let reason = world.tokenizer.encode(" The words say so.").unwrap();
    let reasons = draws
        .iter()
        .filter(|(_, compiled)| compiled.answer.starts_with(&reason))
        .count();
    // Binomial with p = 1/4: deviation 19.
    assert!(
        (reasons as f64 - 500.0).abs() < 80.0,
        "{reasons} of {count} are reasons, wanted about a quarter"
    );
    let first = dataset
        .ask(&dataset.samples()[0], Task::Emotion, false)
        .unwrap()
        .compiled;
    let of_clip: Vec<_> = draws
        .iter()
        .filter(|(id, compiled)| id == "c0" && !compiled.answer.starts_with(&reason))
        .collect();
    let asked_first = of_clip
        .iter()
        .filter(|(_, compiled)| compiled.prompt == first.prompt)
        .count();
    let share = asked_first as f64 / of_clip.len() as f64;
    assert!(
        (0.35..0.65).contains(&share),
        "one wording of two was drawn with share {share}"
    );
}

#[test]
fn what_cannot_be_used_is_dropped_and_counted() {
    let world = World::new();
    let mut clips = world.clips(6);
    clips[0].clip.emotion = None;
    clips[1].clip.emotion = Some("no such label".into());
    clips[2].clip.transcript = Some("long ".repeat(50));
    let (dataset, dropped) =
        world.dataset(clips, &[(Task::Emotion, 1.0), (Task::Describe, 0.0)], 100);
    assert_eq!(
        (dropped.unanswered, dropped.too_long, dataset.len()),
        (2, 1, 3)
    );
    let ids: Vec<&str> = dataset
        .samples()
        .iter()
        .map(|s| s.encoded.clip.id.as_str())
        .collect();
    assert_eq!(ids, ["c3", "c4", "c5"]);
}

#[test]
fn a_token_without_a_row_in_the_decoder_is_named() {
    let mut world = World::new();
    world.vocabulary = 260;
    let message = world
        .try_dataset(world.clips(3), &[(Task::Emotion, 1.0)], 512)
        .unwrap_err()
        .to_string();
    for part in ["clip c0", "token 26", "knows 260 tokens"] {
        assert!(message.contains(part), "{part} not in: {message}");
    }
}

#[test]
fn a_class_loss_alone_wants_labels_that_count() {
    let world = World::new();
    let mut clips = world.clips(3);
    clips.iter_mut().for_each(|it| it.clip.emotion = None);
    let (dataset, _) = world.dataset(clips, &[(Task::Reason, 1.0)], 512);
    let objectives = |text: &str| {
        let loss: LossRecipe = serde_yaml::from_str(text).unwrap();
        let Err(error) = Objectives::new(&loss, &world.config, &world.tokenizer, &dataset, 3)
        else {
            return String::new();
        };
        error.to_string()
    };
    let message = objectives("{lm_weight: 0, valence_weight: 0}");
    assert!(message.contains("train.loss.class_weight"), "{message}");
    assert_eq!(objectives("{valence_weight: 0}"), "");
}

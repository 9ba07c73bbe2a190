use limbic_data::Task;
use limbic_eval::{Confusion, Scores};
use limbic_llama::Sampling;

use super::{World, device};
use crate::{
    Evaluation, EvaluationRecipe, Evaluator, LossMeans, LossRecipe, Metric, Prediction, Replicas,
    Term,
};

fn evaluation(text: Option<Scores>, head: Option<Scores>) -> Evaluation {
    let loss = LossMeans {
        total: 1.5,
        terms: vec![(Term::Lm, 1.0), (Term::Class, 0.5)],
    };
    Evaluation {
        loss,
        text,
        head,
        valence: None,
        retrieval: None,
    }
}

fn scores(predicted: &[Option<usize>]) -> Scores {
    Scores::new(Confusion::of(["happy", "sad"], &[0, 0, 0, 1], predicted).unwrap())
}

#[test]
fn merit_is_more_where_the_metric_is_better() {
    let text = scores(&[Some(0), Some(0), None, Some(1)]);
    let head = scores(&[Some(0), Some(0), Some(0), Some(0)]);
    let both = evaluation(Some(text), Some(head));
    assert_eq!(both.merit(Metric::Loss).unwrap(), -1.5);
    // Recalls 2/3 and 1; 1 and 0.
    assert!((both.merit(Metric::TextUar).unwrap() - 5.0 / 6.0).abs() < 1e-12);
    assert!((both.merit(Metric::HeadUar).unwrap() - 0.5).abs() < 1e-12);
    for metric in [Metric::TextUar, Metric::HeadUar] {
        let message = evaluation(None, None)
            .merit(metric)
            .unwrap_err()
            .to_string();
        assert!(message.contains("evaluation.metric"), "{message}");
    }
}

#[test]
fn losses_do_not_depend_on_batches_or_replicas() {
    let world = World::new();
    let (dataset, _) = world.dataset(
        world.clips(7),
        &[(Task::Emotion, 1.0), (Task::Reason, 1.0)],
        512,
    );
    let model = world.model(0.0);
    let evaluate = |replicas: usize, batch_size: usize| {
        let recipe = EvaluationRecipe {
            batch_size,
            max_new_tokens: 4,
            ..EvaluationRecipe::default()
        };
        let evaluator = Evaluator {
            replicas: &Replicas::new(&model, &vec![device(); replicas]).unwrap(),
            values: None,
            labels: Some(&world.labels),
            mute: false,
            recipe: &recipe,
            sampling: &Sampling::GREEDY,
        };
        let tasks = [Task::Emotion, Task::Reason];
        let objectives = world.objectives(&LossRecipe::default(), &dataset);
        let evaluation = evaluator
            .evaluate(&dataset, &tasks, &objectives, 0)
            .unwrap();
        let scored = evaluator.score(&dataset, &world.labels).unwrap().unwrap();
        assert_eq!(evaluation.text, scored.text);
        // Two tasks, and one number a clip all the same.
        let (valence, wanted) = (evaluation.valence.unwrap(), scored.valence.unwrap());
        assert_eq!(valence.n, wanted.n);
        assert!((valence.mse - wanted.mse).abs() < 1e-5);
        (evaluation, scored.predictions)
    };
    let (alone, predictions) = evaluate(1, 1);
    assert_eq!(predictions.len(), 7);
    assert_eq!(predictions[1].truth.as_deref(), Some("sad"));
    let sum: f64 = predictions[0].probabilities.values().sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    let answers = |predictions: &[Prediction]| -> Vec<Option<String>> {
        predictions.iter().map(|p| p.answer.clone()).collect()
    };
    for (replicas, batch_size) in [(1, 3), (2, 3), (2, 16)] {
        let (other, others) = evaluate(replicas, batch_size);
        assert!(
            (other.loss.total - alone.loss.total).abs() < 1e-5,
            "{:?} {:?}",
            other.loss,
            alone.loss
        );
        assert_eq!(answers(&others), answers(&predictions));
    }
    assert_eq!(
        evaluate(2, 3),
        evaluate(1, 3),
        "bit for bit, whatever computes it"
    );
}

//! 200 random sets of predictions against scikit-learn; `scripts/golden/metrics.py` makes the file.

use limbic_eval::{Confusion, Scores, bootstrap};
use serde::Deserialize;

const GOLDEN: &str = include_str!("../../../tests/golden/metrics.json");

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    classes: usize,
    truth: Vec<usize>,
    predicted: Vec<Option<usize>>,
    scores: Expected,
    bootstrap: Option<ExpectedBootstrap>,
}

#[derive(Deserialize)]
struct Expected {
    accuracy: f64,
    uar: f64,
    weighted_f1: f64,
    macro_f1: f64,
    unparsed_rate: f64,
    kappa: f64,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<u64>,
    predicted: Vec<u64>,
    matrix: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct ExpectedBootstrap {
    seed: u64,
    accuracy: [f64; 2],
    uar: [f64; 2],
}

fn cases() -> Vec<Case> {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(golden.cases.len(), 200);
    golden.cases
}

fn confusion(case: &Case) -> Confusion {
    let labels = (0..case.classes).map(|class| format!("class {class}"));
    Confusion::of(labels, &case.truth, &case.predicted).unwrap()
}

#[track_caller]
fn assert_close(number: usize, name: &str, got: f64, wanted: f64) {
    assert!(
        (got - wanted).abs() < 1e-9,
        "case {number}: {name} is {got}, wanted {wanted}"
    );
}

#[test]
fn scores_equal_scikit_learn() {
    for (number, case) in cases().iter().enumerate() {
        let wanted = &case.scores;
        let scores = Scores::new(confusion(case));

        assert_eq!(scores.n, case.truth.len() as u64, "case {number}");
        assert_eq!(scores.confusion.counts, wanted.matrix, "case {number}");
        for (name, got, wanted) in [
            ("accuracy", scores.accuracy, wanted.accuracy),
            ("uar", scores.uar, wanted.uar),
            ("weighted_f1", scores.weighted_f1, wanted.weighted_f1),
            ("macro_f1", scores.macro_f1, wanted.macro_f1),
            ("unparsed_rate", scores.unparsed_rate, wanted.unparsed_rate),
            ("kappa", scores.kappa, wanted.kappa),
        ] {
            assert_close(number, name, got, wanted);
        }

        assert_eq!(scores.per_class.len(), case.classes, "case {number}");
        for (class, got) in scores.per_class.iter().enumerate() {
            assert_close(number, "precision", got.precision, wanted.precision[class]);
            assert_close(number, "recall", got.recall, wanted.recall[class]);
            assert_close(number, "f1", got.f1, wanted.f1[class]);
            assert_eq!(got.support, wanted.support[class], "case {number}");
            assert_eq!(got.predicted, wanted.predicted[class], "case {number}");
        }
    }
}

#[test]
fn bootstrap_intervals_equal_numpy() {
    let mut compared = 0;
    for (number, case) in cases().iter().enumerate() {
        let Some(wanted) = &case.bootstrap else {
            continue;
        };
        let got = bootstrap(&confusion(case), wanted.seed).unwrap();
        assert_close(number, "accuracy low", got.accuracy.low, wanted.accuracy[0]);
        assert_close(
            number,
            "accuracy high",
            got.accuracy.high,
            wanted.accuracy[1],
        );
        assert_close(number, "uar low", got.uar.low, wanted.uar[0]);
        assert_close(number, "uar high", got.uar.high, wanted.uar[1]);
        compared += 1;
    }
    assert_eq!(compared, 4);
}

//! Losses and their gradients against torch's; scripts/golden/losses.py made the numbers.

use burn::tensor::{Int, Tensor, TensorData};
use limbic_eval::Regression;
use serde_json::Value;

use super::device;
use crate::{
    ValenceRecipe, cross_entropy_sum, info_nce_sum, valence_sum, weighted_cross_entropy_sum,
};

fn golden(kind: &str) -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/losses.json"
    );
    let json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    json[kind].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

/// A matrix or vector as a leaf of a tape.
fn leaf<const D: usize>(value: &Value) -> Tensor<D> {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Value::Array(items) = inner {
        shape.push(items.len());
        inner = &items[0];
    }
    let data = TensorData::new(numbers(value), shape);
    Tensor::from_data(data, &device()).autodiff().require_grad()
}

fn assert_close(got: &[f32], wanted: &Value, what: &str) {
    let wanted = numbers(wanted);
    assert_eq!(got.len(), wanted.len());
    for (got, wanted) in got.iter().zip(&wanted) {
        assert!(
            (got - wanted).abs() < 2e-6 * wanted.abs().max(1.0),
            "{what}: {got}, torch says {wanted}"
        );
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .without_autodiff()
        .into_data()
        .try_into_vec()
        .unwrap()
}

#[test]
fn class_losses_are_torchs() {
    let cases = golden("classes");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let what = format!(
            "weights {}, smoothing {}, gamma {}",
            case["weights"], case["smoothing"], case["gamma"]
        );
        let number = |key: &str| case[key].as_f64().unwrap();
        let logits: Tensor<2> = leaf(&case["logits"]);
        let targets: Vec<i64> = serde_json::from_value(case["targets"].clone()).unwrap();
        let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device());
        let (smoothing, gamma) = (number("smoothing"), number("gamma"));
        let weights = match &case["weights"] {
            Value::Null => vec![1.0; 4],
            weights => numbers(weights),
        };
        let weighted =
            weighted_cross_entropy_sum(logits.clone(), targets.clone(), smoothing, &weights, gamma);
        let mut sums = vec![weighted];
        if case["weights"].is_null() && gamma == 0.0 {
            sums.push(cross_entropy_sum(logits.clone(), targets, smoothing));
        }
        for sum in sums {
            let mean = sum / number("divisor");
            assert_close(&host(mean.clone()), &case["mean"], &what);
            let gradient = logits.grad(&mean.backward()).unwrap();
            assert_close(&host(gradient), &case["gradient"], &what);
        }
    }
}

#[test]
fn valence_losses_are_torchs() {
    let cases = golden("valences");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let recipe = ValenceRecipe {
            mse: number("mse"),
            ccc: number("ccc"),
        };
        let predicted: Tensor<1> = leaf(&case["predicted"]);
        let wanted: Tensor<1> = leaf::<1>(&case["wanted"]).without_autodiff();
        let mean = valence_sum(predicted.clone(), wanted, &recipe) / 9.0;
        let what = format!("{recipe:?}");
        assert_close(&host(mean.clone()), &case["mean"], &what);
        let gradient = predicted.grad(&mean.backward()).unwrap();
        assert_close(&host(gradient), &case["gradient"], &what);

        let pairs: Vec<(f64, f64)> = numbers(&case["predicted"])
            .into_iter()
            .zip(numbers(&case["wanted"]))
            .map(|(a, b)| (f64::from(a), f64::from(b)))
            .collect();
        let scores = serde_json::to_value(Regression::of(&pairs).unwrap()).unwrap();
        for key in ["mse", "mae", "pearson", "ccc"] {
            let got = scores[key].as_f64().unwrap() as f32;
            assert_close(&[got], &case["scores"][key], key);
        }
    }
}

#[test]
fn the_contrast_of_all_pairs_is_clips() {
    let cases = golden("contrastive");
    assert_eq!(cases.len(), 5);
    for case in cases {
        let clips: Tensor<2> = leaf(&case["clips"]);
        let captions: Tensor<2> = leaf(&case["captions"]);
        let log_scale: Tensor<1> = leaf(&case["log_scale"]);
        let pairs = clips.dims()[0];
        let texts: Vec<Vec<u32>> = serde_json::from_value(case["texts"].clone()).unwrap();
        let sum = info_nce_sum(clips.clone(), captions.clone(), log_scale.clone(), &texts);
        let mean = sum / pairs as f64;
        let what = format!("{pairs} pairs told as {texts:?}");
        assert_close(&host(mean.clone()), &case["mean"], &what);
        let gradients = mean.backward();
        let got = [clips.grad(&gradients), captions.grad(&gradients)];
        for (got, wanted) in got.into_iter().zip(case["gradients"].as_array().unwrap()) {
            assert_close(&host(got.unwrap()), wanted, &what);
        }
        let scale = log_scale.grad(&gradients).unwrap();
        assert_close(&host(scale), &case["gradients"][2], &what);
    }
}

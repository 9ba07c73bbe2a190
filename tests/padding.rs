use serde_json::Value;

use crate::workplace::{Workplace, root};

/// What a shipped recipe's first steps tell, with a decoder as narrow as it gets: lengths are those of the recipe.
fn told(workplace: &Workplace, recipe: &str, batching: &str, changes: &[&str]) -> Vec<Value> {
    let name = format!("{}-{batching}", recipe.replace('/', "-"));
    let recipe = format!("recipes/{recipe}.yaml");
    let settings = [format!("name={name}"), format!("train.batching={batching}")];
    let mut arguments = vec!["train", &recipe, "--devices", "cpu:1"];
    arguments.extend(settings.iter().map(String::as_str));
    arguments.extend([
        "train.steps=8",
        "train.batch_size=8",
        "train.shards=2",
        "evaluation.every=0",
        "run.log_every=1",
    ]);
    arguments.extend(changes);
    workplace.run(&arguments).succeeded();
    let metrics = workplace.path(&format!("runs/{name}/metrics.jsonl"));
    let lines = std::fs::read_to_string(metrics).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The mean share of real positions, padded, grouped and packed.
fn shares(workplace: &Workplace, recipe: &str, changes: &[&str]) -> [f64; 3] {
    let runs =
        ["padded", "grouped", "packed"].map(|batching| told(workplace, recipe, batching, changes));
    let [padded, _, packed] = &runs;
    // The first step of both has the same samples and weights.
    for key in ["loss", "grad_norm"] {
        let [a, b] = [padded, packed].map(|lines| lines[0][key].as_f64().unwrap());
        assert!((a - b).abs() < 1e-6 * b.abs(), "{recipe}, {key}: {a} {b}");
    }
    runs.map(|lines| {
        let of_step = |line: &Value| line["real_positions"].as_f64().unwrap();
        lines.iter().map(of_step).sum::<f64>() / lines.len() as f64
    })
}

fn check_mixed([padded, grouped, packed]: [f64; 3]) {
    assert!(padded < 1.0, "lengths are mixed");
    assert!(grouped > padded, "{grouped} {padded}");
    assert_eq!(packed, 1.0);
}

const NARROW: [&str; 3] = [
    "model.decoder.hidden_size=32",
    "model.decoder.intermediate_size=32",
    "model.decoder.num_hidden_layers=1",
];

#[test]
fn packed_steps_of_the_quickstart_compute_nothing_for_nothing() {
    let workplace = Workplace::with_recipes();
    let data = "data.manifest=data/manifest.jsonl";
    check_mixed(shares(
        &workplace,
        "quickstart/stage1",
        &[&NARROW[..], &[data]].concat(),
    ));
    let init = "init_from=runs/quickstart-stage1-padded";
    check_mixed(shares(&workplace, "quickstart/stage2", &[data, init]));
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn packed_steps_of_emodb_compute_nothing_for_nothing() {
    let corpus = root().join("../shared/data/emodb");
    if !corpus.is_dir() {
        eprintln!("skipped: no EMO-DB in {}", corpus.display());
        return;
    }
    let workplace = Workplace::with_recipes();
    let from = corpus.to_str().unwrap();
    workplace
        .run(&[
            "data",
            "import",
            "emodb",
            "--from",
            from,
            "--out",
            "data/emodb",
        ])
        .succeeded();
    // Its answers are one token long, and all else is the same for every clip.
    assert_eq!(shares(&workplace, "emodb/stage2", &NARROW), [1.0; 3]);
}

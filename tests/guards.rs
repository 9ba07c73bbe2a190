use std::fs::{self, File};

use serde_json::Value;

use crate::workplace::{Workplace, json, root, stage1, stage2};

/// The manifest with `change` applied to each line whose split is `split`.
fn changed_manifest(
    workplace: &Workplace,
    split: &str,
    change: impl Fn(usize, &mut Value),
) -> String {
    let text = fs::read_to_string(workplace.path("data/manifest.jsonl")).unwrap();
    let mut number = 0;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut clip: Value = serde_json::from_str(line).unwrap();
            if clip["split"] == split {
                change(number, &mut clip);
                number += 1;
            }
            clip.to_string()
        })
        .collect();
    lines.join("\n") + "\n"
}

#[test]
fn a_restart_deletes_only_runs_and_only_for_a_run_that_can_start() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage1", &stage1(2));
    let before = workplace.hashes("stage1");
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "--restart",
            "data.manifest=nowhere.jsonl",
        ])
        .failed(3, &["nowhere.jsonl"]);
    assert_eq!(workplace.hashes("stage1"), before, "the old run is whole");
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "--restart",
            "run.directory=.",
            "name=data",
        ])
        .failed(2, &["data", "is not a run"]);
    assert!(workplace.path("data/manifest.jsonl").is_file());
    workplace
        .run(&["train", "stage1.yaml", "--restart"])
        .succeeded();
    assert_ne!(workplace.hashes("stage1"), before);
}

#[test]
fn scores_say_which_clips_are_in_none_of_them() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage2", &stage2(1));
    workplace.run(&["train", "stage2.yaml"]).succeeded();
    workplace.run(&["eval", "stage2"]).succeeded();
    let kept = fs::read(workplace.path("runs/stage2/eval/test/scores.json")).unwrap();
    let evaluate = |manifest: String| -> Value {
        fs::write(workplace.path("data/other.jsonl"), manifest).unwrap();
        let said = workplace.run(&["eval", "stage2", "--data", "data/other.jsonl", "--json"]);
        serde_json::from_str(&said.succeeded().stdout).unwrap()
    };
    let scores = evaluate(changed_manifest(&workplace, "test", |number, clip| {
        if number == 0 {
            clip["emotion"] = "bored".into();
        }
    }));
    assert_eq!(
        (&scores["n"], &scores["unlabelled"]),
        (&1.into(), &1.into())
    );
    let scores = evaluate(changed_manifest(&workplace, "test", |number, clip| {
        if number == 0 {
            clip["transcript"] = "and so on ".repeat(400).into();
        }
    }));
    assert_eq!((&scores["n"], &scores["too_long"]), (&1.into(), &1.into()));
    assert_eq!(
        fs::read(workplace.path("runs/stage2/eval/test/scores.json")).unwrap(),
        kept,
        "a run keeps the scores on its own data"
    );
}

#[test]
fn labels_outside_the_set_are_counted_with_the_nearest_name() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage2", &stage2(1));
    let manifest = changed_manifest(&workplace, "train", |number, clip| {
        if number < 3 {
            clip["emotion"] = "hapy".into();
        }
    });
    fs::write(workplace.path("data/other.jsonl"), manifest).unwrap();
    let said = workplace.run(&["train", "stage2.yaml", "data.manifest=data/other.jsonl"]);
    let said = said.succeeded().stderr;
    assert!(
        said.contains("3 x \"hapy\" (did you mean `happy`?)"),
        "{said}"
    );
}

#[test]
fn prompts_that_would_be_read_out_as_they_stand_are_refused() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(1));
    let prompts = fs::read_to_string(root().join("configs/prompts/en.yaml")).unwrap();
    let misspelt = prompts.replace("{transcript}", "{transcrpit}");
    fs::write(workplace.path("prompts.yaml"), misspelt).unwrap();
    workplace
        .run(&["train", "stage1.yaml", "prompt=prompts.yaml"])
        .failed(2, &["{transcrpit}", "did you mean", "{transcript}"]);
    let manifest = changed_manifest(&workplace, "train", |number, clip| {
        if number == 0 {
            clip["transcript"] = "look at <video> please".into();
        }
    });
    fs::write(workplace.path("data/manifest.jsonl"), manifest).unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(3, &["clip synth-00000", "<video>"]);
}

#[test]
fn what_cannot_be_trained_or_judged_is_refused_before_the_first_step() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage1", &stage1(1));
    workplace.write_recipe("stage2", &stage2(1));
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "name=other",
            "evaluation.metric=text_uar",
        ])
        .failed(2, &["`evaluation.metric`", "`emotion`"]);
    let rates = "train.learning_rate={projectors: 1e-3}";
    workplace
        .run(&["train", "stage2.yaml", "inputs=[transcript]", rates])
        .failed(2, &["nothing would be trained"]);
    let encoder = "model.inputs.0.encoder={kind: vit, image_size: 48, patch_size: 8, dim: 192, depth: 0, \
                   patch_init: orthonormal, seed: 9, position: none, mean: [0, 0, 0], std: [1, 1, 1]}";
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "name=other",
            "init_from=runs/stage1",
            "model.decoder=null",
            encoder,
        ])
        .failed(2, &["input `video` has another encoder"]);
    assert!(!workplace.path("runs/other").exists() && !workplace.path("runs/stage2").exists());
}

#[test]
fn a_finished_run_is_held_against_what_it_was_made_from() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage1", &stage1(10));
    workplace.run(&["train", "stage1.yaml"]).succeeded();
    let manifest = changed_manifest(&workplace, "train", |_, clip| {
        clip["seen"] = "a nose".into()
    });
    fs::write(workplace.path("data/manifest.jsonl"), manifest).unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(2, &["the content of data/manifest.jsonl"]);
}

#[test]
fn two_processes_do_not_train_one_run() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(5));
    workplace.run(&["train", "stage1.yaml"]).succeeded();
    fs::remove_dir_all(workplace.path("runs/stage1/final")).unwrap();
    let lock = File::create(workplace.path("runs/stage1/.lock")).unwrap();
    lock.lock().unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(2, &["another process", "runs/stage1"]);
    drop(lock);
    workplace.run(&["train", "stage1.yaml"]).succeeded();
}

#[test]
fn a_run_that_diverges_says_so() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(20));
    let rates = "train.learning_rate={decoder: 1e30, projectors: 1e30}";
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            rates,
            "evaluation.every=0",
            "train.warmup=0",
        ])
        .failed(5, &["train.learning_rate", "step"]);
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            rates,
            "evaluation.every=1",
            "train.warmup=0",
            "name=judged",
        ])
        .failed(5, &["validation loss"]);
}

#[test]
fn frozen_weights_hash_the_same_whatever_is_trained_beside_them() {
    let workplace = Workplace::after_stage1();
    let frozen = |steps: u64| {
        workplace.write_recipe("stage2", &stage2(steps));
        workplace
            .run(&["train", "stage2.yaml", "--restart"])
            .succeeded();
        let file = json(&workplace.path("runs/stage2/run.json"));
        file["result"]["frozen_sha256"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let (one, five) = (frozen(1), frozen(5));
    assert_eq!((one.len(), &one), (64, &five));
}

#[test]
fn drawn_answers_repeat_themselves_by_seed() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage2", &stage2(1));
    workplace.run(&["train", "stage2.yaml"]).succeeded();
    let clip = "data/clips/synth-00000.mp4";
    let draw = |seed: &str| {
        let arguments = [
            "infer",
            "stage2",
            "--clip",
            clip,
            "--json",
            "--temperature",
            "2",
            "--seed",
            seed,
        ];
        let said = workplace.run(&arguments).succeeded();
        let answer: Value = serde_json::from_str(&said.stdout).unwrap();
        answer["rationale"].as_str().unwrap().to_string()
    };
    assert_eq!(draw("1"), draw("1"));
    assert_ne!(draw("1"), draw("2"));
    workplace
        .run(&["infer", "stage2", "--clip", clip, "--temperature=-1"])
        .failed(2, &["temperature"]);
}

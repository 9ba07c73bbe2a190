use std::path::Path;
use std::sync::OnceLock;

use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::workplace::{Workplace, json, stage1, stage2};

/// A workplace with both stages finished, for tests that leave it as it is.
pub(crate) fn trained() -> &'static Workplace {
    static TRAINED: OnceLock<Workplace> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let workplace = Workplace::after_stage1();
        workplace.write_recipe("stage2", &stage2(6));
        let frozen = digest(&workplace.path("runs/stage1/final/llm/model.safetensors"));
        workplace
            .run(&["train", "stage2.yaml", "--devices", "cpu:2"])
            .succeeded();
        assert_eq!(
            digest(&workplace.path("runs/stage1/final/llm/model.safetensors")),
            frozen
        );
        workplace
    })
}

fn digest(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

fn tensor_names(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let mut names: Vec<String> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .names()
        .into_iter()
        .map(String::from)
        .collect();
    names.sort();
    names
}

#[test]
fn only_trainables_change() {
    let workplace = trained();
    let folder = workplace.path("runs/stage2/final");
    assert!(
        !folder.join("llm").exists(),
        "the frozen decoder is named, not copied"
    );
    assert!(
        folder
            .join("llm_adapter/adapter_model.safetensors")
            .is_file()
    );
    let source = &json(&folder.join("mm/mm_config.json"))["decoder"]["base"];
    assert_eq!(source["path"], "../../stage1/final/llm");
    // The input statistics too are frozen, the projectors beside them trained.
    let [before, after] = ["stage1", "stage2"].map(|run| {
        std::fs::read(workplace.path(&format!("runs/{run}/final/mm/projector.safetensors")))
            .unwrap()
    });
    let [before, after] = [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let (mut same, mut changed) = (0, 0);
    for (name, tensor) in before.tensors() {
        let is_statistic = name.ends_with("input_mean") || name.ends_with("input_std");
        assert_eq!(
            after.tensor(&name).unwrap().data() == tensor.data(),
            is_statistic,
            "{name}"
        );
        if is_statistic {
            same += 1;
        } else {
            changed += 1;
        }
    }
    assert!(
        same == 8 && changed > 8,
        "{same} statistics, {changed} others"
    );
}

#[test]
fn a_frozen_decoder_is_saved_as_it_was_drawn() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(1));
    let decoder = |name: &str, changes: &[&str]| {
        let name_it = format!("name={name}");
        let arguments = [
            &["train", "stage1.yaml", &name_it, "--devices", "cpu:2"],
            changes,
        ]
        .concat();
        workplace.run(&arguments).succeeded();
        digest(&workplace.path(&format!("runs/{name}/final/llm/model.safetensors")))
    };
    let frozen = "train.learning_rate={projectors: 0.01}";
    let one = decoder("one", &[frozen]);
    assert_eq!(decoder("six", &[frozen, "train.steps=6"]), one);
    assert_ne!(decoder("trained", &[]), one);
    assert_ne!(workplace.hashes("one"), workplace.hashes("six"));
}

#[test]
fn a_finished_run_says_so() {
    let workplace = trained();
    let before = workplace.run_file("stage2");
    let said = workplace
        .run(&["train", "stage2.yaml", "--devices", "cpu:1"])
        .succeeded();
    assert!(
        said.stderr.contains("runs/stage2 is finished"),
        "{}",
        said.stderr
    );
    assert_eq!(said.stdout.trim(), "runs/stage2/final");
    assert_eq!(workplace.run_file("stage2"), before);
}

#[test]
fn a_run_keeps_what_it_was_made_from() {
    let workplace = trained();
    let recipe = std::fs::read_to_string(workplace.path("runs/stage2/recipe.yaml")).unwrap();
    assert!(
        recipe.contains("surprised"),
        "the label file's content, not its path: {recipe}"
    );
    let run = workplace.run_file("stage2");
    assert_eq!(
        run["manifest_sha256"],
        hex(&digest(&workplace.path("data/manifest.jsonl")))
    );
    assert_eq!(
        run["init_sha256"],
        hex(&digest(&workplace.path("runs/stage1/final/MANIFEST.json")))
    );
    let metrics = std::fs::read_to_string(workplace.path("runs/stage2/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.iter().filter(|line| line["kind"] == "train").count(),
        6
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["kind"] == "validation")
            .count(),
        2,
        "every fourth step, and the last"
    );
    for key in [
        "loss",
        "lm_loss",
        "class_loss",
        "learning_rate",
        "grad_norm",
        "samples_per_second",
        "supervised_tokens_per_second",
    ] {
        assert!(lines[0][key].is_number(), "{key} in {}", lines[0]);
    }
    let events = std::fs::read_dir(workplace.path("runs/stage2/tensorboard")).unwrap();
    let events: Vec<u8> = events
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    for tag in ["train/loss", "train/grad_norm", "validation/loss"] {
        let is_there = events
            .windows(tag.len())
            .any(|bytes| bytes == tag.as_bytes());
        assert!(is_there, "no {tag} in the TensorBoard events");
    }
    assert_eq!(
        std::fs::read_to_string(workplace.path("runs/stage2/quarantine.jsonl")).unwrap(),
        ""
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn eval_prints_one_object() {
    let workplace = trained();
    let said = workplace
        .run(&[
            "eval",
            "stage2",
            "--split",
            "test",
            "--json",
            "--devices",
            "cpu:1",
        ])
        .succeeded();
    let object: Value = serde_json::from_str(&said.stdout).unwrap();
    for of in ["text", "head", "majority"] {
        assert_eq!(object[of]["n"], 2, "{object}");
        for key in [
            "accuracy",
            "uar",
            "weighted_f1",
            "macro_f1",
            "unparsed_rate",
        ] {
            let value = object[of][key]
                .as_f64()
                .unwrap_or_else(|| panic!("no {of}.{key} in {object}"));
            assert!((0.0..=1.0).contains(&value), "{of}.{key} is {value}");
        }
    }
    assert_eq!(object["split"], "test");
    assert_eq!(object["quarantined"], 0);
    // The same from two replicas, and the files beside the run agree.
    let again = workplace
        .run(&[
            "eval",
            "runs/stage2",
            "--split",
            "test",
            "--json",
            "--devices",
            "cpu:2",
        ])
        .succeeded();
    assert_eq!(again.stdout, said.stdout);
    let scores = json(&workplace.path("runs/stage2/eval/test/scores.json"));
    assert_eq!(scores["text"]["accuracy"], object["text"]["accuracy"]);
    let predictions =
        std::fs::read_to_string(workplace.path("runs/stage2/eval/test/predictions.jsonl")).unwrap();
    assert_eq!(predictions.lines().count(), 2);

    let table = workplace
        .run(&["eval", "stage2", "--split", "validation"])
        .succeeded();
    for part in [
        "split validation: 2 clips scored",
        "generated text",
        "class head",
        "majority baseline",
    ] {
        assert!(
            table.stdout.contains(part),
            "{part} not in: {}",
            table.stdout
        );
    }
}

/// Where the prompts of stage 2 have their first medium.
fn placeholder(workplace: &Workplace) -> String {
    let config = json(&workplace.path("runs/stage2/final/mm/mm_config.json"));
    config["inputs"][0]["placeholder"].as_str().unwrap().into()
}

#[test]
fn infer_answers_about_a_clip() {
    let workplace = trained();
    let clip = "data/clips/synth-00000.mp4";
    let said = workplace
        .run(&[
            "infer",
            "stage2",
            "--clip",
            clip,
            "--transcript",
            "I got it.",
        ])
        .succeeded();
    assert!(said.stdout.starts_with("emotion "), "{}", said.stdout);
    assert!(said.stdout.contains("rationale "), "{}", said.stdout);
    assert!(!said.stderr.contains("note:"), "{}", said.stderr);

    let said = workplace
        .run(&["infer", "stage2", "--clip", clip, "--json"])
        .succeeded();
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    let probabilities: Vec<f64> = answer["probabilities"]
        .as_object()
        .unwrap()
        .values()
        .map(|p| p.as_f64().unwrap())
        .collect();
    assert_eq!(probabilities.len(), 6);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    assert_eq!(answer["absent"], serde_json::json!([]));
    assert_eq!(answer["answers"], Value::Null);
    let said = workplace
        .run(&[
            "infer",
            "stage2",
            "--clip",
            clip,
            "--json",
            "--question",
            "What is heard?",
            "--question",
            "Who is it?",
        ])
        .succeeded();
    let more: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&more["answer"], &more["rationale"]),
        (&answer["answer"], &answer["rationale"])
    );
    let questions = more["answers"].as_array().unwrap();
    let asked: Vec<&str> = questions
        .iter()
        .map(|q| q["question"].as_str().unwrap())
        .collect();
    assert_eq!(asked, ["What is heard?", "Who is it?"]);
    workplace
        .run(&["infer", "stage2", "--clip", "nowhere.mp4"])
        .failed(3, &["nowhere.mp4"]);
    let long = "What is heard? ".repeat(2000);
    let spelt = format!("Who is in {}?", placeholder(workplace));
    for (flag, value, told) in [
        ("--question", "", ["--question", "wanted words"]),
        ("--question", " ", ["--question", "wanted words"]),
        (
            "--question",
            &long,
            ["--question", "shorten it by at least"],
        ),
        ("--question", &spelt, ["--question", "take it out"]),
        ("--top-p", "0", ["--top-p", "above 0"]),
        ("--top-p", "NaN", ["--top-p", "above 0"]),
        ("--top-p", "1.5", ["--top-p", "above 0"]),
        (
            "--temperature",
            "inf",
            ["--temperature", "number of at least 0"],
        ),
    ] {
        workplace
            .run(&["infer", "stage2", "--clip", clip, flag, value])
            .failed(2, &told);
    }
    // Stage 1 learnt captions, not labels.
    workplace
        .run(&["infer", "stage1", "--clip", clip])
        .failed(2, &["labels"]);
}

#[test]
fn export_is_pefts_folder_with_the_media_parts_beside_it() {
    let workplace = trained();
    workplace
        .run(&["export", "stage2", "--out", "exported"])
        .succeeded();
    let config = json(&workplace.path("exported/llm_adapter/adapter_config.json"));
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["task_type"], "CAUSAL_LM");
    assert_eq!(
        (config["r"].as_u64(), config["lora_alpha"].as_f64()),
        (Some(4), Some(8.0))
    );
    assert_eq!(config["bias"], "none");
    // As PEFT takes it: from the folder that one works in.
    let base = workplace.path(config["base_model_name_or_path"].as_str().unwrap());
    assert!(
        base.join("config.json").is_file(),
        "the adapter names its decoder: {}",
        base.display()
    );
    let names = tensor_names(&workplace.path("exported/llm_adapter/adapter_model.safetensors"));
    let layer = "base_model.model.model.layers.0";
    let wanted: Vec<String> = ["mlp.down_proj", "self_attn.q_proj", "self_attn.v_proj"]
        .iter()
        .flat_map(|module| {
            ["A", "B"].map(|factor| format!("{layer}.{module}.lora_{factor}.weight"))
        })
        .collect();
    assert_eq!(names, wanted);
    let card = std::fs::read_to_string(workplace.path("exported/llm_adapter/README.md")).unwrap();
    let base_model = config["base_model_name_or_path"].as_str().unwrap();
    assert!(
        card.contains(&format!("base_model: {base_model}\n")),
        "{card}"
    );
    let manifest = json(&workplace.path("exported/MANIFEST.json"));
    for (name, hash) in manifest.as_object().unwrap() {
        assert_eq!(
            *hash,
            hex(&digest(&workplace.path("exported").join(name))),
            "{name}"
        );
    }
    assert!(
        manifest
            .as_object()
            .unwrap()
            .contains_key("mm/projector.safetensors")
    );
    // An exported artifact answers as its run does.
    let of = |model: &str| {
        let said = workplace
            .run(&["eval", model, "--data", "data/manifest.jsonl", "--json"])
            .succeeded();
        serde_json::from_str::<Value>(&said.stdout).unwrap()
    };
    assert_eq!(of("exported")["head"], of("stage2")["head"]);
    workplace
        .run(&["export", "stage2", "--out", "exported"])
        .failed(2, &["exported is there already"]);
    workplace.run(&["eval", "exported"]).failed(2, &["--data"]);
}

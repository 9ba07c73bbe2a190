use crate::workplace::{Workplace, stage1, stage2};

#[test]
fn a_misspelt_key_is_placed_and_the_nearest_named() {
    let workplace = Workplace::new();
    let recipe = stage1(2).replace("batch_size", "bacth_size");
    let line = 1 + recipe
        .lines()
        .position(|line| line.contains("bacth_size"))
        .unwrap();
    workplace.write_recipe("stage1", &recipe);
    // The parser notices at the end of the line or on it; a mapping inside braces is one line.
    let said = workplace
        .run(&["train", "stage1.yaml"])
        .failed(2, &["`bacth_size`", "did you mean `batch_size`?"]);
    assert!(
        said.stderr.contains(&format!("stage1.yaml:{line}")),
        "line {line}: {}",
        said.stderr
    );
    assert!(!workplace.path("runs").exists(), "nothing is begun");
}

#[test]
fn keys_inside_media_and_projectors_are_strict_too() {
    let workplace = Workplace::new();
    for (right, wrong) in [
        ("hidden: 16", "hiden: 16"),
        ("placeholder: <audio>", "placeholdr: <audio>"),
        ("num_attention_heads", "num_atention_heads"),
        ("kind: squash", "kind: sqash"),
        ("lm_weight", "lm_wieght"),
        ("describe: 1.0", "descrbe: 1.0"),
        ("decoder: 1.0e-3", "decodr: 1.0e-3"),
    ] {
        let recipe = stage1(2).replace("class_weight: 0.0", "class_weight: 0.0, lm_weight: 1.0");
        assert!(recipe.contains(right), "{right}");
        workplace.write_recipe("stage1", &recipe.replacen(right, wrong, 1));
        let word = |text: &str| text.split(": ").last().unwrap().to_string();
        let key = |text: &str| text.split(':').next().unwrap().to_string();
        let (got, near) = if key(right) == key(wrong) {
            (word(wrong), word(right))
        } else {
            (key(wrong), key(right))
        };
        let near = format!("did you mean `{near}`?");
        workplace
            .run(&["train", "stage1.yaml"])
            .failed(2, &["stage1.yaml", &got, &near]);
    }
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    let workplace = Workplace::new();
    workplace
        .run(&["train", "nowhere.yaml"])
        .failed(2, &["nowhere.yaml"]);
    workplace.write_recipe("stage1", &stage1(2));
    workplace
        .run(&["train", "stage1.yaml", "data.manifest=nowhere.jsonl"])
        .failed(3, &["nowhere.jsonl"]);
    workplace
        .run(&["train", "stage1.yaml", "prompt=nowhere.yaml"])
        .failed(2, &["`prompt`", "nowhere.yaml"]);
    workplace.write_recipe("stage2", &stage2(2).replace("runs/stage1", "runs/nowhere"));
    workplace
        .run(&["train", "stage2.yaml"])
        .failed(2, &["`init_from`", "runs/nowhere", "train it first"]);
    workplace
        .run(&["eval", "nowhere"])
        .failed(2, &["nowhere", "limbic train"]);
    assert!(!workplace.path("runs").exists(), "nothing is begun");
}

#[test]
fn wrong_values_are_named() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    for (change, parts) in [
        (
            "train.batch_size=6",
            &["`train.batch_size` is 6", "train.shards"][..],
        ),
        ("train.steps=0", &["`train.steps` is 0"]),
        ("train.steps=many", &["train.steps=many"]),
        ("data.max_bad=2", &["`data.max_bad` is 2"]),
        (
            "inputs=[video, smell]",
            &["`inputs` names `smell`", "video, audio, transcript"],
        ),
        (
            "train.learning_rate={head: 0.1}",
            &["`head`", "this model has none"],
        ),
        ("model.head={hidden: 0}", &["`model.head` needs `labels`"]),
        ("data.tasks={emotion: 1}", &["`emotion` needs `labels`"]),
        ("model.decoder.vocab_size=20", &["20", "258"]),
    ] {
        let said = workplace.run(&["train", "stage1.yaml", change, "--devices", "cpu:1"]);
        assert!(
            ![Some(0), None].contains(&said.code),
            "{change} was accepted: {}",
            said.stderr
        );
        for part in parts {
            assert!(
                said.stderr.contains(part),
                "{change}: `{part}` is not in: {}",
                said.stderr
            );
        }
    }
    assert!(
        !workplace.path("runs").exists(),
        "a corrected recipe would be taken for a changed one"
    );
    workplace
        .run(&["train", "stage1.yaml", "--devices", "cpu:0"])
        .failed(2, &["cpu:0"]);
    workplace
        .run(&["train", "stage1.yaml", "--devices", "gpu"])
        .failed(2, &["--devices gpu", "cuda"]);
}

#[test]
fn a_changed_recipe_does_not_go_on_with_the_old_run() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(3));
    workplace
        .run(&["train", "stage1.yaml", "--devices", "cpu:1"])
        .succeeded();
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "train.batch_size=8",
            "--devices",
            "cpu:1",
        ])
        .failed(
            2,
            &["runs/stage1", "`train.batch_size`", "name=", "--restart"],
        );
    let manifest = workplace.path("data/manifest.jsonl");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let hashes = workplace.hashes("stage1");
    let restarted = workplace
        .run(&["train", "stage1.yaml", "train.batch_size=8", "--restart"])
        .succeeded();
    assert!(
        restarted.stderr.contains("at step 0"),
        "{}",
        restarted.stderr
    );
    assert_ne!(workplace.hashes("stage1"), hashes);

    std::fs::remove_dir_all(workplace.path("runs/stage1/final")).unwrap();
    let fewer: String = text.lines().skip(1).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&manifest, fewer).unwrap();
    workplace
        .run(&["train", "stage1.yaml", "train.batch_size=8"])
        .failed(2, &["the content of data/manifest.jsonl"]);
}

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::workplace::{Said, Workplace, json, objectives, stage1, stage2};

/// A training under way; killed when it is dropped, also by a test that fails.
struct Training {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Training {
    /// Starts a training and comes back once it has done `step` steps.
    fn until_step(mut command: Command, step: u64) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut training = Self { child, lines };
        let mut said = String::new();
        loop {
            let start = said.len();
            assert!(
                training.lines.read_line(&mut said).unwrap() > 0,
                "ended before step {step}: {said}"
            );
            if said[start..].starts_with(&format!("step {step}/")) {
                return training;
            }
        }
    }

    /// Sends SIGINT; what was still said, and the exit code.
    fn interrupt(mut self) -> (String, Option<i32>) {
        let signal = format!("kill -INT {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &signal])
                .status()
                .unwrap()
                .success()
        );
        let mut said = String::new();
        self.lines.read_to_string(&mut said).unwrap();
        (said, self.child.wait().unwrap().code())
    }
}

impl Drop for Training {
    /// SIGKILL, which nothing can prepare for.
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn train(workplace: &Workplace, recipe: &str, devices: &str) -> Said {
    workplace
        .run(&["train", recipe, "--devices", devices])
        .succeeded()
}

/// The files of a folder, with their bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(
                contents(&path)
                    .into_iter()
                    .map(|(below, bytes)| (format!("{name}/{below}"), bytes)),
            );
        } else {
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// `(kind, step, loss)` of each line of metrics.jsonl; rates of work differ from run to run.
fn losses(workplace: &Workplace, run: &str) -> Vec<(String, u64, String)> {
    let text =
        std::fs::read_to_string(workplace.path(&format!("runs/{run}/metrics.jsonl"))).unwrap();
    let of_line = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            value["kind"].to_string(),
            value["step"].as_u64().unwrap(),
            value["loss"].to_string(),
        )
    };
    text.lines().map(of_line).collect()
}

#[test]
fn a_killed_run_ends_as_if_it_had_not_been() {
    let whole = Workplace::after_stage1();
    whole.write_recipe("stage2", &stage2(30));
    train(&whole, "stage2.yaml", "cpu:1");

    let killed = Workplace::after_stage1();
    killed.write_recipe("stage2", &stage2(30));
    // Before the first checkpoint, after an evaluation that was saved as the best, and wherever it was at the third.
    for step in [2, 11, 23] {
        drop(Training::until_step(
            killed.command(&["train", "stage2.yaml", "--devices", "cpu:2"]),
            step,
        ));
        assert!(!killed.path("runs/stage2/final").exists());
    }
    let said = train(&killed, "stage2.yaml", "cpu:1");
    assert!(said.stderr.contains("resuming at step "), "{}", said.stderr);
    assert_eq!(killed.hashes("stage2"), whole.hashes("stage2"));
    assert_eq!(killed.run_file("stage2"), whole.run_file("stage2"));
    let folder = "runs/stage2/final";
    assert_eq!(
        contents(&killed.path(folder)),
        contents(&whole.path(folder))
    );
    assert_eq!(losses(&killed, "stage2"), losses(&whole, "stage2"));
}

#[test]
fn an_interrupted_run_is_saved_and_says_how_to_go_on() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(5000));
    let command = || workplace.command(&["train", "stage1.yaml", "--devices", "cpu:1"]);
    let (said, code) = Training::until_step(command(), 7).interrupt();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted at step "), "{said}");
    assert!(said.contains("the same command goes on from it"), "{said}");
    let step: u64 = said
        .split("interrupted at step ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let state = format!("runs/stage1/checkpoints/step-{step:08}/state.json");
    assert_eq!(json(&workplace.path(&state))["step"], step);

    // Goes on, and not from the beginning: the first step it does is the next.
    let text = std::fs::read_to_string(workplace.path("runs/stage1/metrics.jsonl")).unwrap();
    drop(Training::until_step(command(), step + 1));
    let after = std::fs::read_to_string(workplace.path("runs/stage1/metrics.jsonl")).unwrap();
    assert!(
        after.starts_with(&text),
        "lines of steps done are kept as they were"
    );
}

#[test]
fn hashes_do_not_depend_on_the_number_of_devices() {
    let hashes = ["cpu:1", "cpu:2", "cpu:4"].map(|devices| {
        let workplace = Workplace::after_stage1();
        workplace.write_recipe("stage2", &stage2(8));
        train(&workplace, "stage2.yaml", devices);
        (
            workplace.hashes("stage2"),
            contents(&workplace.path("runs/stage2/final")),
        )
    });
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn another_seed_is_another_run() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    train(&workplace, "stage1.yaml", "cpu:1");
    workplace
        .run(&[
            "train",
            "stage1.yaml",
            "seed=8",
            "name=other",
            "--devices",
            "cpu:1",
        ])
        .succeeded();
    assert_ne!(workplace.hashes("stage1"), workplace.hashes("other"));
}

#[test]
fn all_objectives_together_resume_exactly_on_other_devices() {
    let whole = Workplace::new();
    whole.write_recipe("objectives", &objectives(7));
    let said = train(&whole, "objectives.yaml", "cpu:1");
    assert!(
        said.stderr
            .contains("losses: lm, class, valence, contrastive, masked"),
        "{}",
        said.stderr
    );
    let killed = Workplace::new();
    killed.write_recipe("objectives", &objectives(7));
    drop(Training::until_step(
        killed.command(&["train", "objectives.yaml", "--devices", "cpu:2"]),
        5,
    ));
    let said = train(&killed, "objectives.yaml", "cpu:3");
    assert!(said.stderr.contains("resuming at step "), "{}", said.stderr);
    assert_eq!(killed.hashes("objectives"), whole.hashes("objectives"));
    assert_eq!(losses(&killed, "objectives"), losses(&whole, "objectives"));
    let metrics = std::fs::read_to_string(whole.path("runs/objectives/metrics.jsonl")).unwrap();
    for kind in ["train", "validation"] {
        let line = metrics
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|line| line["kind"] == kind)
            .unwrap();
        for term in ["lm", "class", "valence", "contrastive", "masked"] {
            let loss = &line[format!("{term}_loss")];
            assert!(loss.as_f64().unwrap() > 0.0, "{kind}: {term} {loss}");
        }
        if kind == "validation" {
            for key in [
                "valence_ccc",
                "valence_mae",
                "retrieval",
                "head_uar",
                "text_uar",
            ] {
                assert!(line[key].is_number(), "{key} in {line}");
            }
        }
    }
}

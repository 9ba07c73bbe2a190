use std::path::Path;

use serde_json::{Value, json};

use crate::workplace::{Workplace, stage1, stage2};

/// The first training clip of the manifest, and its file.
const CLIP: &str = "data/clips/synth-00000.mp4";

fn damage(workplace: &Workplace, kind: &str) {
    let path = workplace.path(CLIP);
    let bytes = std::fs::read(&path).unwrap();
    let bytes = match kind {
        "truncated" => bytes[..bytes.len() / 3].to_vec(),
        "zero bytes" => Vec::new(),
        "zeros" => vec![0; bytes.len()],
        "text" => b"this is no video at all\n".repeat(50),
        _ => panic!("{kind}"),
    };
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn damaged_clips_are_refused_or_quarantined_as_the_budget_says() {
    for kind in ["truncated", "zero bytes", "zeros", "text"] {
        let workplace = Workplace::new();
        workplace.write_recipe("stage1", &stage1(2));
        damage(&workplace, kind);
        workplace
            .run(&["train", "stage1.yaml", "--devices", "cpu:1"])
            .failed(
                3,
                &["1 of 8 clips are unusable", "synth-00000", "data.max_bad"],
            );

        let said = workplace
            .run(&[
                "train",
                "stage1.yaml",
                "data.max_bad=0.2",
                "name=with-budget",
                "--devices",
                "cpu:1",
            ])
            .succeeded();
        assert!(
            said.stderr.contains("synth-00000 is quarantined"),
            "{kind}: {}",
            said.stderr
        );
        assert!(
            said.stderr.contains("train: 7 samples"),
            "{kind}: {}",
            said.stderr
        );
        let text =
            std::fs::read_to_string(workplace.path("runs/with-budget/quarantine.jsonl")).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["id"], "synth-00000");
        assert!(
            line["reason"].is_string()
                && line["detail"].as_str().unwrap().contains("synth-00000.mp4"),
            "{line}"
        );
    }
}

#[test]
fn a_missing_clip_is_named() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    std::fs::remove_file(workplace.path(CLIP)).unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(3, &["synth-00000"]);
}

/// Two seconds of grey pictures and no sound: YUV4MPEG2 is plain enough to be written by hand.
fn write_silent_video(path: &Path) {
    let mut bytes = b"YUV4MPEG2 W96 H96 F10:1 Ip A1:1 C420jpeg\n".to_vec();
    for _ in 0..20 {
        bytes.extend(b"FRAME\n");
        bytes.extend([128; 96 * 96 * 3 / 2]);
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_clip_without_sound_goes_on_without_its_slot() {
    let workplace = Workplace::after_stage1();
    write_silent_video(&workplace.path("data/clips/silent.y4m"));
    let manifest = std::fs::read_to_string(workplace.path("data/manifest.jsonl")).unwrap();
    let changed = manifest.replace("synth-00000.mp4", "silent.y4m");
    assert_ne!(changed, manifest);
    std::fs::write(workplace.path("data/manifest.jsonl"), changed).unwrap();
    workplace.write_recipe("stage2", &stage2(1));
    let said = workplace
        .run(&["train", "stage2.yaml", "--devices", "cpu:1"])
        .succeeded();
    assert!(said.stderr.contains("train: 8 samples"), "{}", said.stderr);
    let quarantine = workplace.path("runs/stage2/quarantine.jsonl");
    assert_eq!(std::fs::read_to_string(quarantine).unwrap(), "");
    let absent = |clip: &str| {
        let said = workplace.run(&["infer", "stage2", "--clip", clip, "--json"]);
        let answer: Value = serde_json::from_str(&said.succeeded().stdout).unwrap();
        answer["absent"].clone()
    };
    assert_eq!(absent("data/clips/silent.y4m"), json!(["audio"]));
    assert_eq!(absent("data/clips/synth-00001.mp4"), json!([]));
}

#[test]
fn a_broken_manifest_is_named_by_line() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    let path = workplace.path("data/manifest.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"emotion\"", "\"emotoin\"", 1)).unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(3, &["manifest.jsonl", "emotoin", "emotion"]);
    std::fs::write(
        &path,
        text.replace("\"split\":\"train\"", "\"split\":\"test\""),
    )
    .unwrap();
    workplace
        .run(&["train", "stage1.yaml"])
        .failed(3, &["train"]);
}

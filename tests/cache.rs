use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::workplace::{Workplace, stage1};

/// The entries of the cache, in the order of their names.
fn entries(workplace: &Workplace, cache: &str) -> Vec<PathBuf> {
    let below = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let folder = workplace.path(&format!("{cache}/features"));
    let mut entries: Vec<PathBuf> = below(folder).flat_map(below).collect();
    entries.sort();
    entries
}

/// Trains stage 1 as `name`; what it ends with, and what it said of features.
fn train(workplace: &Workplace, name: &str, overrides: &[&str]) -> ([String; 2], Vec<String>) {
    let name_is = format!("name={name}");
    let mut arguments = vec!["train", "stage1.yaml", &name_is];
    arguments.extend(overrides);
    let said = workplace.run(&arguments).succeeded().stderr;
    let of_features = said.lines().filter(|line| line.starts_with("features: "));
    (
        workplace.hashes(name),
        of_features.map(String::from).collect(),
    )
}

#[test]
fn a_run_is_the_same_however_its_features_came() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(6));
    let (wanted, said) = train(&workplace, "cold", &[]);
    // Eight training and two validation clips, seen and heard.
    assert_eq!(said, ["features: 0 found in the cache, 20 made"]);
    let same = |name: &str, overrides: &[&str]| {
        let (hashes, said) = train(&workplace, name, overrides);
        assert_eq!(hashes, wanted, "{name}");
        said
    };
    let warm = ["features: 20 found in the cache, 0 made"];
    assert_eq!(same("warm", &[]), warm);
    assert_eq!(same("on-call", &["cache.memory_gib=0"]), warm);
    // One of the features of a clip fits.
    assert_eq!(same("partly", &["cache.memory_gib=3.0e-5"]), warm);
    let off = ["cache.enabled=false"];
    assert!(same("off", &off).is_empty());
    assert!(same("each-time", &[off[0], "cache.memory_gib=0"]).is_empty());

    let entries = entries(&workplace, "cache");
    let mut bytes = fs::read(&entries[3]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&entries[3], &bytes).unwrap();
    fs::write(&entries[5], &fs::read(&entries[5]).unwrap()[..100]).unwrap();
    let said = same("damaged", &[]);
    assert_eq!(said[0], "features: 18 found in the cache, 2 made");
    assert!(said[1].contains("2 entries were damaged"), "{said:?}");
    assert_eq!(same("repaired", &[]), warm);
    // Found before the first step or in the middle of it.
    bytes = fs::read(&entries[3]).unwrap();
    bytes[last] ^= 1;
    fs::write(&entries[3], &bytes).unwrap();
    let said = same("damaged-on-call", &["cache.memory_gib=0"]);
    assert_eq!(said[0], warm[0]);
    assert!(said[1].contains("1 entries were damaged"), "{said:?}");
    assert_ne!(fs::read(&entries[3]).unwrap(), bytes, "it was written anew");

    // A trainer that has its features made again has to wait for them.
    let metrics = fs::read_to_string(workplace.path("runs/each-time/metrics.jsonl")).unwrap();
    let step: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(step["data_wait"].as_f64().unwrap() > 0.0, "{step}");
    // Where features are kept may change while a run is under way.
    workplace
        .run(&["train", "stage1.yaml", "name=warm", "cache.max_gib=1"])
        .succeeded();
}

#[test]
fn extractions_share_the_work_and_training_finds_it_done() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    let extract = |shard: &str, overrides: &[&str]| {
        let mut arguments = vec!["extract", "stage1.yaml", "--shard", shard];
        arguments.extend(overrides);
        workplace.run(&arguments)
    };
    // Two at once into one folder, and one into a folder of its own.
    let both: Vec<_> = ["1/3", "2/3"]
        .map(|shard| {
            let arguments = ["extract", "stage1.yaml", "--shard", shard];
            let mut command = workplace.command(&arguments);
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            quiet.spawn().unwrap()
        })
        .into();
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    let said = extract("3/3", &["cache.directory=elsewhere"]).succeeded();
    let wanted = "part 3/3: 4 clips, 8 features made";
    assert!(said.stdout.starts_with(wanted), "{}", said.stdout);
    assert_eq!(entries(&workplace, "cache").len(), 16);
    for entry in entries(&workplace, "elsewhere") {
        let below = entry.strip_prefix(workplace.path("elsewhere")).unwrap();
        let target = workplace.path("cache").join(below);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        assert!(!target.exists(), "parts are disjoint");
        fs::copy(&entry, target).unwrap();
    }
    let said = extract("1/1", &[]).succeeded();
    let wanted = "part 1/1: 12 clips, 0 features made (0.0 MiB), 24 found, 0 clips quarantined";
    assert!(said.stdout.starts_with(wanted), "{}", said.stdout);
    let (_, said) = train(&workplace, "after", &[]);
    assert_eq!(said, ["features: 20 found in the cache, 0 made"]);

    // What is there is verified.
    let entry = &entries(&workplace, "cache")[7];
    let mut bytes = fs::read(entry).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(entry, bytes).unwrap();
    let said = extract("1/1", &[]).succeeded();
    assert!(said.stdout.contains(" 1 features made"), "{}", said.stdout);
    assert!(said.stderr.contains("1 entries were damaged"));

    extract("4/3", &[]).failed(2, &["from 1/8 to 8/8"]);
    extract("1/1", &["cache.enabled=false"]).failed(2, &["`cache.enabled`"]);
    fs::write(workplace.path("file"), b"no folder").unwrap();
    extract("1/1", &["cache.directory=file"]).failed(1, &["24 features could not be written"]);
}

#[test]
fn a_full_cache_keeps_within_its_bound_and_runs_go_on() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(2));
    let (wanted, _) = train(&workplace, "whole", &["cache.enabled=false"]);
    // Three or four of twenty.
    let bytes = 150_000;
    let bound = format!("cache.max_gib={}", bytes as f64 / (1u64 << 30) as f64);
    for name in ["small", "smaller"] {
        let overrides = [bound.as_str(), "cache.memory_gib=0"];
        let (hashes, said) = train(&workplace, name, &overrides);
        assert_eq!(hashes, wanted);
        assert!(
            said.iter().any(|line| line.contains("`cache.max_gib`")),
            "{said:?}"
        );
        let sizes = entries(&workplace, "cache").into_iter();
        let size: u64 = sizes.map(|entry| fs::metadata(entry).unwrap().len()).sum();
        assert!(size > 0 && size <= bytes, "{size}");
    }
}

#[test]
fn a_clip_that_changes_while_a_run_goes_on_ends_it_with_what_was_learnt() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(100_000));
    let on_call = [
        "cache.memory_gib=0",
        "evaluation.every=0",
        "run.save_every=100000",
    ];
    let mut arguments = vec!["train", "stage1.yaml", "--devices", "cpu:1"];
    arguments.extend(on_call);
    let mut command = workplace.command(&arguments);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("step 2/") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    // The cache goes, and with it what a clip was.
    fs::write(workplace.path("data/clips/synth-00000.mp4"), b"another").unwrap();
    for entry in entries(&workplace, "cache") {
        fs::remove_file(entry).unwrap();
    }
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    let wanted = "clip synth-00000 is no longer what it was when the run began";
    assert!(said.contains(wanted), "{said}");
    let checkpoints = fs::read_dir(workplace.path("runs/stage1/checkpoints")).unwrap();
    assert!(checkpoints.count() > 0);
}

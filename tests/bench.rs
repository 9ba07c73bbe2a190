use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::workplace::{Said, Workplace};

/// A decoder that is built in no time.
const TINY: [&str; 16] = [
    "--dim",
    "32",
    "--layers",
    "2",
    "--heads",
    "2",
    "--kv-heads",
    "1",
    "--ffn",
    "48",
    "--vocab",
    "300",
    "--batch",
    "4",
    "--seq",
    "24",
];

fn bench(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbic"));
    Said::new(command.arg("bench").args(arguments).output().unwrap())
}

/// What it prints, one object a line, each with the keys that all have and those of `keys`.
fn lines(said: Said, time: &str, keys: &[&str]) -> Vec<Value> {
    let said = said.succeeded();
    assert_eq!(said.stderr, "");
    let lines: Vec<Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty());
    for line in &lines {
        let time = |of: &str| line[format!("{of}_{time}_s")].as_f64().unwrap();
        assert!(time("min") > 0.0 && time("spread") >= 0.0, "{line}");
        assert!(
            time("min") <= time("median") && time("median") <= time("max"),
            "{line}"
        );
        assert!(line["stack"].as_str().unwrap().starts_with("limbic "));
        for key in keys.iter().chain(&["bench", "shape", "peak_rss_mib"]) {
            assert!(line.get(*key).is_some(), "no `{key}` in {line}");
        }
    }
    lines
}

fn tiny<'a>(command: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [
        &[command][..],
        &TINY,
        &["--steps", "2", "--warmup", "1"],
        flags,
    ]
    .concat()
}

#[test]
fn a_step_learns_and_says_how_long_it_takes() {
    let keys = [
        "positions_per_s",
        "supervised_per_s",
        "trainable_params",
        "first_loss",
        "last_loss",
        "mfu",
        "plan",
        "peak_device_mib",
    ];
    let flags = [
        "--answer",
        "5",
        "--rank",
        "4",
        "--threads",
        "2",
        "--devices",
        "cpu:2",
    ];
    let line = &lines(bench(&tiny("step", &flags)), "step", &keys)[0];
    let number = |key: &str| line[key].as_f64().unwrap();
    // ln 300 = 5.70 before anything is learnt, and again and again the same samples.
    assert!((number("first_loss") - 300f64.ln()).abs() < 0.2, "{line}");
    assert!(number("last_loss") < number("first_loss"), "{line}");
    // Rank 4: q and o 32 -> 32, k and v 32 -> 16, gate and up 32 -> 48, down 48 -> 32, in two blocks; and 80 bands -> 32.
    let lora = 2 * 4 * (2 * 64 + 2 * 48 + 3 * 80);
    let projector = number("trainable_params") - f64::from(lora);
    assert!(projector > 0.0 && projector % 32.0 == 0.0, "{line}");
    assert_eq!(line["plan"]["replicas"], 2);
    assert_eq!(line["plan"]["threads"], 1);
    assert_eq!(
        (&line["shape"]["seq"], &line["shape"]["shards"]),
        (&24.into(), &4.into())
    );
    assert_eq!(line["mfu"], Value::Null);

    let flags = ["--every-position", "--peak-tflops", "1", "--threads", "2"];
    let every = &lines(bench(&tiny("step", &flags)), "step", &keys)[0];
    assert_eq!(every["shape"]["answer"], 23);
    // Whichever plan was the fastest, it has all threads.
    let plan = |of: &str| every["plan"][of].as_u64().unwrap();
    assert_eq!(plan("replicas") * plan("threads"), 2);
    let share =
        every["supervised_per_s"].as_f64().unwrap() / every["positions_per_s"].as_f64().unwrap();
    assert!((share - 23.0 / 24.0).abs() < 1e-3, "{every}");
    let mfu = every["mfu"].as_f64().unwrap();
    assert!(
        (mfu / every["tflops"].as_f64().unwrap() - 1.0).abs() < 1e-3,
        "{every}"
    );
}

#[test]
fn packed_steps_process_no_padding() {
    let share = |batching: &str| {
        let flags = [
            "--answer",
            "3",
            "--shortest",
            "8",
            "--shards",
            "2",
            "--batching",
            batching,
        ];
        let lines = lines(bench(&tiny("step", &flags)), "step", &["real_positions"]);
        lines[0]["real_positions"].as_f64().unwrap()
    };
    // Samples of 8, 13, 18 and 24 positions, in shards of two.
    assert!((share("padded") - 63.0 / 74.0).abs() < 1e-5);
    assert_eq!(share("packed"), 1.0);
}

#[test]
fn texts_are_continued_and_gradients_summed() {
    let keys = [
        "tokens_per_s",
        "time_to_first_token_s",
        "decoding_tokens_per_s",
    ];
    let flags = ["--new-tokens", "6"];
    lines(bench(&tiny("generate", &flags)), "run", &keys);

    let keys = ["megabytes", "median_ms", "gigabytes_per_s"];
    let flags = ["--shards", "3", "--rank", "4"];
    let line = &lines(bench(&tiny("allreduce", &flags)), "run", &keys)[0];
    let values = 2 * 4 * (2 * 64 + 2 * 48 + 3 * 80);
    assert_eq!(line["values"], values);
    assert_eq!(
        line["megabytes"].as_f64(),
        Some(f64::from(3 * 4 * values) / 1e6)
    );
}

#[test]
fn a_decoder_is_written_and_loaded() {
    let keys = ["gigabytes_per_s", "plain_read_s", "times_plain_read"];
    let line = &lines(bench(&tiny("load", &[])), "load", &keys)[0];
    let values = 2 * 300 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32) + 32;
    let bytes = line["gigabytes"].as_f64().unwrap() * 1e9;
    let header = bytes - f64::from(4 * values);
    assert!((0.0..8192.0).contains(&header), "{line}");
    let half = &lines(bench(&tiny("load", &["--dtype", "bf16"])), "load", &keys)[0];
    assert!(half["gigabytes"].as_f64() < line["gigabytes"].as_f64());
    let line = &lines(bench(&tiny("load", &["--threads", "2"])), "load", &keys)[0];
    assert_eq!(line["shape"]["threads"], 2);
}

#[test]
fn clips_are_decoded_and_encoded() {
    let workplace = Workplace::new();
    let clip = workplace.path("data/clips/synth-00000.mp4");
    let clip = clip.to_str().unwrap();
    let decode = [
        "decode",
        clip,
        clip,
        "--frames",
        "3",
        "--size",
        "32",
        "--steps",
        "2",
        "--warmup",
        "1",
        "--resample",
        "8000",
    ];
    let lines_of = lines(
        bench(&decode),
        "pass",
        &[
            "kind",
            "media_s",
            "times_real_time",
            "times_real_time_per_core",
        ],
    );
    let kinds: Vec<&Value> = lines_of.iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["video", "audio", "resample 8000"]);
    assert_eq!(
        (&lines_of[0]["frames"], &lines_of[0]["files"]),
        (&6.into(), &2.into())
    );
    assert_eq!(lines_of[2]["samples"], 160_000);

    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/encoders/mfcc.yaml");
    let encoder = encoder.to_str().unwrap();
    let encode = [
        "encode",
        "--encoder",
        encoder,
        "--batch",
        "2",
        "--seconds",
        "0.5",
        "--steps",
        "2",
    ];
    let line = &lines(bench(&encode), "run", &["samples_per_s", "feature_dim"])[0];
    assert_eq!(line["feature_dim"], 60);
    let files = ["encode", clip, "--encoder", encoder, "--steps", "2"];
    let keys = ["samples_per_s", "cached_samples_per_s", "cache_gain"];
    lines(bench(&files), "run", &keys);
}

#[test]
fn of_a_flag_that_is_given_twice_the_last_counts() {
    let flags = ["--answer", "5", "--answer", "7", "--batch", "2"];
    let targets = ["--targets", "q_proj", "--targets", "v_proj"];
    let flags = [&flags[..], &targets].concat();
    let line = &lines(bench(&tiny("step", &flags)), "step", &[])[0];
    let shape = &line["shape"];
    assert_eq!(
        (&shape["answer"], &shape["batch"], &shape["targets"]),
        (&7.into(), &2.into(), &serde_json::json!(["v_proj"]))
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let mfcc = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/encoders/mfcc.yaml");
    let mfcc = mfcc.to_str().unwrap();
    for (arguments, parts) in [
        (tiny("step", &["--answer", "30"]), &["30", "24"][..]),
        (tiny("step", &["--shards", "3"]), &["4 samples", "3 shards"]),
        (
            tiny("step", &["--targets", "q_porj"]),
            &["q_porj", "q_proj"],
        ),
        (tiny("step", &["--shortest", "40"]), &["40", "24"]),
        (
            tiny("step", &["--batch", "1", "--shortest", "16"]),
            &["one sample", "16", "24"],
        ),
        (
            tiny("step", &["--peak-tflops=-3"]),
            &["--peak-tflops", "above 0"],
        ),
        (
            tiny("step", &["--warmup", "18446744073709551615"]),
            &["--warmup", "at most 1000000"],
        ),
        (vec!["generate", "--batch", "0"], &["--batch", "at least 1"]),
        (vec!["generate", "--seq", "0"], &["--seq", "at least 1"]),
        (vec!["encode", "--seconds", "0"], &["--seconds", "above 0"]),
        (vec!["encode", "--seconds=-1"], &["--seconds", "above 0"]),
        (
            vec!["encode", "--seconds", "nan"],
            &["--seconds", "above 0"],
        ),
        (
            vec!["encode", "--encoder", mfcc, "--seconds", "1e-6"],
            &["--seconds"],
        ),
        (vec!["step", "--steps", "0"], &["--steps", "at least 1"]),
        (
            tiny("step", &["--dtype", "float8"]),
            &["float8", "bfloat16"],
        ),
        (tiny("step", &["--devices", "tpu"]), &["tpu", "cpu"]),
        (vec!["step", "--dim", "30", "--heads", "4"], &["30", "4"]),
        (
            vec!["generate", "--kv-heads", "3"],
            &["num_key_value_heads", "3"],
        ),
        (
            vec!["load", "--folder", "nowhere"],
            &["--folder", "nowhere"],
        ),
        (
            vec!["encode", "--encoder", "nowhere.yaml"],
            &["nowhere.yaml"],
        ),
        (vec!["decode"], &["files", "--resample"]),
    ] {
        bench(&arguments).failed(2, parts);
    }
    bench(&["decode", "nowhere.mp4"]).failed(3, &["nowhere.mp4"]);
}

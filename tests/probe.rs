//! `limbic probe` on the tiny models of tests/golden.

use std::fs;
use std::path::{Path, PathBuf};

use limbic_weights::{NamedTensor, Weights};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::workplace::{Said, Workplace, json as read_json, root};

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

fn probe(workplace: &Workplace, model: &Path, arguments: &[&str]) -> Said {
    let model = model.to_str().unwrap();
    workplace.run(&[&["probe", model], arguments].concat())
}

/// Probes into a file and reads it.
fn numbers(workplace: &Workplace, model: &Path, arguments: &[&str]) -> Weights {
    let arguments = [arguments, &["--out", "out.safetensors"]].concat();
    probe(workplace, model, &arguments).succeeded();
    Weights::read(&workplace.path("out.safetensors")).unwrap()
}

fn assert_close(got: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let errors = got.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    let error = errors.fold(
        0.0,
        |most: f32, e| if e > most || e.is_nan() { e } else { most },
    );
    assert!(error <= tolerance, "{what}: {error}");
}

/// Whole numbers in a safetensors file, by name.
fn write_whole(path: &Path, tensors: &[(&str, &[Vec<i64>])]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, rows)| rows.concat().iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, rows), bytes)| {
        let shape = vec![rows.len(), rows[0].len()];
        (*name, TensorView::new(Dtype::I64, shape, bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn copy(model: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_decoder_gives_the_reference_logits() {
    let workplace = Workplace::new();
    let model = golden("llama/untied");
    let reference = read_json(&model.join("reference.json"));
    let rows: Vec<Vec<i64>> = serde_json::from_value(reference["ids"].clone()).unwrap();
    let wanted = Weights::read(&model.join("reference.safetensors")).unwrap();
    let wanted = &wanted.tensors["logits"];
    let row = wanted.values.len() / rows.len();

    let ids: Vec<String> = rows[0].iter().map(i64::to_string).collect();
    let got = numbers(&workplace, &model, &["--ids", &ids.join(","), "--layers"]);
    let names: Vec<&String> = got.tensors.keys().collect();
    assert_eq!(names, ["hidden.0", "hidden.1", "hidden.2", "logits"]);
    assert_eq!(got.tensors["logits"].shape, [1, rows[0].len(), 53]);
    assert_close(
        &got.tensors["logits"].values,
        &wanted.values[..row],
        1e-4,
        "ids",
    );

    // Both rows, the second without its last three tokens and padded at the left instead.
    let short = rows[1].len() - 3;
    let padded = [vec![0; 3], rows[1][..short].to_vec()].concat();
    let mask = vec![
        vec![1; rows[0].len()],
        [vec![0; 3], vec![1; short]].concat(),
    ];
    let input = workplace.path("in.safetensors");
    let ids = [rows[0].clone(), padded];
    write_whole(&input, &[("input_ids", &ids), ("attention_mask", &mask)]);
    let got = numbers(&workplace, &model, &["--input", "in.safetensors"]);
    let got = &got.tensors["logits"].values;
    assert_close(&got[..row], &wanted.values[..row], 1e-4, "full row");
    let kept = short * 53;
    assert_close(
        &got[row + 3 * 53..],
        &wanted.values[row..row + kept],
        1e-4,
        "padded row",
    );

    // In half precision near, and not the same.
    let half = numbers(
        &workplace,
        &model,
        &["--input", "in.safetensors", "--dtype", "bf16"],
    );
    let half = &half.tensors["logits"].values;
    assert_ne!(half[..row], got[..row]);

    let said = probe(&workplace, &model, &["--ids", "1,2", "--layers"]).succeeded();
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{}", said.stdout);
    assert!(
        lines[4].starts_with("logits    [1, 2, 53]"),
        "{}",
        said.stdout
    );
    let place = |line: &str| line.find('[').unwrap();
    assert!(
        lines[1..].iter().all(|line| place(line) == place(lines[1])),
        "{}",
        said.stdout
    );
}

#[test]
fn text_takes_the_folders_tokenizer() {
    let workplace = Workplace::after_stage1();
    let model = workplace.path("runs/stage1/final/llm");
    let got = numbers(&workplace, &model, &["--text", "I am glad."]);
    let [rows, length, _] = got.tensors["logits"].shape[..] else {
        panic!("{:?}", got.tensors["logits"].shape)
    };
    assert!(rows == 1 && (2..=10).contains(&length), "{length}");
}

#[test]
fn a_vision_encoder_gives_the_reference_states() {
    let workplace = Workplace::new();
    let model = golden("vision/clip_vision");
    let mut wanted = Weights::read(&model.join("reference.safetensors")).unwrap();
    let pixels = wanted.tensors.remove("pixel_values").unwrap();
    let input = Weights {
        tensors: [("pixel_values".to_string(), pixels)].into(),
    };
    input.write(&workplace.path("in.safetensors")).unwrap();
    let got = numbers(
        &workplace,
        &model,
        &["--input", "in.safetensors", "--layers"],
    );
    assert!(
        got.tensors.keys().eq(wanted.tensors.keys()),
        "{:?}",
        got.tensors.keys()
    );
    for (name, wanted) in &wanted.tensors {
        assert_eq!(got.tensors[name].shape, wanted.shape, "{name}");
        assert_close(&got.tensors[name].values, &wanted.values, 2e-5, name);
    }

    // A picture of the model's own size, which is only normalised.
    probe(&workplace, &model, &["--image", "x.ppm"]).failed(3, &["x.ppm"]);
    let side = 26;
    let bytes: Vec<u8> = (0..side * side * 3).map(|i| (i * 37 % 256) as u8).collect();
    let picture = [
        format!("P6\n{side} {side}\n255\n").into_bytes(),
        bytes.clone(),
    ]
    .concat();
    fs::write(workplace.path("x.ppm"), picture).unwrap();
    probe(&workplace, &model, &["--image", "x.ppm"]).failed(1, &["preprocessor_config.json"]);
    let with_processor = workplace.path("model");
    copy(&model, &with_processor);
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": false, "do_center_crop": false, "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
    });
    fs::write(
        with_processor.join("preprocessor_config.json"),
        processor.to_string(),
    )
    .unwrap();
    let got = numbers(&workplace, &with_processor, &["--image", "x.ppm"]);
    let mut values = vec![0.0; bytes.len()];
    for (at, byte) in bytes.iter().enumerate() {
        let (pixel, colour) = (at / 3, at % 3);
        let (mean, std) = ([0.5, 0.4, 0.3][colour], [0.2, 0.3, 0.4][colour]);
        values[colour * side * side + pixel] = (f32::from(*byte) / 255.0 - mean) / std;
    }
    let shape = vec![1, 3, side, side];
    let input = Weights {
        tensors: [("pixel_values".to_string(), NamedTensor { shape, values })].into(),
    };
    input.write(&workplace.path("in.safetensors")).unwrap();
    let wanted = numbers(&workplace, &with_processor, &["--input", "in.safetensors"]);
    for (name, wanted) in &wanted.tensors {
        assert_close(&got.tensors[name].values, &wanted.values, 2e-5, name);
    }
}

#[test]
fn an_audio_encoder_reads_sound() {
    let workplace = Workplace::new();
    let model = golden("audio/hubert-base");
    let clip = "data/clips/synth-00000.mp4";
    let got = numbers(&workplace, &model, &["--audio", clip, "--layers"]);
    let last = &got.tensors["last_hidden_state"];
    assert_eq!((last.shape[0], last.shape[2]), (1, 30));
    let layers = read_json(&model.join("config.json"))["num_hidden_layers"]
        .as_u64()
        .unwrap();
    assert_eq!(got.tensors.len() as u64, layers + 2);
    assert_eq!(
        got.tensors[&format!("hidden.{layers}")].values.len(),
        last.values.len()
    );
    // Whisper's own front end, of the same file.
    let got = numbers(&workplace, &golden("audio/whisper"), &["--video", clip]);
    assert_eq!(got.tensors["last_hidden_state"].shape, [1, 50, 36]);
}

#[test]
fn wrong_input_is_named() {
    let workplace = Workplace::new();
    let llama = golden("llama/untied");
    probe(&workplace, &llama, &["--ids", "1,53"])
        .failed(2, &["llama/untied", "holds 53", "vocab_size"]);
    let many = vec!["1"; 65].join(",");
    probe(&workplace, &llama, &["--ids", &many])
        .failed(2, &["65 in a row", "max_position_embeddings"]);
    probe(&workplace, &llama, &[]).failed(2, &["--ids"]);
    probe(&workplace, &llama, &["--ids", "1", "--text", "x"]).failed(2, &["--ids", "--text"]);
    probe(&workplace, &llama, &["--text", "x"]).failed(2, &["tokenizer.json", "--ids"]);
    probe(&workplace, &llama, &["--image", "x.png"]).failed(2, &["a decoder", "--text"]);
    probe(
        &workplace,
        &golden("audio/hubert-base"),
        &["--image", "x.png"],
    )
    .failed(2, &["an audio encoder", "--audio"]);
    probe(&workplace, &golden("vision/clip_vision"), &["--text", "x"])
        .failed(2, &["a vision encoder", "--image"]);
    probe(&workplace, &workplace.path("nowhere"), &["--ids", "1"])
        .failed(2, &["nowhere/config.json"]);

    let other = workplace.path("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(
        other.join("config.json"),
        json!({ "model_type": "mamba" }).to_string(),
    )
    .unwrap();
    probe(&workplace, &other, &["--ids", "1"]).failed(2, &["`mamba`", "llama", "hubert", "clip"]);

    let input = workplace.path("in.safetensors");
    let file = |name: &str, shape: &[usize], parts: &[&str]| {
        let count = shape.iter().product();
        let tensor = NamedTensor {
            shape: shape.to_vec(),
            values: vec![0.0; count],
        };
        let weights = Weights {
            tensors: [(name.to_string(), tensor)].into(),
        };
        weights.write(&input).unwrap();
        let arguments = ["--input", "in.safetensors"];
        probe(&workplace, &golden("vision/clip_vision"), &arguments).failed(2, parts);
    };
    file(
        "pixel_values",
        &[3, 26, 26],
        &[
            "in.safetensors",
            "`pixel_values`",
            "[3, 26, 26]",
            "four dimensions",
        ],
    );
    file("pixels", &[1], &["`pixels`", "pixel_values"]);
    file(
        "input_values",
        &[1, 4],
        &["no `pixel_values`", "input_values"],
    );
    let value: Vec<Vec<i64>> = vec![vec![1, 2], vec![3, 4]];
    let mask: Vec<Vec<i64>> = vec![vec![1, 0], vec![0, 1]];
    write_whole(&input, &[("input_ids", &value), ("attention_mask", &mask)]);
    probe(&workplace, &llama, &["--input", "in.safetensors"])
        .failed(2, &["`attention_mask`", "padded at the left"]);
}

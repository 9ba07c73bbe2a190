//! What `limbic export` writes, and that `--verify` sees when it is not the run's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use burn::tensor::Device;
use limbic_llama::{MergeOptions, write_merged};
use limbic_model::{ExportOptions, verify_export};
use limbic_weights::{Checkpoint, Precision, StoredDtype, Weights, file_digest};
use serde_json::{Value, json};

use crate::finished::trained;
use crate::workplace::{Workplace, json as read_json};

const BASE: &str = "runs/stage1/final/llm";

/// A place to export to, for tests that share one run.
fn place(name: &str) -> String {
    let folder = trained().path(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    name.to_string()
}

/// Lets the manifest of an artifact say that its files are as they are.
fn reseal(folder: &Path) {
    let path = folder.join("MANIFEST.json");
    let mut manifest: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (name, hash) in &mut manifest {
        *hash = file_digest(&folder.join(name)).unwrap();
    }
    fs::write(&path, serde_json::to_string(&manifest).unwrap()).unwrap();
}

#[test]
fn a_merged_decoder_is_a_hugging_face_folder() {
    let workplace = trained();
    let out = place("merged-export");
    let said = workplace
        .run(&[
            "export",
            "stage2",
            "--out",
            &out,
            "--merged",
            "--max-shard-size",
            "40KB",
            "--verify",
        ])
        .succeeded();
    for part in ["merged/", "verified:", "merged, from the run as it is"] {
        assert!(said.stdout.contains(part), "{part} not in: {}", said.stdout);
    }
    assert!(!said.stderr.contains("warning"), "{}", said.stderr);
    let folder = workplace.path(&out).join("merged");
    for name in ["config.json", "tokenizer.json"] {
        let original = fs::read(workplace.path(BASE).join(name)).unwrap();
        assert_eq!(fs::read(folder.join(name)).unwrap(), original, "{name}");
    }
    let index = read_json(&folder.join("model.safetensors.index.json"));
    let base = Checkpoint::open(&workplace.path(BASE))
        .unwrap()
        .weights()
        .unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * base.num_values());
    let shards: Vec<&Value> = index["weight_map"].as_object().unwrap().values().collect();
    assert_eq!(shards.len(), base.tensors.len());
    assert!(shards.iter().any(|shard| *shard != shards[0]), "{shards:?}");

    // Adapted weights moved, the others are the base's to the bit.
    let merged = Checkpoint::open(&folder).unwrap().weights().unwrap();
    for (name, tensor) in &base.tensors {
        let is_adapted = ["q_proj", "v_proj", "down_proj"]
            .iter()
            .any(|layer| name.contains(layer));
        assert_eq!(merged.tensors[name] != *tensor, is_adapted, "{name}");
    }
    let manifest = read_json(&workplace.path(&out).join("MANIFEST.json"));
    assert!(
        manifest
            .get("merged/model.safetensors.index.json")
            .is_some(),
        "{manifest}"
    );
}

#[test]
fn precision_is_rounded_once_and_said() {
    let workplace = trained();
    for (dtype, stored, torch) in [
        ("bf16", StoredDtype::BF16, "bfloat16"),
        ("f16", StoredDtype::F16, "float16"),
    ] {
        let out = place(&format!("export-{dtype}"));
        workplace
            .run(&[
                "export", "stage2", "--out", &out, "--merged", "--dtype", dtype, "--verify",
            ])
            .succeeded();
        let out = workplace.path(&out);
        for file in [
            "merged/model.safetensors",
            "llm_adapter/adapter_model.safetensors",
        ] {
            let file = Checkpoint::open(&out.join(file)).unwrap();
            let names: Vec<&str> = file.names().collect();
            assert!(
                names.iter().all(|name| file.dtype(name) == Some(stored)),
                "{names:?}"
            );
        }
        let config = read_json(&out.join("merged/config.json"));
        assert_eq!(config["torch_dtype"], torch);
    }
}

#[test]
fn an_adapter_that_does_nothing_is_said() {
    let workplace = trained();
    let out = place("zero-export");
    workplace
        .run(&["export", "stage2", "--out", &out])
        .succeeded();
    let folder = workplace.path(&out);
    let path = folder.join("llm_adapter/adapter_model.safetensors");
    let mut weights = Weights::read(&path).unwrap();
    for (name, tensor) in &mut weights.tensors {
        if name.contains("lora_B") {
            tensor.values.fill(0.0);
        }
    }
    weights.write(&path).unwrap();
    reseal(&folder);
    let again = place("zero-again");
    let said = workplace
        .run(&["export", &out, "--out", &again, "--verify"])
        .succeeded();
    assert!(said.stderr.contains("every B"), "{}", said.stderr);
}

type Damage = fn(&Path);

#[test]
fn verification_sees_one_changed_value_and_one_changed_setting() {
    let workplace = trained();
    let run = workplace.path("runs/stage2/final");
    let options = ExportOptions {
        merged: true,
        ..ExportOptions::default()
    };
    // (a file of the export, what is done to it)
    let damages: [(&str, Damage); 4] = [
        ("llm_adapter/adapter_model.safetensors", nudge),
        ("merged/model.safetensors", nudge),
        ("llm_adapter/adapter_config.json", |path| {
            set(path, "lora_alpha", json!(9))
        }),
        ("merged/config.json", |path| {
            set(path, "rms_norm_eps", json!(0.5))
        }),
    ];
    for (index, (file, damage)) in damages.iter().enumerate() {
        let out = place(&format!("damaged-{index}"));
        workplace
            .run(&["export", "stage2", "--out", &out, "--merged"])
            .succeeded();
        let out = workplace.path(&out);
        verify_export(&run, &out, &options, &Device::flex()).unwrap();
        damage(&out.join(file));
        reseal(&out);
        let error = verify_export(&run, &out, &options, &Device::flex()).unwrap_err();
        let message = error.to_string();
        let wanted = if file.ends_with("json") {
            "logits of"
        } else {
            "in the run"
        };
        assert!(message.contains(wanted), "{file}: {message}");
    }
}

fn nudge(path: &Path) {
    let mut weights = Weights::read(path).unwrap();
    let tensor = weights.tensors.values_mut().last().unwrap();
    tensor.values[0] = f32::from_bits(tensor.values[0].to_bits() ^ 1);
    weights.write(path).unwrap();
}

fn set(path: &Path, key: &str, value: Value) {
    let mut config = read_json(path);
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let workplace = trained();
    let out = place("refused-export");
    workplace
        .run(&[
            "export",
            "stage2",
            "--out",
            &out,
            "--max-shard-size",
            "none",
        ])
        .failed(2, &["500MB"]);
    workplace
        .run(&["export", "stage2", "--out", &out, "--dtype", "f8"])
        .failed(2, &["f32, f16 or bf16"]);
    // Half precision ends at 65 504.
    let folder = tempfile::tempdir().unwrap();
    let (base, merged) = (folder.path().join("base"), folder.path().join("merged"));
    for folder in [&base, &merged] {
        fs::create_dir_all(folder).unwrap();
    }
    let mut weights = Weights::read(&workplace.path(BASE)).unwrap();
    weights.tensors.get_mut("model.norm.weight").unwrap().values[3] = 1e6;
    weights.write(&base.join("model.safetensors")).unwrap();
    let config = workplace.path(BASE).join("config.json");
    fs::copy(config, base.join("config.json")).unwrap();
    let options = MergeOptions {
        precision: Some(Precision::F16),
        max_shard_bytes: 1 << 30,
    };
    let error = write_merged(&base, None, &merged, &options, &Device::flex()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`model.norm.weight` holds 1e6") && message.contains("f16"),
        "{message}"
    );
    // A run that trained its decoder whole has one to pass on.
    workplace
        .run(&["export", "stage1", "--out", &out, "--merged", "--verify"])
        .succeeded();
    let [whole, merged] = ["llm", "merged"].map(|folder| {
        let folder = workplace.path(&out).join(folder);
        Checkpoint::open(&folder).unwrap().weights().unwrap()
    });
    assert_eq!(whole, merged);
}

/// A decoder of zeros in BF16, whose file takes no space, and an artifact with an adapter on it.
fn large(workplace: &Workplace, layers: usize) {
    let (width, inner) = (1024, 2816);
    let config = json!({
        "model_type": "llama", "vocab_size": 320, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 8,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
        "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "bfloat16",
    });
    let base = workplace.path("large");
    fs::create_dir_all(&base).unwrap();
    fs::write(base.join("config.json"), config.to_string()).unwrap();
    fs::copy(
        trained().path(BASE).join("tokenizer.json"),
        base.join("tokenizer.json"),
    )
    .unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![320, width]),
        ("model.norm.weight".into(), vec![width]),
        ("lm_head.weight".into(), vec![320, width]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((
                format!("model.layers.{layer}.{name}.weight"),
                shape.to_vec(),
            ));
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), &[width, width]);
        }
        add("mlp.gate_proj", &[inner, width]);
        add("mlp.up_proj", &[inner, width]);
        add("mlp.down_proj", &[width, inner]);
        add("input_layernorm", &[width]);
        add("post_attention_layernorm", &[width]);
    }
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in &shapes {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(base.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();

    // The adapter of stage 2, but for these shapes and on the largest layers alone.
    let artifact = workplace.path("large-run");
    for folder in ["mm", "llm_adapter"] {
        fs::create_dir_all(artifact.join(folder)).unwrap();
    }
    let from = trained().path("runs/stage2/final");
    fs::copy(
        from.join("mm/projector.safetensors"),
        artifact.join("mm/projector.safetensors"),
    )
    .unwrap();
    let mut mm = read_json(&from.join("mm/mm_config.json"));
    let sha256 = limbic_llama::decoder_digest(&base).unwrap();
    mm["decoder"] = json!({ "base": { "path": "../large", "tensors_sha256": sha256 } });
    fs::write(artifact.join("mm/mm_config.json"), mm.to_string()).unwrap();
    let mut peft = read_json(&from.join("llm_adapter/adapter_config.json"));
    peft["target_modules"] = json!(["down_proj"]);
    fs::write(
        artifact.join("llm_adapter/adapter_config.json"),
        peft.to_string(),
    )
    .unwrap();
    let mut adapter = Weights::default();
    for layer in 0..layers {
        for (factor, shape) in [("A", [4, inner]), ("B", [width, 4])] {
            let name =
                format!("base_model.model.model.layers.{layer}.mlp.down_proj.lora_{factor}.weight");
            let values = vec![0.5; shape[0] * shape[1]];
            let shape = shape.to_vec();
            adapter
                .tensors
                .insert(name, limbic_weights::NamedTensor { shape, values });
        }
    }
    adapter
        .write(&artifact.join("llm_adapter/adapter_model.safetensors"))
        .unwrap();
    let files = [
        "mm/mm_config.json",
        "mm/projector.safetensors",
        "llm_adapter/adapter_config.json",
        "llm_adapter/adapter_model.safetensors",
    ];
    let manifest: BTreeMap<&str, &str> = files.into_iter().map(|file| (file, "")).collect();
    fs::write(
        artifact.join("MANIFEST.json"),
        serde_json::to_string(&manifest).unwrap(),
    )
    .unwrap();
    reseal(&artifact);
}

/// The largest memory of a process that is its own, in bytes, until it ends.
#[cfg(target_os = "linux")]
fn peak_memory(child: &mut std::process::Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(1024 * kilobytes.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn merging_takes_memory_for_a_tensor_and_not_for_the_model() {
    let layers = std::env::var("LIMBIC_LARGE_LAYERS").map_or(5, |layers| layers.parse().unwrap());
    let workplace = Workplace::new();
    large(&workplace, layers);
    let mut command = workplace.command(&[
        "export",
        "large-run",
        "--out",
        "large-out",
        "--merged",
        "--max-shard-size",
        "50MB",
    ]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let peak = peak_memory(&mut child);
    assert!(child.wait().unwrap().success());
    let merged = Checkpoint::open(&workplace.path("large-out/merged")).unwrap();
    let size: u64 = merged
        .names()
        .map(|name| 2 * merged.shape(name).unwrap().iter().product::<usize>() as u64)
        .sum();
    // 4 columns of A and rows of B of 0.5 each, times alpha 8 over rank 4.
    let mut merged = merged;
    let tensor = merged.take("model.layers.1.mlp.down_proj.weight").unwrap();
    assert!(tensor.values.iter().all(|value| *value == 2.0));
    assert!(
        fs::read_dir(workplace.path("large-out/merged"))
            .unwrap()
            .count()
            > 3
    );
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let largest = 4 * 2816 * 1024;
    // The program itself, and a few copies of one tensor.
    assert!(peak < 60_000_000 + 5 * largest, "{} MB", megabytes(peak));
    assert!(
        peak < size,
        "{} MB of {} MB",
        megabytes(peak),
        megabytes(size)
    );
}

//! Frozen weights in BF16.

use crate::workplace::{Workplace, json, losses, stage1, stage2};

#[test]
fn a_frozen_decoder_in_bf16_is_trained_on_nearly_alike() {
    let workplace = Workplace::after_stage1();
    workplace.write_recipe("stage2", &stage2(6));
    let train = |name: &str, precision: &str| {
        let (name, precision) = (
            format!("name={name}"),
            format!("train.precision={precision}"),
        );
        let said = workplace
            .run(&["train", "stage2.yaml", &name, &precision])
            .succeeded();
        said.stderr.contains("frozen weights are held in bf16")
    };
    assert!(!train("whole", "f32"));
    // On a CPU.
    assert!(!train("auto", "auto"));
    assert!(train("half", "bf16"));
    assert_eq!(workplace.hashes("whole"), workplace.hashes("auto"));
    let (whole, half) = (losses(&workplace, "whole"), losses(&workplace, "half"));
    assert_eq!(whole.len(), 6);
    assert_ne!(whole, half);
    // BF16 has 8 significant bits, and a loss is a mean over many roundings.
    for (whole, half) in whole.iter().zip(&half) {
        assert!((whole - half).abs() < 5e-3 * whole, "{whole} {half}");
    }
    // What was trained is in F32, beside the decoder as it lies on the disk.
    let config = |run: &str| json(&workplace.path(&format!("runs/{run}/final/mm/mm_config.json")));
    assert_eq!(config("half")["decoder"], config("whole")["decoder"]);
    let adapter = workplace.path("runs/half/final/llm_adapter/adapter_model.safetensors");
    let file = std::fs::read(adapter).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    for (name, tensor) in tensors.tensors() {
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
    }
    // A finished run is scored as it was trained.
    let is_scored_in_bf16 = |run: &str| {
        let said = workplace.run(&["eval", run, "--json"]).succeeded();
        said.stderr.contains("weights are held in bf16")
    };
    assert!(is_scored_in_bf16("half"));
    assert!(!is_scored_in_bf16("whole"));

    // One that is not is not gone on with in another precision.
    let path = workplace.path("runs/auto/run.json");
    let mut file = json(&path);
    assert_eq!(file["precision"], "f32");
    file["precision"] = "bf16".into();
    file.as_object_mut().unwrap().remove("result");
    std::fs::write(&path, file.to_string()).unwrap();
    workplace
        .run(&["train", "stage2.yaml", "name=auto", "train.precision=auto"])
        .failed(2, &["held in bf16", "means f32 on these devices"]);
}

#[test]
fn trained_weights_are_not_held_in_bf16() {
    let workplace = Workplace::new();
    workplace.write_recipe("stage1", &stage1(1));
    workplace
        .run(&["train", "stage1.yaml", "train.precision=bf16"])
        .failed(2, &["`train.precision` is bf16", "`decoder`"]);
    workplace
        .run(&["train", "stage1.yaml", "train.precision=fp8"])
        .failed(2, &["fp8", "bf16"]);
    assert!(!workplace.path("runs").exists());
}

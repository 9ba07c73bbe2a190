//! Loading takes little more memory than what is loaded.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use burn::module::{Module, Param, ParamId};
use burn::nn::Embedding;
use burn::tensor::{DType, Device, FloatDType, Shape, Tensor};
use common::memory_peak;
use limbic_weights::Checkpoint;

const LAYERS: usize = 12;
const WIDTH: usize = 3584;
const FOLDER: &str = "LIMBIC_TEST_LARGE_MODEL";

#[derive(Module, Debug)]
struct Large {
    layers: Vec<Embedding>,
}

fn large() -> Large {
    let device = Device::flex();
    let weight = || {
        Param::uninitialized(
            ParamId::new(),
            |_, _| panic!("a parameter was initialized before it was loaded"),
            device.clone(),
            false,
            Shape::new([WIDTH, WIDTH]),
        )
    };
    Large {
        layers: (0..LAYERS)
            .map(|_| Embedding { weight: weight() })
            .collect(),
    }
}

/// Two shards of zeros that take no room on the disk.
fn write_sparse(folder: &Path) -> u64 {
    let bytes = (WIDTH * WIDTH * 2) as u64;
    let mut index = serde_json::Map::new();
    for shard in 0..2 {
        let file_name = format!("model-{shard}.safetensors");
        let mut header = serde_json::Map::new();
        for place in 0..LAYERS / 2 {
            let name = format!("layers.{}.weight", shard * LAYERS / 2 + place);
            let start = place as u64 * bytes;
            header.insert(
                name.clone(),
                serde_json::json!({"dtype": "BF16", "shape": [WIDTH, WIDTH], "data_offsets": [start, start + bytes]}),
            );
            index.insert(name, file_name.clone().into());
        }
        let header = serde_json::to_vec(&header).unwrap();
        let path = folder.join(file_name);
        fs::write(
            &path,
            [&(header.len() as u64).to_le_bytes()[..], header.as_slice()].concat(),
        )
        .unwrap();
        let length = 8 + header.len() as u64 + LAYERS as u64 / 2 * bytes;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
    }
    let index = serde_json::json!({ "weight_map": index });
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    bytes * LAYERS as u64
}

#[test]
fn a_large_model_is_in_memory_once() {
    let folder = tempfile::tempdir().unwrap();
    let size = write_sparse(folder.path());
    assert!(size > 300_000_000);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_loading_process", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{output}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    let taken: u64 = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("taken: "))
        .unwrap_or_else(|| panic!("no figure in {output}"))
        .parse()
        .unwrap();
    let ratio = taken as f64 / size as f64;
    assert!(
        (0.95..1.15).contains(&ratio),
        "{taken} bytes for {size}: {ratio}"
    );
}

/// Does nothing but in the process that the test above starts.
#[test]
fn the_loading_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let before = memory_peak();
    let model = Checkpoint::open(Path::new(&folder))
        .unwrap()
        .load(large(), None)
        .unwrap();
    let taken = memory_peak() - before;
    writeln!(std::io::stdout(), "\ntaken: {taken}").unwrap();
    assert!(
        model
            .layers
            .iter()
            .all(|layer| layer.weight.val().dtype() == DType::BF16)
    );
}

#[test]
fn a_precision_is_given_to_every_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let header =
        r#"{"layers.0.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}"#;
    let values = [0x3c00_u16, 0xbc00, 0x0001, 0x7bff]
        .map(u16::to_le_bytes)
        .concat();
    fs::write(
        &path,
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &values,
        ]
        .concat(),
    )
    .unwrap();
    let device = Device::flex();
    let small = || Large {
        layers: vec![Embedding {
            weight: Param::initialized(ParamId::new(), Tensor::zeros([2, 2], &device)),
        }],
    };
    for precision in [
        None,
        Some(FloatDType::F32),
        Some(FloatDType::BF16),
        Some(FloatDType::F64),
    ] {
        let loaded = Checkpoint::open(&path)
            .unwrap()
            .load(small(), precision)
            .unwrap();
        let value = loaded.layers[0].weight.val();
        assert_eq!(value.dtype(), precision.map_or(DType::F16, DType::from));
        let values: Vec<f64> = value.into_data().iter::<f64>().collect();
        let rounded = if precision == Some(FloatDType::BF16) {
            65536.0
        } else {
            65504.0
        };
        assert_eq!(values, [1.0, -1.0, 2.0_f64.powi(-24), rounded]);
    }
}

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use limbic_llama::Llama;
use limbic_train::RunError;
use limbic_weights::{ModulePath, Planned, Precision, ShardWriter};
use serde_json::json;

use super::args::{Dtype, LoadArgs};
use super::measure::{self, Times, timed};

/// As published checkpoints are cut.
const SHARD_BYTES: u64 = 5_000_000_000;
const BUFFER: usize = 8 << 20;

pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let device = measure::one_device(&args.run)?;
    let written;
    let folder = match &args.folder {
        Some(folder) => folder.as_path(),
        None => {
            written = tempfile::tempdir()?;
            write(args, written.path(), &device)?;
            written.path()
        }
    };
    let files = weight_files(folder)?;
    let precision = args.wanted.map(Dtype::float_dtype);
    let (mut loading, mut reading, mut bytes) = (Vec::new(), Vec::new(), 0);
    for number in 0..args.run.warmup + args.run.steps {
        let (load, llama) = timed(|| {
            let llama = Llama::read_as(folder, precision, &device)?;
            device.sync()?;
            Ok(llama)
        })?;
        drop(llama);
        // Beside it what the same bytes cost when nothing is made of them, in the same minute.
        let (read, count) = timed(|| read_through(&files))?;
        bytes = count;
        if number >= args.run.warmup {
            loading.push(load);
            reading.push(read);
        }
    }
    let (loading, reading) = (Times::new(loading), Times::new(reading).median());
    let gigabytes = bytes as f64 / 1e9;
    let figures = json!({
        "gigabytes": measure::rounded(gigabytes),
        "gigabytes_per_s": measure::rounded(gigabytes / loading.median()),
        "plain_read_s": measure::rounded(reading),
        "plain_gigabytes_per_s": measure::rounded(gigabytes / reading),
        "times_plain_read": measure::rounded(loading.median() / reading),
        "peak_device_mib": measure::peak_device_mib(&[device]),
    });
    measure::print("load", args, &loading, "load", figures)
}

/// Writes a decoder of the shape, one tensor at a time.
fn write(args: &LoadArgs, folder: &Path, device: &Device) -> anyhow::Result<()> {
    let (precision, name) = match args.shape.dtype {
        Dtype::Float32 => (Precision::F32, "float32"),
        Dtype::Bfloat16 => (Precision::Bf16, "bfloat16"),
        Dtype::Float16 => (Precision::F16, "float16"),
    };
    let mut config = args.shape.decoder(args.shape.seq)?;
    config.dtype = name.into();
    config.write_json(&folder.join("config.json"))?;
    let mut plan = Plan {
        path: ModulePath::default(),
        precision,
        tensors: Vec::new(),
    };
    config.init(device).visit(&mut plan);
    let mut shards = ShardWriter::new(folder, plan.tensors, SHARD_BYTES);
    while let Some(tensor) = shards.next() {
        let values = tensor.shape.iter().product();
        shards.write(&vec![0.25; values])?;
    }
    Ok(shards.finish()?)
}

/// What a decoder is written as; the values are not looked at.
struct Plan {
    path: ModulePath,
    precision: Precision,
    tensors: Vec<Planned>,
}

impl ModuleVisitor for Plan {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.push(Planned {
            name: self.path.name(),
            shape: param.lazy_shape().to_vec(),
            precision: self.precision,
        });
    }
}

/// The files that hold weights.
fn weight_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string());
    let entries = entries.map_err(|error| RunError::recipe(format!("--folder {error:#}")))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.extension().unwrap_or_default();
        if name == "safetensors" || name == "bin" {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(RunError::recipe(format!(
            "--folder {}: no .safetensors or .bin file in it",
            folder.display()
        )));
    }
    Ok(files)
}

/// Reads all bytes, and returns how many they are.
fn read_through(files: &[PathBuf]) -> anyhow::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    for path in files {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => total += count as u64,
            }
        }
    }
    Ok(total)
}

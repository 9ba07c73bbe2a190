//! How much memory and time it takes to load a decoder of the size of LLaMA-2 7B.
//!
//!     cargo run --release -p limbic-llama --example load_large -- F16
//!
//! writes 6.74e9 zeros in F16 or BF16 as three safetensors shards that take no room on the disk, loads them in a
//! process of its own with the dtype kept, and prints size, peak resident memory, their ratio, and seconds. It needs
//! as much memory as it prints: about 14 GB.

#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use limbic_llama::LlamaConfig;
use limbic_weights::Checkpoint;
use serde_json::{Map, Value, json};

const SHARDS: usize = 3;
const LAYERS: usize = 32;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some(dtype @ ("F16" | "BF16")) => measure(dtype),
        Some("--child") if arguments.len() == 3 => load(Path::new(&arguments[2])),
        _ => Err("wanted F16 or BF16".into()),
    }
}

fn measure(dtype: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let size = write_sparse(folder.path(), dtype)?;
    println!("{dtype}, {:.2} GB in {SHARDS} shards", size as f64 / 1e9);
    let child = Command::new(std::env::current_exe()?)
        .arg("--child")
        .arg(folder.path())
        .output()?;
    if !child.status.success() {
        return Err(format!(
            "{}: {}",
            child.status,
            String::from_utf8_lossy(&child.stderr)
        )
        .into());
    }
    let printed = String::from_utf8(child.stdout)?;
    let (peak, seconds) = printed.trim().split_once(' ').ok_or("no figures")?;
    let (peak, seconds): (f64, f64) = (peak.parse()?, seconds.parse()?);
    println!(
        "peak {:.2} GB, {:.3} of the size, loaded in {seconds:.1} s",
        peak / 1e9,
        peak / size as f64
    );
    Ok(())
}

/// Loads the folder and prints the peak of resident memory in bytes, and seconds.
fn load(folder: &Path) -> Result<()> {
    let config = LlamaConfig::read(&folder.join("config.json"))?;
    let began = Instant::now();
    let model = Checkpoint::open(folder)?.load(config.init(&Device::flex()), None)?;
    let seconds = began.elapsed().as_secs_f64();
    let mut halves = Halves(0);
    model.visit(&mut halves);
    let all = model.num_params();
    if halves.0 != all {
        return Err(format!("{} of {all} values are in half precision", halves.0).into());
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.trim().strip_suffix(" kB"));
    let peak: usize = peak.ok_or("no VmHWM")?.trim().parse()?;
    println!("{} {seconds}", peak << 10);
    Ok(())
}

/// Counts the values that are stored in two bytes.
struct Halves(usize);

impl ModuleVisitor for Halves {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if matches!(value.dtype(), DType::F16 | DType::BF16) {
            self.0 += value.shape().num_elements();
        }
    }
}

/// Names and shapes of the tensors, in the order of a published checkpoint.
fn tensors() -> Vec<(String, Vec<u64>)> {
    const WIDTH: u64 = 4096;
    const WIDE: u64 = 11008;
    const WORDS: u64 = 32000;
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![WORDS, WIDTH])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![WIDTH]),
            ("mlp.down_proj", vec![WIDTH, WIDE]),
            ("mlp.gate_proj", vec![WIDE, WIDTH]),
            ("mlp.up_proj", vec![WIDE, WIDTH]),
            ("post_attention_layernorm", vec![WIDTH]),
            ("self_attn.k_proj", vec![WIDTH, WIDTH]),
            ("self_attn.o_proj", vec![WIDTH, WIDTH]),
            ("self_attn.q_proj", vec![WIDTH, WIDTH]),
            ("self_attn.v_proj", vec![WIDTH, WIDTH]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".into(), vec![WIDTH]));
    tensors.push(("lm_head.weight".into(), vec![WORDS, WIDTH]));
    tensors
}

/// Writes config, index and shards; the files' bytes are holes. Returns the bytes of all tensors.
fn write_sparse(folder: &Path, dtype: &str) -> Result<u64> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": LAYERS,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": if dtype == "F16" { "float16" } else { "bfloat16" },
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let tensors = tensors();
    let mut weight_map: Map<String, Value> = Map::new();
    let mut total = 0;
    for (shard, part) in tensors.chunks(tensors.len().div_ceil(SHARDS)).enumerate() {
        let file_name = format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1);
        let mut header: Map<String, Value> = Map::new();
        let mut end = 0;
        for (name, shape) in part {
            let start = end;
            end += 2 * shape.iter().product::<u64>();
            let described = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            header.insert(name.clone(), described);
            weight_map.insert(name.clone(), file_name.clone().into());
        }
        let header = serde_json::to_vec(&header)?;
        let length = header.len() as u64;
        let path = folder.join(file_name);
        fs::write(
            &path,
            [&length.to_le_bytes()[..], header.as_slice()].concat(),
        )?;
        File::options()
            .write(true)
            .open(&path)?
            .set_len(8 + length + end)?;
        total += end;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )?;
    Ok(total)
}

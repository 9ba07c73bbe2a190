use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder that recipes run in. It has its own copy of the shared clips and, on request, of the finished stage 1.
pub(crate) struct Workplace {
    folder: tempfile::TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
        said
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks the exit code, and that the message has all of `parts`.
    pub(crate) fn failed(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "`{part}` is not in: {}",
                self.stderr
            );
        }
        self
    }
}

impl Workplace {
    /// With clips in `data/`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&shared().join("data"), &folder.path().join("data"));
        Self { folder }
    }

    /// With clips in `data/` and a finished stage 1 in `runs/stage1`.
    pub(crate) fn after_stage1() -> Self {
        static STAGE1: OnceLock<()> = OnceLock::new();
        STAGE1.get_or_init(|| {
            write_recipe(shared(), "stage1", &stage1(10));
            Said::new(
                limbic(shared(), &["train", "stage1.yaml", "--devices", "cpu:1"])
                    .output()
                    .unwrap(),
            )
            .succeeded();
        });
        let workplace = Self::new();
        copy(&shared().join("runs"), &workplace.path("runs"));
        workplace
    }

    /// With clips in `data/`, and the shipped recipes beside what they name.
    pub(crate) fn with_recipes() -> Self {
        let workplace = Self::new();
        for folder in ["configs", "recipes"] {
            copy(&root().join(folder), &workplace.path(folder));
        }
        workplace
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_recipe(&self, name: &str, text: &str) {
        write_recipe(self.folder.path(), name, text);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        limbic(self.folder.path(), arguments)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::new(self.command(arguments).output().unwrap())
    }

    /// `run.json` of a run.
    pub(crate) fn run_file(&self, run: &str) -> Value {
        json(&self.path(&format!("runs/{run}/run.json")))
    }

    /// The hashes that a finished run ends with.
    pub(crate) fn hashes(&self, run: &str) -> [String; 2] {
        let result = self.run_file(run)["result"].clone();
        ["trainables_sha256", "optimizer_sha256"].map(|key| {
            let hash = result[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key} in {result}"));
            assert_eq!(hash.len(), 64);
            hash.to_string()
        })
    }
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The loss of each step of a run.
pub(crate) fn losses(workplace: &Workplace, run: &str) -> Vec<f64> {
    let path = workplace.path(&format!("runs/{run}/metrics.jsonl"));
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["kind"] == "train");
    steps.map(|line| line["loss"].as_f64().unwrap()).collect()
}

fn limbic(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limbic"));
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn write_recipe(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
}

/// A folder below the target folder, made anew by each run of the tests: statics are never dropped.
fn shared() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limbic-tests");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        let synth = limbic(
            &folder,
            &[
                "data", "synth", "--out", "data", "--clips", "12", "--seed", "7",
            ],
        );
        let said = Said::new({ synth }.output().unwrap()).succeeded();
        assert!(
            said.stdout.contains("8 train, 2 validation, 2 test clips"),
            "{}",
            said.stdout
        );
        folder
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// A captioning stage with a decoder of its own: both media and a fusion of them, every kind of part but adapters.
pub(crate) fn stage1(steps: u64) -> String {
    let root = root().display();
    format!(
        "name: stage1
seed: 7
prompt: {root}/configs/prompts/en.yaml
model:
  decoder: {{ kind: scratch, vocab_size: 320, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
             num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 512 }}
  inputs:
    - name: video
      placeholder: <video>
      encoder: {root}/configs/encoders/cosine-48.yaml
      frames: {{ kind: uniform, count: 2 }}
      crop: {{ kind: squash }}
      projector: {{ kind: linear, tokens: 2, standardise: true }}
    - name: audio
      placeholder: <audio>
      encoder: {root}/configs/encoders/mfcc.yaml
      projector: {{ kind: mean_pool, hidden: 16, statistics: true, standardise: true }}
  fusions:
    - name: multi
      sources: [video, audio]
      fusion: {{ kind: cross_modal, dim: 8, heads: 2, layers: 1, self_layers: 1, standardise: true }}
data:
  manifest: data/manifest.jsonl
  tasks: {{ describe: 1.0 }}
train:
  steps: {steps}
  batch_size: 4
  learning_rate: {{ decoder: 1.0e-3, projectors: 1.0e-3, fusions: 1.0e-3 }}
  warmup: 3
  loss: {{ class_weight: 0.0 }}
evaluation: {{ every: 5, metric: loss }}
run: {{ log_every: 1, save_every: 5 }}
"
    )
}

/// Adapters with dropout, projectors and a head on the frozen decoder of `runs/stage1`, samples grouped by length.
pub(crate) fn stage2(steps: u64) -> String {
    let root = root().display();
    format!(
        "name: stage2
seed: 7
init_from: runs/stage1
labels: {root}/configs/labels/synth-6.yaml
model:
  lora: {{ r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: [q_proj, v_proj, down_proj] }}
  head: {{ hidden: 8 }}
data:
  manifest: data/manifest.jsonl
  tasks: {{ emotion: 1.0, reason: 1.0 }}
train:
  steps: {steps}
  batch_size: 4
  accumulate: 2
  batching: grouped
  learning_rate: {{ lora: 2.0e-3, projectors: 1.0e-3, fusions: 1.0e-3, head: 2.0e-3 }}
  warmup: 3
  loss: {{ class_weight: 0.5 }}
evaluation: {{ every: 5, metric: loss, max_new_tokens: 8 }}
run: {{ log_every: 1, save_every: 4 }}
"
    )
}

/// Every objective at once, with what only they have: a fusion that the class head reads, a schedule, label weights.
pub(crate) fn objectives(steps: u64) -> String {
    let stage1 = stage1(steps)
        .replace("name: stage1", "name: objectives")
        .replace(
            "tasks: { describe: 1.0 }",
            "tasks: { emotion: 1.0, describe: 1.0 }",
        )
        .replace("fusions: 1.0e-3 }", "fusions: 1.0e-3, head: 1.0e-3 }")
        .replace(
            "data:\n",
            "    - name: fused
      sources: [video, audio, transcript]
      fusion: { kind: cross_modal, dim: 8, heads: 2, layers: 1, self_layers: 1, standardise: true }
  head: { hidden: 8, reads: fused }
  valence: { hidden: 0 }
  alignment: { dim: 6 }
data:
",
        )
        .replace(
            "loss: { class_weight: 0.0 }",
            "loss:
    class_weight: 0.5
    label_weights: balanced
    focal_gamma: 1.0
    valence: { mse: 1.0, ccc: 0.5 }
    contrastive_weight: [[0, 0.2], [6, 1.0]]
    masked_weight: 0.5
    mask_share: 0.3",
        )
        .replace("metric: loss }", "metric: loss, max_new_tokens: 4 }")
        .replace("save_every: 5", "save_every: 2");
    format!(
        "labels: {}/configs/labels/synth-6.yaml\n{stage1}",
        root().display()
    )
}

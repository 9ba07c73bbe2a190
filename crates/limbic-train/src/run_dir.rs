//! The layout of a run's folder:
//!
//! ```text
//! recipe.yaml        the resolved recipe
//! run.json           versions and hashes; the result, once there is one
//! metrics.jsonl      one line a log interval and an evaluation
//! tensorboard/       the same for TensorBoard
//! quarantine.jsonl   clips that could not be used
//! checkpoints/       step-00000500/ ..., best/
//! final/             the artifact, once the run is finished
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use limbic_weights::hex_digest;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{Recipe, RunError};

/// A run's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

/// What a run was started with and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// Version of the program that started it.
    pub limbic: String,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// SHA-256 of the artifact it started from, by its own manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
    /// What the decoder's weights are held in, `f32` or `bf16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Steps done.
    pub step: u64,
    /// The step whose values became the artifact.
    pub artifact_step: u64,
    /// SHA-256 of all trained values after the last step.
    pub trainables_sha256: String,
    /// SHA-256 of the optimizer's state after the last step.
    pub optimizer_sha256: String,
    /// SHA-256 of all weights that were not trained, the same before and after.
    pub frozen_sha256: String,
    /// Steps that were skipped because their gradient was not finite.
    pub skipped: u64,
}

impl RunFile {
    /// What `recipe` would start with now, without the precision, which is a matter of the devices, too.
    ///
    /// # Errors
    /// A manifest or start artifact that is not there.
    pub fn of(recipe: &Recipe) -> anyhow::Result<Self> {
        let digest = |path: &Path| -> anyhow::Result<String> {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            Ok(hex_digest(&bytes))
        };
        let init = start_folder(recipe)?;
        Ok(Self {
            limbic: env!("CARGO_PKG_VERSION").to_string(),
            manifest_sha256: digest(&recipe.data.manifest)?,
            init_sha256: init
                .map(|folder| digest(&folder.join("MANIFEST.json")))
                .transpose()?,
            precision: None,
            result: None,
        })
    }
}

impl RunDir {
    /// The folder of `recipe`'s run.
    pub fn of(recipe: &Recipe) -> Self {
        Self {
            root: recipe.run.directory.join(&recipe.name),
        }
    }

    /// An existing run by folder, or by name below `runs`.
    ///
    /// # Errors
    /// No run there.
    pub fn find(run: &Path) -> anyhow::Result<Self> {
        let below = Path::new("runs").join(run);
        for root in [run.to_path_buf(), below.clone()] {
            if root.join("recipe.yaml").is_file() {
                return Ok(Self { root });
            }
        }
        Err(RunError::recipe(format!(
            "no run at {} or {}: wanted a folder that `limbic train` made, with a recipe.yaml in it",
            run.display(),
            below.display()
        )))
    }

    /// Deletes the run, if there is one.
    ///
    /// # Errors
    /// The folder holds something else than a run, or cannot be deleted.
    pub fn delete(&self) -> anyhow::Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        if !self.exists() {
            return Err(RunError::recipe(format!(
                "{} is not a run (it holds no recipe.yaml), so it is not deleted; give the run another name",
                self.root.display()
            )));
        }
        std::fs::remove_dir_all(&self.root)
            .with_context(|| format!("cannot delete {}", self.root.display()))
    }

    /// Whether the run has its result, and the artifact is whole.
    pub fn is_finished(&self) -> bool {
        self.exists()
            && self.read_run_file().is_ok_and(|file| file.result.is_some())
            && limbic_model::verify_directory(&self.path("final")).is_ok()
    }

    /// Keeps other processes from training the same run, as long as the result lives.
    ///
    /// # Errors
    /// Another process trains it.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.path(".lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        if file.try_lock().is_err() {
            return Err(RunError::recipe(format!(
                "another process is training {}; wait for it, or give this run another name (name=...)",
                self.root.display()
            )));
        }
        Ok(file)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether the run was ever started.
    pub fn exists(&self) -> bool {
        self.path("recipe.yaml").is_file()
    }

    /// Starts the folder for `recipe`, or checks that it is the one the run was started with.
    ///
    /// # Errors
    /// Another recipe, manifest, start artifact or precision than the run's.
    pub fn open(&self, recipe: &Recipe, file: &RunFile) -> anyhow::Result<()> {
        let path = self.path("recipe.yaml");
        let yaml = serde_yaml::to_string(recipe)?;
        if !self.exists() {
            std::fs::create_dir_all(&self.root)
                .with_context(|| format!("cannot make the run's folder {}", self.root.display()))?;
            self.write_file("run.json", &(serde_json::to_string_pretty(file)? + "\n"))?;
            return self.write_file("recipe.yaml", &yaml);
        }
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut differences = Vec::new();
        let [mut old, mut new]: [Value; 2] =
            [serde_yaml::from_str(&text)?, serde_yaml::from_str(&yaml)?];
        for side in [&mut old, &mut new] {
            // Where features are kept changes nothing that comes out.
            if let Some(keys) = side.as_mapping_mut() {
                keys.remove("cache");
            }
        }
        compare("", &old, &new, &mut differences);
        let before = self.read_run_file()?;
        if before.manifest_sha256 != file.manifest_sha256 {
            differences.push(format!("the content of {}", recipe.data.manifest.display()));
        }
        if before.init_sha256 != file.init_sha256 {
            differences.push("the artifact that `init_from` names".into());
        }
        if differences.is_empty() {
            return match (&before.precision, &file.precision) {
                (Some(before), Some(now)) if before != now => Err(RunError::recipe(format!(
                    "the run {} was started with the decoder's weights held in {before}, and `train.precision` means \
                     {now} on these devices; go on with it on such as it was started on, give this one another name \
                     (name=...), or start over with --restart, which deletes the run",
                    self.root.display()
                ))),
                _ => Ok(()),
            };
        }
        Err(RunError::recipe(format!(
            "the run {} was started with another recipe; changed since: {}. Give this one another name (name=...), \
             or start over with --restart, which deletes the run",
            self.root.display(),
            differences.join(", ")
        )))
    }

    /// `run.json`.
    ///
    /// # Errors
    /// Unreadable.
    pub fn read_run_file(&self) -> anyhow::Result<RunFile> {
        let path = self.path("run.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The recipe the run was started with.
    ///
    /// # Errors
    /// Unreadable, or written by another version.
    pub fn read_recipe(&self) -> anyhow::Result<Recipe> {
        crate::read_recipe(&self.path("recipe.yaml"), &[])
    }

    /// Writes a small file whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write_file(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        limbic_weights::write_whole(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The artifact that `init_from` names: the folder itself, or `final` of a finished run.
///
/// # Errors
/// Neither is there.
pub(crate) fn start_folder(recipe: &Recipe) -> anyhow::Result<Option<PathBuf>> {
    let Some(named) = &recipe.init_from else {
        return Ok(None);
    };
    let finished = named.join("final");
    if finished.is_dir() {
        return Ok(Some(finished));
    }
    if named.join("mm").is_dir() {
        return Ok(Some(named.clone()));
    }
    let why = if named.join("recipe.yaml").is_file() {
        "that run is not finished; train it to its end first"
    } else {
        "there is no run or artifact there; train it first, for example `limbic train recipes/quickstart/stage1.yaml`"
    };
    Err(RunError::recipe(format!(
        "`init_from` names {}: {why}",
        named.display()
    )))
}

fn compare(key: &str, old: &Value, new: &Value, differences: &mut Vec<String>) {
    if let (Value::Mapping(old), Value::Mapping(new)) = (old, new) {
        let mut keys: Vec<&str> = old
            .keys()
            .chain(new.keys())
            .filter_map(Value::as_str)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        for name in keys {
            let full = if key.is_empty() {
                name.to_string()
            } else {
                format!("{key}.{name}")
            };
            let of = |side: &serde_yaml::Mapping| side.get(name).cloned().unwrap_or(Value::Null);
            compare(&full, &of(old), &of(new), differences);
        }
    } else if old != new {
        differences.push(format!("`{key}`"));
    }
}

//! All that a run needs to go on as if it had not been interrupted: trained values, optimizer state, and where it stands.
//! The order of samples, dropout and the schedule follow from the step.

use std::path::{Path, PathBuf};

use anyhow::Context;
use limbic_model::{recover_directory, verify_directory, write_directory};
use limbic_weights::Weights;
use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done, skipped ones included.
    pub step: u64,
    /// Updates of the optimizer.
    pub updates: u64,
    /// Steps skipped because their gradient was not finite.
    pub skipped: u64,
    /// Of these, the last ones without a good one between.
    pub skipped_in_row: u64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub since_best: u64,
}

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps done.
    pub step: u64,
    /// The metric, more being better.
    pub merit: f64,
}

/// A saved state.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Where the run stood.
    pub progress: Progress,
    /// Trained values by name.
    pub trainables: Weights,
    /// The optimizer's state.
    pub optimizer: Weights,
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

const TRAINABLES: &str = "trainables.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

impl Checkpoints {
    /// Checkpoints in `folder`, of which the last `keep` stay.
    pub fn new(folder: PathBuf, keep: usize) -> Self {
        Self { folder, keep }
    }

    /// Saves, and then deletes checkpoints that are too old. Returns where it lies.
    ///
    /// # Errors
    /// When the file system refuses; what was saved before is then untouched.
    pub fn save(&self, checkpoint: &Checkpoint) -> anyhow::Result<PathBuf> {
        let target = self
            .folder
            .join(format!("step-{:08}", checkpoint.progress.step));
        // What a step leaves is a function of the run: a whole checkpoint of it is not replaced, since a crash between
        // the two renames could then take the only one away.
        if verify_directory(&target).is_err() {
            write_directory(&target, |folder| -> anyhow::Result<()> {
                checkpoint.trainables.write(&folder.join(TRAINABLES))?;
                checkpoint.optimizer.write(&folder.join(OPTIMIZER))?;
                write_state(folder, &checkpoint.progress)
            })
            .with_context(|| format!("cannot save the checkpoint {}", target.display()))?;
            verify_directory(&target)?;
        }
        // Later ones are damaged leftovers, which are replaced once their step is reached again.
        let mut steps = self.steps()?;
        steps.retain(|step| *step <= target);
        for step in &steps[..steps.len().saturating_sub(self.keep)] {
            std::fs::remove_dir_all(step).with_context(|| step.display().to_string())?;
        }
        Ok(target)
    }

    /// Saves the values of the best evaluation so far.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save_best(&self, trainables: &Weights, progress: &Progress) -> anyhow::Result<()> {
        write_directory(&self.folder.join("best"), |folder| -> anyhow::Result<()> {
            trainables.write(&folder.join(TRAINABLES))?;
            write_state(folder, progress)
        })
    }

    /// The values of the best evaluation, which `best` says it was.
    ///
    /// # Errors
    /// Absent, damaged, or of another evaluation.
    pub fn best(&self, best: Best) -> anyhow::Result<Weights> {
        let folder = self.folder.join("best");
        recover_directory(&folder)?;
        verify_directory(&folder).context("the best values are lost; start over with --restart")?;
        let saved = read_state(&folder)?.step;
        anyhow::ensure!(
            saved == best.step,
            "{} holds step {saved}, but the best evaluation was that of step {}",
            folder.display(),
            best.step
        );
        Ok(Weights::read(&folder.join(TRAINABLES))?)
    }

    /// The newest checkpoint that is whole, where it lies, and the damaged ones that were passed over; `None` if there
    /// never was one.
    ///
    /// # Errors
    /// When there are checkpoints, but none is whole: starting over silently would throw the run away.
    pub fn latest(&self) -> anyhow::Result<Option<(Checkpoint, PathBuf, Vec<String>)>> {
        let mut damaged = Vec::new();
        for folder in self.steps()?.into_iter().rev() {
            match read(&folder) {
                Ok(checkpoint) => return Ok(Some((checkpoint, folder, damaged))),
                Err(error) => damaged.push(format!("{error:#}")),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        anyhow::bail!(
            "no checkpoint in {} is whole; repair one, or start over with --restart:\n  {}",
            self.folder.display(),
            damaged.join("\n  ")
        )
    }

    /// Folders of the checkpoints, oldest first.
    fn steps(&self) -> anyhow::Result<Vec<PathBuf>> {
        if !self.folder.is_dir() {
            std::fs::create_dir_all(&self.folder)
                .with_context(|| self.folder.display().to_string())?;
        }
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_step = |name: &str| name.starts_with("step-");
            if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_step)
            {
                steps.push(path);
            }
        }
        steps.sort();
        Ok(steps)
    }
}

fn read(folder: &Path) -> anyhow::Result<Checkpoint> {
    verify_directory(folder)?;
    Ok(Checkpoint {
        progress: read_state(folder)?,
        trainables: Weights::read(&folder.join(TRAINABLES))?,
        optimizer: Weights::read(&folder.join(OPTIMIZER))?,
    })
}

fn read_state(folder: &Path) -> anyhow::Result<Progress> {
    let path = folder.join(STATE);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn write_state(folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    let path = folder.join(STATE);
    std::fs::write(&path, serde_json::to_string_pretty(progress)? + "\n")
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbic_weights::NamedTensor;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensor = NamedTensor {
            shape: vec![2],
            values: vec![step as f32, 0.5],
        };
        let weights = Weights {
            tensors: [("w".to_string(), tensor)].into(),
        };
        Checkpoint {
            progress: Progress {
                step,
                ..Progress::default()
            },
            trainables: weights.clone(),
            optimizer: weights,
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(root.path().join("c"), 2);
        assert!(checkpoints.latest().unwrap().is_none());
        for step in [5, 10, 15] {
            checkpoints.save(&checkpoint(step)).unwrap();
        }
        let (latest, folder, damaged) = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.progress.step, damaged.len()), (15, 0));
        assert_eq!(latest.trainables, checkpoint(15).trainables);
        assert!(!root.path().join("c/step-00000005").exists());

        std::fs::write(folder.join(TRAINABLES), "x").unwrap();
        let (latest, _, damaged) = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.progress.step, damaged.len()), (10, 1));

        // Saved again, the damaged one is replaced, and a whole one left as it is.
        checkpoints.save(&checkpoint(15)).unwrap();
        assert_eq!(checkpoints.latest().unwrap().unwrap().0.progress.step, 15);
        let whole = root.path().join("c/step-00000015").join(STATE);
        let written = || std::fs::metadata(&whole).unwrap().modified().unwrap();
        let before = written();
        checkpoints.save(&checkpoint(15)).unwrap();
        assert_eq!(written(), before);
        std::fs::write(folder.join(TRAINABLES), "x").unwrap();

        std::fs::remove_file(root.path().join("c/step-00000010").join(STATE)).unwrap();
        let message = checkpoints.latest().unwrap_err().to_string();
        assert!(message.contains("--restart"), "{message}");
    }

    #[test]
    fn a_damaged_later_checkpoint_does_not_cost_an_earlier_one() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(root.path().join("c"), 1);
        checkpoints.save(&checkpoint(20)).unwrap();
        let late = checkpoints.save(&checkpoint(30)).unwrap();
        std::fs::write(late.join(TRAINABLES), "x").unwrap();
        checkpoints.save(&checkpoint(25)).unwrap();
        let (latest, _, damaged) = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.progress.step, damaged.len()), (25, 1));
    }

    #[test]
    fn the_best_values_are_those_of_the_best_evaluation() {
        let root = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(root.path().to_path_buf(), 1);
        let Checkpoint {
            progress,
            trainables,
            ..
        } = checkpoint(10);
        checkpoints.save_best(&trainables, &progress).unwrap();
        let best = |step| checkpoints.best(Best { step, merit: 0.5 });
        assert_eq!(best(10).unwrap(), trainables);
        assert!(best(20).unwrap_err().to_string().contains("step 10"));
    }
}

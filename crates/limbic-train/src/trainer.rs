//! The loop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use limbic_llama::Sampling;
use limbic_model::{Alignment, Part, Trainables, write_directory};
use limbic_weights::{CounterRng, ParameterTable, Precision, TensorDigest};

use crate::ahead::Ahead;
use crate::batching::Shards;
use crate::checkpoint::{Best, Checkpoint, Checkpoints, Progress};
use crate::dataset::hold_drawn;
use crate::evaluate::{Evaluation, Evaluator};
use crate::log::{Logger, Say, StepRecord};
use crate::optimizer::{AdamW, clip, schedule};
use crate::plan::Calibration;
use crate::replicas::{Replicas, StepGradient};
use crate::run_dir::{RunFile, RunResult};
use crate::setup::Setup;
use crate::stored::Held;
use crate::terms::{LossMeans, Term};
use crate::{Recipe, RunDir, RunError};

/// How a run is started.
pub struct Start<'a> {
    /// Where it runs.
    pub devices: &'a [Device],
    /// Whether the devices are one CPU as often as it has cores, and fewer replicas on more threads may be faster.
    pub calibrates: bool,
    /// What frozen weights are best held in there.
    pub suits: Precision,
    /// Whether what the run has done so far is thrown away, once the new one is known to be possible.
    pub restart: bool,
    /// Set from outside to have the run saved and ended.
    pub stop: &'a AtomicBool,
    /// Receives lines for people.
    pub say: &'a Say,
}

/// Trains the run that `recipe` describes, from its last checkpoint if there is one, until its end or until it is stopped.
///
/// # Errors
/// Whatever makes the run impossible, [`RunError::Interrupted`] when it was stopped, [`RunError::Diverged`].
pub fn train(recipe: Recipe, start: &Start) -> anyhow::Result<RunDir> {
    let run_dir = RunDir::of(&recipe);
    if !start.restart && run_dir.is_finished() {
        // Without its data nothing can have changed that matters to a finished run.
        if let Ok(now) = RunFile::of(&recipe) {
            run_dir.open(&recipe, &now)?;
        }
        (start.say)(&format!(
            "{} is finished; its artifact is {}",
            run_dir.root().display(),
            run_dir.path("final").display()
        ));
        return Ok(run_dir);
    }
    let setup = Setup::new(recipe, start)?;
    Trainer::start(setup, start)?.run(start.stop)
}

struct Trainer<'a> {
    setup: Setup,
    replicas: Replicas,
    /// While plans are tried.
    calibration: Option<Calibration>,
    checkpoints: Checkpoints,
    optimizer: AdamW,
    /// The trained values, as one vector.
    values: Tensor<1>,
    progress: Progress,
    /// SHA-256 of all that is not trained, as it was at the start.
    frozen_sha256: String,
    log: Logger<'a>,
}

/// A step whose features are in memory.
struct Ready<'a> {
    shards: Shards<'a>,
    _held: Held,
}

impl<'a> Trainer<'a> {
    fn start(setup: Setup, start: &Start<'a>) -> anyhow::Result<Self> {
        let (devices, say) = (start.devices, start.say);
        let recipe = &setup.recipe;
        let shards = recipe.train.shards * recipe.train.accumulate;
        for line in describe(&setup, busy(devices, recipe).len()) {
            say(&line);
        }
        let mut values = setup.trainables.gather(&setup.artifact.model);
        let mut optimizer = AdamW::new(&recipe.train, &setup.trainables, &values);
        let mut progress = Progress::default();
        let checkpoints = Checkpoints::new(setup.run_dir.path("checkpoints"), recipe.run.keep);
        match checkpoints.latest()? {
            None => say(&format!(
                "starting {} at step 0",
                setup.run_dir.root().display()
            )),
            Some((checkpoint, folder, damaged)) => {
                for problem in damaged {
                    say(&format!("passed over a damaged checkpoint: {problem}"));
                }
                progress = checkpoint.progress;
                values = setup
                    .trainables
                    .from_weights(&setup.artifact.model, &checkpoint.trainables)?;
                optimizer.restore(&checkpoint.optimizer, progress.updates)?;
                let (epoch, sample) = setup
                    .train
                    .position(progress.step * samples_per_step(recipe) as u64);
                say(&format!(
                    "resuming at step {}, epoch {epoch}, sample {sample} from {}",
                    progress.step,
                    folder.display()
                ));
            }
        }
        let calibration = start
            .calibrates
            .then(|| Calibration::new(devices.len(), shards))
            .flatten();
        Ok(Self {
            calibration,
            replicas: Replicas::new(&setup.artifact.model, busy(devices, recipe))?
                .recomputing(recipe.train.recompute),
            log: Logger::open(setup.run_dir.root(), progress.step, recipe.train.steps, say)?,
            checkpoints,
            frozen_sha256: frozen_sha256(&setup),
            optimizer,
            values,
            progress,
            setup,
        })
    }

    fn run(mut self, stop: &AtomicBool) -> anyhow::Result<RunDir> {
        let train = Arc::clone(&self.setup.train);
        let recipe = &self.setup.recipe.train;
        let samples = samples_per_step(&self.setup.recipe);
        let (count, batching) = (recipe.shards * recipe.accumulate, recipe.batching);
        let steps = self.progress.step..recipe.steps;
        let prepare = |step: u64| {
            let drawn = train.draw(step * samples as u64, samples)?;
            let held = hold_drawn(&drawn)?;
            let shards = Shards::cut(drawn, count, batching);
            Ok(Ready {
                shards,
                _held: held,
            })
        };
        std::thread::scope(|scope| self.run_steps(&Ahead::start(scope, steps, prepare), stop))?;
        self.save()?;
        self.finish()
    }

    fn run_steps(&mut self, ahead: &Ahead<Ready>, stop: &AtomicBool) -> anyhow::Result<()> {
        while self.progress.step < self.setup.recipe.train.steps && !self.is_out_of_patience() {
            let ready = match self.log.waiting(|| ahead.next()) {
                Ok(ready) => ready,
                Err(error) => {
                    // What was learnt so far does not suffer from a file that went missing.
                    self.save()?;
                    return Err(error);
                }
            };
            self.step(&ready.shards)?;
            let every = self.setup.recipe.evaluation.every;
            if self.is_due(every) || every > 0 && self.is_last() {
                self.evaluate()?;
            }
            if self.is_due(self.setup.recipe.run.save_every) {
                self.save()?;
            }
            if stop.load(Ordering::Relaxed) {
                let checkpoint = self.save()?;
                self.log.finish();
                let step = self.progress.step;
                return Err(RunError::Interrupted { step, checkpoint }.into());
            }
        }
        Ok(())
    }

    fn step(&mut self, shards: &Shards) -> anyhow::Result<()> {
        let recipe = &self.setup.recipe;
        let step = self.progress.step;
        let dropout = CounterRng::new(recipe.seed).site("dropout").index(step);
        let objectives = &self.setup.objectives;
        let began = Instant::now();
        let found = self.replicas.gradient(
            &self.setup.trainables,
            &self.values,
            shards,
            objectives,
            step,
            dropout,
        );
        let (sums, norm) = found.read();
        let StepGradient {
            gradient,
            took_part,
            divisors,
            positions,
            slots,
            ..
        } = found;
        if let Some(calibration) = &mut self.calibration {
            let before = calibration.plan();
            let found = calibration.record(slots as f64 / began.elapsed().as_secs_f64());
            let plan = calibration.plan();
            if plan != before {
                self.replicas.adopt(plan)?;
            }
            if let Some(found) = found {
                self.log.say(&found);
                self.calibration = None;
            }
        }

        let weights = objectives.weights(step);
        let loss = LossMeans::new(objectives.active(), &sums, &divisors, &weights);
        let rate = schedule(&recipe.train, step);
        self.progress.step += 1;
        if norm.is_finite() && loss.total.is_finite() {
            let gradient = clip(gradient, norm, recipe.train.clip_norm);
            let values = self
                .optimizer
                .step(self.values.clone(), gradient, &took_part, rate);
            self.values = held(values, &self.setup.trainables);
            self.progress.updates = self.optimizer.updates();
            self.progress.skipped_in_row = 0;
        } else {
            return self.skip(norm, loss.total);
        }
        let told = [Term::Lm, Term::Masked].into_iter();
        let told = told.filter(|term| objectives.is_active(*term));
        let tokens = told.map(|term| divisors[term] as usize).sum();
        self.record(loss, rate, norm, tokens, [positions, slots])
    }

    fn record(
        &mut self,
        loss: LossMeans,
        rate: f64,
        norm: f64,
        tokens: usize,
        [positions, slots]: [usize; 2],
    ) -> anyhow::Result<()> {
        let recipe = &self.setup.recipe;
        let samples = samples_per_step(recipe);
        let rates = recipe.train.learning_rate.values();
        let record = StepRecord {
            step: self.progress.step,
            epoch: (self.progress.step * samples as u64) as f64 / self.setup.train.len() as f64,
            loss,
            learning_rate: rates.fold(0.0f64, |a, b| a.max(*b)) * rate,
            grad_norm: norm,
            samples,
            tokens,
            positions,
            slots,
        };
        let due = self.is_due(recipe.run.log_every) || self.is_last();
        self.log.step(&record, due)?;
        if due {
            self.tell_of_cache();
        }
        Ok(())
    }

    /// Says what went wrong with features on call since this was last done.
    fn tell_of_cache(&self) {
        let report = self.setup.cache.as_ref().map(|cache| cache.report());
        for problem in report.unwrap_or_default().problems() {
            self.log.say(&problem);
        }
    }

    fn skip(&mut self, norm: f64, loss: f64) -> anyhow::Result<()> {
        let allowed = self.setup.recipe.train.max_skipped;
        self.progress.skipped += 1;
        self.progress.skipped_in_row += 1;
        self.log.say(&format!(
            "step {} is skipped: its loss is {loss}, its gradient has norm {norm}",
            self.progress.step
        ));
        if self.progress.skipped_in_row <= allowed {
            return Ok(());
        }
        Err(RunError::Diverged(format!(
            "{} steps in a row had no finite loss and gradient, the last of them step {}; `train.max_skipped` allows {allowed}. \
             Lower `train.learning_rate` or raise `train.warmup`; the last good checkpoint is in {}",
            self.progress.skipped_in_row,
            self.progress.step,
            self.setup.run_dir.path("checkpoints").display()
        ))
        .into())
    }

    fn evaluate(&mut self) -> anyhow::Result<()> {
        let Self {
            setup,
            replicas,
            values,
            progress,
            log,
            checkpoints,
            ..
        } = self;
        log.off_the_clock(|log| {
            let evaluator = Evaluator {
                replicas,
                values: Some((&setup.trainables, values)),
                labels: setup.artifact.config.labels.as_ref(),
                mute: setup.artifact.config.mute,
                recipe: &setup.recipe.evaluation,
                sampling: &Sampling::GREEDY,
            };
            // Scheduled weights change what a loss means; those of the last step make all evaluations comparable.
            let last = setup.recipe.train.steps.saturating_sub(1);
            let evaluation =
                evaluator.evaluate(&setup.validation, &setup.tasks(), &setup.objectives, last)?;
            log.evaluation(progress.step, &summary(&evaluation))?;
            let merit = evaluation.merit(setup.recipe.evaluation.metric)?;
            if progress.best.is_none_or(|best| merit > best.merit) {
                progress.best = Some(Best {
                    step: progress.step,
                    merit,
                });
                progress.since_best = 0;
                let weights = setup.trainables.to_weights(&setup.artifact.model, values);
                checkpoints.save_best(&weights, progress)?;
            } else {
                progress.since_best += 1;
            }
            Ok(())
        })
    }

    fn save(&mut self) -> anyhow::Result<PathBuf> {
        self.tell_of_cache();
        let Self {
            setup,
            optimizer,
            values,
            progress,
            log,
            checkpoints,
            ..
        } = self;
        log.off_the_clock(|_| {
            checkpoints.save(&Checkpoint {
                progress: progress.clone(),
                trainables: setup.trainables.to_weights(&setup.artifact.model, values),
                optimizer: optimizer.to_weights(),
            })
        })
    }

    /// Writes the artifact of the best values, or of the last ones where nothing was evaluated.
    fn finish(mut self) -> anyhow::Result<RunDir> {
        self.log.finish();
        let setup = &mut self.setup;
        let last = setup
            .trainables
            .to_weights(&setup.artifact.model, &self.values);
        let (artifact_step, values) = match self.progress.best {
            None => (self.progress.step, self.values.clone()),
            Some(best) => {
                let weights = self.checkpoints.best(best)?;
                (
                    best.step,
                    setup
                        .trainables
                        .from_weights(&setup.artifact.model, &weights)?,
                )
            }
        };
        setup.artifact.model = setup
            .trainables
            .scatter_plain(setup.artifact.model.clone(), &values);
        let frozen_sha256 = frozen_sha256(setup);
        anyhow::ensure!(
            frozen_sha256 == self.frozen_sha256,
            "frozen weights changed while training, from {} to {frozen_sha256}; the artifact was not written",
            self.frozen_sha256
        );
        let mut file = setup.run_dir.read_run_file()?;
        let result = RunResult {
            step: self.progress.step,
            artifact_step,
            trainables_sha256: last.sha256(),
            optimizer_sha256: self.optimizer.to_weights().sha256(),
            frozen_sha256,
            skipped: self.progress.skipped,
        };
        self.log.say(&format!(
            "finished at step {}; trained values sha256 {}, optimizer state sha256 {}",
            result.step, result.trainables_sha256, result.optimizer_sha256
        ));
        file.result = Some(result);
        setup
            .run_dir
            .write_file("run.json", &(serde_json::to_string_pretty(&file)? + "\n"))?;
        let target = setup.run_dir.path("final");
        write_directory(&target, |folder| setup.artifact.write(folder, &target))?;
        self.log.say(&format!(
            "the artifact of step {artifact_step} is {}",
            target.display()
        ));
        Ok(self.setup.run_dir)
    }

    fn is_due(&self, every: u64) -> bool {
        every > 0 && self.progress.step.is_multiple_of(every)
    }

    fn is_last(&self) -> bool {
        self.progress.step == self.setup.recipe.train.steps
    }

    fn is_out_of_patience(&self) -> bool {
        let patience = self.setup.recipe.evaluation.patience;
        patience > 0 && self.progress.since_best >= patience
    }
}

/// `values` with the temperature of contrast held where CLIP holds it, after an update: a slope may still lead back.
pub(crate) fn held(values: Tensor<1>, trainables: &Trainables) -> Tensor<1> {
    let place = trainables
        .parameters()
        .find(|(name, ..)| *name == Alignment::LOG_SCALE);
    match place {
        None => values,
        Some((_, _, range)) => {
            let scale = values.clone().slice([range.clone()]);
            let scale = scale.clamp_max(Alignment::MAX_LOG_SCALE);
            values.slice_assign([range], scale)
        }
    }
}

/// The devices that get a shard in every step.
fn busy<'a>(devices: &'a [Device], recipe: &Recipe) -> &'a [Device] {
    &devices[..devices
        .len()
        .min(recipe.train.shards * recipe.train.accumulate)]
}

fn samples_per_step(recipe: &Recipe) -> usize {
    recipe.train.batch_size * recipe.train.accumulate
}

fn frozen_sha256(setup: &Setup) -> String {
    let frozen = |name: &str| !setup.trainables.contains(name);
    TensorDigest::of_module(&setup.artifact.model, frozen).finish()
}

/// Names and values of an evaluation, for the log.
fn summary(evaluation: &Evaluation) -> BTreeMap<&'static str, f64> {
    let mut values = BTreeMap::from([("loss", evaluation.loss.total)]);
    values.extend(
        evaluation
            .loss
            .terms
            .iter()
            .map(|(term, mean)| (term.metric(), *mean)),
    );
    if let Some(text) = &evaluation.text {
        values.extend([
            ("text_accuracy", text.accuracy),
            ("text_uar", text.uar),
            ("text_unparsed", text.unparsed_rate),
        ]);
    }
    if let Some(head) = &evaluation.head {
        values.extend([("head_accuracy", head.accuracy), ("head_uar", head.uar)]);
    }
    if let Some(valence) = &evaluation.valence {
        values.extend([
            ("valence_mse", valence.mse),
            ("valence_mae", valence.mae),
            ("valence_pearson", valence.pearson),
            ("valence_ccc", valence.ccc),
        ]);
    }
    if let Some(retrieval) = evaluation.retrieval {
        values.insert("retrieval", retrieval);
    }
    values
}

/// What is about to happen, for people.
fn describe(setup: &Setup, devices: usize) -> Vec<String> {
    let recipe = &setup.recipe;
    let trained = |name: &str| setup.trainables.contains(name);
    let table = ParameterTable::of(&setup.artifact.model, trained);
    let mut lines = vec![table.line()];
    for part in [
        Part::Decoder,
        Part::Lora,
        Part::Projectors,
        Part::Fusions,
        Part::Head,
    ] {
        if let Some(rate) = recipe.train.learning_rate.get(&part) {
            lines.push(format!(
                "  {:<11} {:>11}  learning rate {rate:e}{}",
                format!("{part:?}").to_lowercase(),
                setup.trainables.num_values_of(part),
                if part == Part::Lora && recipe.train.lora_plus != 1.0 {
                    format!(", of second factors {:e}", rate * recipe.train.lora_plus)
                } else {
                    String::new()
                }
            ));
        }
    }
    let losses: Vec<&str> = setup
        .objectives
        .active()
        .iter()
        .map(|term| term.name())
        .collect();
    lines.push(format!("losses: {}", losses.join(", ")));
    let samples = samples_per_step(recipe);
    lines.push(format!(
        "{} steps of {samples} samples ({} x {} accumulated) on {devices} device(s), {:.1} epochs of {} samples",
        recipe.train.steps,
        recipe.train.batch_size,
        recipe.train.accumulate,
        (recipe.train.steps * samples as u64) as f64 / setup.train.len() as f64,
        setup.train.len()
    ));
    lines
}

//! What a run tells: a bar on a terminal and plain lines otherwise, metrics.jsonl, TensorBoard. The only place that
//! looks at the clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tensorboard_rs::summary_writer::SummaryWriter;

use crate::terms::{LossMeans, PerTerm};

/// Receives lines for people. The command line decides where they go.
pub type Say = dyn Fn(&str) + Sync;

/// Writes a run's records.
pub(crate) struct Logger<'a> {
    say: &'a Say,
    bar: Option<ProgressBar>,
    metrics: File,
    tensorboard: SummaryWriter,
    total: u64,
    window: Window,
}

/// What happened since the last log line.
struct Window {
    start: Instant,
    steps: u64,
    samples: usize,
    tokens: usize,
    positions: usize,
    slots: usize,
    /// Seconds that were spent waiting for data.
    waited: f64,
    loss: f64,
    terms: PerTerm<f64>,
}

/// One step, to be logged.
#[derive(Debug, Clone)]
pub(crate) struct StepRecord {
    /// Steps done.
    pub(crate) step: u64,
    /// Epochs done, with the share of the current one.
    pub(crate) epoch: f64,
    /// Mean losses.
    pub(crate) loss: LossMeans,
    /// Largest learning rate in force.
    pub(crate) learning_rate: f64,
    /// Norm of the gradient before clipping.
    pub(crate) grad_norm: f64,
    /// Samples of the step.
    pub(crate) samples: usize,
    /// Supervised tokens of the step.
    pub(crate) tokens: usize,
    /// Positions of the step, padding left out.
    pub(crate) positions: usize,
    /// Positions of the step, padding included.
    pub(crate) slots: usize,
}

impl Window {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            steps: 0,
            samples: 0,
            tokens: 0,
            positions: 0,
            slots: 0,
            waited: 0.0,
            loss: 0.0,
            terms: PerTerm::default(),
        }
    }
}

impl<'a> Logger<'a> {
    /// Opens the records in `folder`, of which lines after `step` are cut off: a resumed run does those steps again.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn open(folder: &Path, step: u64, total: u64, say: &'a Say) -> anyhow::Result<Self> {
        let path = folder.join("metrics.jsonl");
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => kept_lines(&text, step),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        limbic_weights::write_whole(&path, kept.as_bytes())
            .with_context(|| path.display().to_string())?;
        let metrics = File::options()
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let bar = ProgressBar::new(total);
        let bar = (!bar.is_hidden()).then(|| {
            let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_position(step)
        });
        Ok(Self {
            say,
            bar,
            metrics,
            tensorboard: SummaryWriter::new(folder.join("tensorboard")),
            total,
            window: Window::new(),
        })
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| (self.say)(line)),
            None => (self.say)(line),
        }
    }

    /// Takes in a step; writes a line if `due`.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn step(&mut self, record: &StepRecord, due: bool) -> anyhow::Result<()> {
        let window = &mut self.window;
        window.steps += 1;
        window.samples += record.samples;
        window.tokens += record.tokens;
        window.positions += record.positions;
        window.slots += record.slots;
        window.loss += record.loss.total;
        for (term, loss) in &record.loss.terms {
            window.terms[*term] += loss;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(record.step);
        }
        if !due {
            return Ok(());
        }
        let window = std::mem::replace(&mut self.window, Window::new());
        let seconds = window.start.elapsed().as_secs_f64().max(1e-9);
        let steps = window.steps as f64;
        let mut values = BTreeMap::from([
            ("loss", window.loss / steps),
            ("learning_rate", record.learning_rate),
            ("grad_norm", record.grad_norm),
            ("epoch", record.epoch),
            ("samples_per_second", window.samples as f64 / seconds),
            (
                "supervised_tokens_per_second",
                window.tokens as f64 / seconds,
            ),
            ("positions_per_second", window.positions as f64 / seconds),
            (
                "real_positions",
                window.positions as f64 / window.slots.max(1) as f64,
            ),
            ("data_wait", window.waited / steps),
        ]);
        let mut parts = Vec::new();
        for (term, _) in &record.loss.terms {
            let mean = window.terms[*term] / steps;
            parts.push(format!("{} {mean:.4}", term.name()));
            values.insert(term.metric(), mean);
        }
        let left = (self.total - record.step.min(self.total)) as f64 * seconds / steps;
        let line = format!(
            "step {}/{}  epoch {:.2}  loss {:.4} ({})  lr {:.2e}  grad norm {:.2}  {:.1} samples/s  {:.0} supervised tokens/s  data wait {:.3} s  eta {}",
            record.step,
            self.total,
            record.epoch,
            values["loss"],
            parts.join(", "),
            record.learning_rate,
            record.grad_norm,
            values["samples_per_second"],
            values["supervised_tokens_per_second"],
            values["data_wait"],
            clock(left)
        );
        match &self.bar {
            Some(bar) if record.step < self.total => bar.set_message(format!(
                "loss {:.4}  {:.1} samples/s  eta {}",
                values["loss"],
                values["samples_per_second"],
                clock(left)
            )),
            Some(bar) => bar.suspend(|| (self.say)(&line)),
            None => (self.say)(&line),
        }
        self.write("train", record.step, &values)
    }

    /// Takes in an evaluation.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn evaluation(
        &mut self,
        step: u64,
        values: &BTreeMap<&str, f64>,
    ) -> anyhow::Result<()> {
        let list: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        self.say(&format!("validation at step {step}: {}", list.join("  ")));
        self.write("validation", step, values)
    }

    /// Waits for data; the time counts as training, and is told.
    pub(crate) fn waiting<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = wait();
        self.window.waited += start.elapsed().as_secs_f64();
        result
    }

    /// Does something that is not training, and leaves its time out of the rates.
    pub(crate) fn off_the_clock<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let start = Instant::now();
        let result = work(self);
        self.window.start += start.elapsed();
        result
    }

    /// Ends the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn write(&mut self, kind: &str, step: u64, values: &BTreeMap<&str, f64>) -> anyhow::Result<()> {
        let mut line = Map::new();
        line.insert("kind".into(), json!(kind));
        line.insert("step".into(), json!(step));
        for (name, value) in values {
            line.insert(name.to_string(), json!(value));
            self.tensorboard
                .add_scalar(&format!("{kind}/{name}"), *value as f32, step as usize);
        }
        self.tensorboard.flush();
        writeln!(self.metrics, "{}", Value::Object(line)).context("cannot write metrics.jsonl")
    }
}

impl Drop for Logger<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

fn kept_lines(text: &str, step: u64) -> String {
    let is_kept = |line: &&str| {
        serde_json::from_str::<Value>(line)
            .ok()
            .and_then(|value| value["step"].as_u64())
            .is_some_and(|of_line| of_line <= step)
    };
    text.lines()
        .filter(is_kept)
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_steps_that_come_again_are_cut() {
        let text = "{\"step\":10}\n{\"step\":20}\n{\"step\":30}\n{\"ste";
        assert_eq!(kept_lines(text, 20), "{\"step\":10}\n{\"step\":20}\n");
        assert_eq!(clock(3725.4), "1:02:05");
    }
}

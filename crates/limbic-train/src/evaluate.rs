//! What a model says about a split: losses, generated answers, classes of the head, and the scores of both.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use limbic_data::{LabelSet, Task};
use limbic_eval::{Confusion, Scores, parse_answer};
use limbic_llama::{Dropout, Sampling};
use limbic_model::{Batch, EmotionLlm, Trainables};
use serde::Serialize;

use crate::RunError;
use crate::dataset::{Dataset, Drawn, Sample, with_examples};
use crate::loss::{Counts, LossMeans, LossSums, joint_loss};
use crate::recipe::{EvaluationRecipe, LossRecipe, Metric};
use crate::replicas::Replicas;

/// One clip's answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The clip.
    pub id: String,
    /// Its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<String>,
    /// The generated text.
    pub answer: String,
    /// The label in it; `None` where it names none, or several.
    pub label: Option<String>,
    /// The head's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_label: Option<String>,
    /// The head's probabilities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub probabilities: BTreeMap<String, f64>,
}

/// What a model achieves on a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean losses over all questions that have an answer.
    pub loss: LossMeans,
    /// Scores of the generated labels; `None` without labelled clips.
    pub text: Option<Scores>,
    /// Scores of the head; `None` without one.
    pub head: Option<Scores>,
}

/// The labels a model gave to labelled samples, and how right they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Scores of the generated labels.
    pub text: Scores,
    /// Scores of the head; `None` without one.
    pub head: Option<Scores>,
    /// Each sample's answer, in the manifest's order.
    pub predictions: Vec<Prediction>,
}

impl Evaluation {
    /// The value of `metric` such that more is better.
    ///
    /// # Errors
    /// A metric that this split or model cannot give.
    pub fn merit(&self, metric: Metric) -> anyhow::Result<f64> {
        let scores = |scores: &Option<Scores>, what: &str| match scores {
            Some(scores) => Ok(scores.uar),
            None => Err(crate::RunError::recipe(format!(
                "`evaluation.metric` asks for {what}, of which there is none here; choose another"
            ))),
        };
        match metric {
            Metric::Loss => Ok(-self.loss.total),
            Metric::TextUar => scores(&self.text, "generated labels of labelled validation clips"),
            Metric::HeadUar => scores(&self.head, "a class head"),
        }
    }
}

/// How and with what a split is evaluated.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    /// Where it runs.
    pub replicas: &'a Replicas,
    /// Values other than those the replicas were built with.
    pub values: Option<(&'a Trainables, &'a Tensor<1>)>,
    /// The labels.
    pub labels: Option<&'a LabelSet>,
    /// Weights of the losses.
    pub loss: &'a LossRecipe,
    /// Sizes.
    pub recipe: &'a EvaluationRecipe,
    /// How answers are generated; greedily wherever something is scored.
    pub sampling: &'a Sampling,
}

impl Evaluator<'_> {
    /// Evaluates all of `dataset`: losses on every task that a clip has an answer to, labels by the emotion task.
    ///
    /// # Errors
    /// Prompts that cannot be compiled or are too long for the decoder.
    pub fn evaluate(&self, dataset: &Dataset, tasks: &[Task]) -> anyhow::Result<Evaluation> {
        let mut questions = Vec::new();
        for sample in dataset.samples() {
            for task in tasks {
                let drawn = dataset.ask(sample, *task, true)?;
                if !drawn.compiled.answer.is_empty() {
                    questions.push(drawn);
                }
            }
        }
        let loss = self.loss(&questions);
        if !loss.total.is_finite() {
            return Err(RunError::Diverged(format!(
                "the validation loss is {}; lower `train.learning_rate` or raise `train.warmup`",
                loss.total
            ))
            .into());
        }
        let scored = match self.labels.filter(|_| tasks.contains(&Task::Emotion)) {
            Some(labels) => self.score(dataset, labels)?,
            None => None,
        };
        Ok(Evaluation {
            loss,
            text: scored.as_ref().map(|scored| scored.text.clone()),
            head: scored.and_then(|scored| scored.head),
        })
    }

    /// Scores the labels of all labelled samples; `None` if there are none.
    ///
    /// # Errors
    /// Prompts that cannot be compiled or are too long for the decoder.
    pub fn score(&self, dataset: &Dataset, labels: &LabelSet) -> anyhow::Result<Option<Scored>> {
        let samples = dataset.samples().iter();
        let labelled: Vec<&Sample> = samples.filter(|sample| sample.label.is_some()).collect();
        if labelled.is_empty() {
            return Ok(None);
        }
        let predictions = self.predict(dataset, &labelled, Task::Emotion)?;
        let truth: Vec<usize> = labelled.iter().filter_map(|sample| sample.label).collect();
        let index = |label: &Option<String>| label.as_ref().and_then(|label| labels.index(label));
        let scores = |predicted: Vec<Option<usize>>| -> anyhow::Result<Scores> {
            Ok(Scores::new(Confusion::of(
                labels.names(),
                &truth,
                &predicted,
            )?))
        };
        let has_head = predictions
            .iter()
            .all(|prediction| prediction.head_label.is_some());
        Ok(Some(Scored {
            text: scores(predictions.iter().map(|p| index(&p.label)).collect())?,
            head: if has_head {
                Some(scores(
                    predictions.iter().map(|p| index(&p.head_label)).collect(),
                )?)
            } else {
                None
            },
            predictions,
        }))
    }

    fn loss(&self, questions: &[Drawn]) -> LossMeans {
        let size = self.recipe.batch_size;
        let one = Counts {
            tokens: 1,
            labelled: 1,
        };
        let shards = self.replicas.evaluate(
            self.values,
            questions.len().div_ceil(size),
            |model, device, number| {
                let drawn = &questions[number * size..((number + 1) * size).min(questions.len())];
                let batch = with_examples(drawn, |examples| Batch::new(examples, device));
                let readout = model.forward(&batch, Dropout::OFF);
                let (_, sums) = joint_loss(readout, one, self.loss);
                (sums, batch.num_supervised, batch.num_labelled)
            },
        );
        let (mut sums, mut counts) = (LossSums::default(), Counts::default());
        for (shard, tokens, labelled) in shards {
            sums.lm += shard.lm;
            sums.class += shard.class;
            counts.tokens += tokens;
            counts.labelled += labelled;
        }
        sums.means(counts, self.loss)
    }

    /// Answers of `samples` to `task`, and the head's view of them.
    ///
    /// # Errors
    /// Prompts that cannot be compiled or are too long for the decoder.
    pub fn predict(
        &self,
        dataset: &Dataset,
        samples: &[&Sample],
        task: Task,
    ) -> anyhow::Result<Vec<Prediction>> {
        let size = self.recipe.batch_size;
        let drawn: Vec<Drawn> = samples
            .iter()
            .map(|sample| dataset.ask(sample, task, false))
            .collect::<anyhow::Result<_>>()?;
        let batches = self.replicas.evaluate(
            self.values,
            drawn.len().div_ceil(size),
            |model, device, number| {
                let first = number * size;
                let drawn = &drawn[first..(first + size).min(drawn.len())];
                self.predict_batch(model, device, dataset, drawn, first as u64)
            },
        );
        let mut predictions = Vec::with_capacity(drawn.len());
        for batch in batches {
            predictions.extend(batch?);
        }
        Ok(predictions)
    }

    fn predict_batch(
        &self,
        model: &EmotionLlm,
        device: &Device,
        dataset: &Dataset,
        drawn: &[Drawn],
        first: u64,
    ) -> anyhow::Result<Vec<Prediction>> {
        let batch = with_examples(drawn, |examples| Batch::new(examples, device));
        let lengths: Vec<usize> = drawn.iter().map(|d| d.compiled.prompt_length()).collect();
        let ids: Vec<u64> = (first..first + drawn.len() as u64).collect();
        let generations = model.generate(
            &batch,
            &lengths,
            &ids,
            self.recipe.max_new_tokens,
            self.sampling,
        )?;
        let probabilities: Option<Vec<f32>> = match model.classify(&batch) {
            Some(logits) => Some(softmax(logits, 1).into_data().try_into_vec()?),
            None => None,
        };
        let names = self.labels.map(LabelSet::names).unwrap_or_default();
        drawn
            .iter()
            .zip(generations)
            .enumerate()
            .map(|(row, (drawn, generation))| {
                let answer = dataset
                    .tokenizer()
                    .decode(&generation.tokens)?
                    .trim()
                    .to_string();
                let label = self.labels.and_then(|labels| parse_answer(&answer, labels));
                let of_row: Vec<f32> = match &probabilities {
                    Some(all) => all[row * names.len()..(row + 1) * names.len()].to_vec(),
                    None => Vec::new(),
                };
                // The first of equals, as the text's greedy choice is.
                let best =
                    (0..of_row.len()).reduce(|a, b| if of_row[b] > of_row[a] { b } else { a });
                Ok(Prediction {
                    id: drawn.sample.encoded.clip.id.clone(),
                    truth: drawn.sample.label.map(|label| names[label].to_string()),
                    answer,
                    label: label.map(|label| names[label].to_string()),
                    head_label: best.map(|label| names[label].to_string()),
                    probabilities: names
                        .iter()
                        .zip(&of_row)
                        .map(|(name, p)| (name.to_string(), f64::from(*p)))
                        .collect(),
                })
            })
            .collect()
    }
}

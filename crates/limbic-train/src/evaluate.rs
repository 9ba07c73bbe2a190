//! What a model says about a split: losses, generated answers, classes of the head, and the scores of both.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use limbic_data::{LabelSet, Task};
use limbic_eval::{Confusion, Regression, Scores, parse_answer};
use limbic_llama::Sampling;
use limbic_model::{Batch, EmotionLlm, Judgement, Layout, Trainables};
use serde::Serialize;

use crate::RunError;
use crate::dataset::{Dataset, Drawn, Sample, hold_drawn, with_examples};
use crate::losses::Losses;
use crate::objectives::Objectives;
use crate::recipe::{EvaluationRecipe, Metric};
use crate::replicas::Replicas;
use crate::terms::LossMeans;

/// One clip's answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The clip.
    pub id: String,
    /// Its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<String>,
    /// The generated text; `None` from a model that answers by its heads alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The label in it; `None` where it names none, or several.
    pub label: Option<String>,
    /// The head's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_label: Option<String>,
    /// The head's probabilities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub probabilities: BTreeMap<String, f64>,
    /// The valence head's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valence: Option<f64>,
    /// The clip's valence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_valence: Option<f64>,
}

/// What a model achieves on a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean losses over all questions that have an answer.
    pub loss: LossMeans,
    /// Scores of the generated labels; `None` without labelled clips, and from a model that generates nothing.
    pub text: Option<Scores>,
    /// Scores of the head; `None` without one.
    pub head: Option<Scores>,
    /// Of the valence head over each clip's first question; `None` without one, or without a clip that has a valence.
    pub valence: Option<Regression>,
    /// Share of clips whose nearest caption reads as their own does; `None` where no contrast is learnt.
    pub retrieval: Option<f64>,
}

/// The labels a model gave to labelled samples, and how right they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Scores of the generated labels; `None` from a model that generates nothing.
    pub text: Option<Scores>,
    /// Scores of the head; `None` without one.
    pub head: Option<Scores>,
    /// Of the valence head; `None` without one, or without a clip that has a valence.
    pub valence: Option<Regression>,
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
        let number = |value: Option<f64>, what: &str| {
            value.ok_or_else(|| {
                crate::RunError::recipe(format!(
                    "`evaluation.metric` asks for {what}, of which there is none here; choose another"
                ))
            })
        };
        match metric {
            Metric::Loss => Ok(-self.loss.total),
            Metric::ValenceCcc => number(self.valence.map(|v| v.ccc), "a valence head"),
            Metric::Retrieval => number(self.retrieval, "captions to be found"),
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
    /// Whether there are no words to be generated.
    pub mute: bool,
    /// Sizes.
    pub recipe: &'a EvaluationRecipe,
    /// How answers are generated; greedily wherever something is scored.
    pub sampling: &'a Sampling,
}

impl Evaluator<'_> {
    /// Evaluates all of `dataset`: losses on every task that a clip has an answer to, in the weights of step `step`;
    /// labels by the emotion task.
    ///
    /// # Errors
    /// Prompts that cannot be compiled or are too long for the decoder.
    pub fn evaluate(
        &self,
        dataset: &Dataset,
        tasks: &[Task],
        objectives: &Objectives,
        step: u64,
    ) -> anyhow::Result<Evaluation> {
        let Losses {
            loss,
            valence,
            retrieval,
        } = self.losses(dataset, tasks, objectives, step)?;
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
        let (text, head) = scored.map_or((None, None), |scored| (scored.text, scored.head));
        Ok(Evaluation {
            loss,
            text,
            head,
            valence,
            retrieval,
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
        let valences: Vec<(f64, f64)> = predictions
            .iter()
            .filter_map(|prediction| prediction.valence.zip(prediction.true_valence))
            .collect();
        Ok(Some(Scored {
            text: if self.mute {
                None
            } else {
                Some(scores(
                    predictions.iter().map(|p| index(&p.label)).collect(),
                )?)
            },
            valence: Regression::of(&valences),
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
        let drawn: Vec<Drawn> = samples
            .iter()
            .map(|sample| dataset.ask(sample, task, false))
            .collect::<anyhow::Result<_>>()?;
        let ids: Vec<u64> = (0..drawn.len() as u64).collect();
        self.answer(dataset, &drawn, &ids)
    }

    /// Answers to prompts compiled without answers, and the head's view of them. `ids` name their noise. Questions about
    /// one clip that stand side by side share what the decoder makes of it.
    ///
    /// # Errors
    /// Prompts that are too long for the decoder.
    pub(crate) fn answer(
        &self,
        dataset: &Dataset,
        drawn: &[Drawn],
        ids: &[u64],
    ) -> anyhow::Result<Vec<Prediction>> {
        let size = self.recipe.batch_size;
        let batches = self.replicas.evaluate(
            self.values,
            drawn.len().div_ceil(size),
            |model, device, number| {
                let batch = number * size..(number * size + size).min(drawn.len());
                self.answer_batch(model, device, dataset, &drawn[batch.clone()], &ids[batch])
            },
        );
        let mut predictions = Vec::with_capacity(drawn.len());
        for batch in batches {
            predictions.extend(batch?);
        }
        Ok(predictions)
    }

    fn answer_batch(
        &self,
        model: &EmotionLlm,
        device: &Device,
        dataset: &Dataset,
        drawn: &[Drawn],
        ids: &[u64],
    ) -> anyhow::Result<Vec<Prediction>> {
        let _held = hold_drawn(drawn)?;
        let (tokens, judgement): (Vec<Option<Vec<u32>>>, Judgement) =
            with_examples(drawn, |examples| {
                let batch = Batch::new(examples, Layout::Padded, device);
                if self.mute {
                    return Ok((vec![None; drawn.len()], model.judge(&batch)));
                }
                let max = self.recipe.max_new_tokens;
                let (generations, judgement) =
                    model.answer(&batch, examples, ids, max, self.sampling)?;
                let tokens = generations.into_iter().map(|text| Some(text.tokens));
                anyhow::Ok((tokens.collect(), judgement))
            })?;
        let Judgement { classes, valences } = judgement;
        let probabilities: Option<Vec<f32>> = match classes {
            Some(logits) => Some(softmax(logits, 1).into_data().try_into_vec()?),
            None => None,
        };
        let valences: Option<Vec<f32>> = match valences {
            Some(valences) => Some(valences.into_data().try_into_vec()?),
            None => None,
        };
        let names = self.labels.map(LabelSet::names).unwrap_or_default();
        drawn
            .iter()
            .zip(tokens)
            .enumerate()
            .map(|(row, (drawn, tokens))| {
                let answer = match tokens {
                    Some(tokens) => Some(dataset.tokenizer().decode(&tokens)?.trim().to_string()),
                    None => None,
                };
                let label = self
                    .labels
                    .zip(answer.as_ref())
                    .and_then(|(labels, answer)| parse_answer(answer, labels));
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
                    valence: valences.as_ref().map(|all| f64::from(all[row])),
                    true_valence: drawn.sample.valence().map(f64::from),
                })
            })
            .collect()
    }
}

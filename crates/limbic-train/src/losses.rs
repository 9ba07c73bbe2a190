//! The losses of a split, and what else its forward passes tell: the errors of the valence head, and whether clips find
//! their captions.

use burn::tensor::{Device, Tensor};
use limbic_data::Task;
use limbic_eval::Regression;
use limbic_model::EmotionLlm;

use crate::batching::{Shard, Shards};
use crate::dataset::{Dataset, hold_drawn};
use crate::evaluate::Evaluator;
use crate::gathered::Gathered;
use crate::loss::{own_sums, value};
use crate::objectives::{MaskKey, Objectives};
use crate::shard::ShardBatch;
use crate::terms::{Divisors, LossMeans, LossSums, Term};

/// What forward passes over a split tell.
pub(crate) struct Losses {
    pub(crate) loss: LossMeans,
    pub(crate) valence: Option<Regression>,
    pub(crate) retrieval: Option<f64>,
}

/// What a pass over samples with one batch after the other gives.
struct Pass {
    sums: LossSums,
    divisors: Divisors,
    gathered: Gathered,
}

impl Evaluator<'_> {
    /// Losses of prompts on every task that a clip has an answer to, and of captions on every clip that has one. All of
    /// the split is contrasted with all of it.
    ///
    /// # Errors
    /// Prompts that cannot be compiled; clips whose media are not what they were.
    pub(crate) fn losses(
        &self,
        dataset: &Dataset,
        tasks: &[Task],
        objectives: &Objectives,
        step: u64,
    ) -> anyhow::Result<Losses> {
        let (mut questions, mut clips) = (Vec::new(), Vec::new());
        // Of each question, whether it is its clip's first: a clip's valence counts once, as when it is scored.
        let mut is_first = Vec::new();
        for sample in dataset.samples() {
            let before = questions.len();
            for task in tasks {
                let drawn = dataset.ask(sample, *task, true)?;
                if !drawn.compiled.answer.is_empty() {
                    is_first.push(questions.len() == before);
                    questions.push(drawn);
                }
            }
            if let Some(task) = tasks.first()
                && !sample.caption.is_empty()
            {
                clips.push(dataset.ask(sample, *task, false)?);
            }
        }
        let size = self.recipe.batch_size;
        let questions = Shards::of_like_length(questions, size, |drawn| drawn.compiled.length());
        let clips = Shards::of_like_length(clips, size, |drawn| drawn.sample.caption.len());
        let prompts = [Term::Lm, Term::Class, Term::Valence];
        let of_prompts = self.pass(&questions, &prompts, objectives)?;
        let of_captions = self.pass(&clips, &[Term::Contrastive, Term::Masked], objectives)?;

        let mut sums = of_prompts.sums;
        sums += of_captions.sums;
        let mut divisors = of_prompts.divisors;
        for term in [Term::Contrastive, Term::Masked] {
            divisors[term] = of_captions.divisors[term];
        }
        let weights = objectives.weights(step);
        let valence = match of_prompts.gathered.valences {
            Some((predicted, wanted)) => {
                let numbers = |x: Tensor<1>| -> Vec<f64> { x.into_data().iter::<f64>().collect() };
                let pairs = numbers(predicted).into_iter().zip(numbers(wanted));
                let valued = questions.shards.iter().flat_map(|shard| {
                    let drawn = shard.drawn.iter().zip(&shard.places);
                    drawn.filter(|(drawn, _)| drawn.sample.valence().is_some())
                });
                let pairs = pairs
                    .zip(valued)
                    .filter(|(_, (_, place))| is_first[**place]);
                Regression::of(&pairs.map(|(pair, _)| pair).collect::<Vec<_>>())
            }
            None => None,
        };
        let pairs = of_captions.gathered.pairs;
        Ok(Losses {
            loss: LossMeans::new(objectives.active(), &sums, &divisors, &weights),
            valence,
            retrieval: pairs.map(|pairs| retrieval(pairs.clips, pairs.captions, &pairs.texts)),
        })
    }

    fn pass(
        &self,
        shards: &Shards,
        terms: &[Term],
        objectives: &Objectives,
    ) -> anyhow::Result<Pass> {
        let terms: Vec<Term> = terms
            .iter()
            .copied()
            .filter(|term| objectives.is_active(*term))
            .collect();
        let home = self.replicas.home();
        let job = |model: &EmotionLlm, device: &Device, number: usize| -> anyhow::Result<_> {
            let Shard { drawn, places } = &shards.shards[number];
            let masked = &objectives.masked(drawn, places, MaskKey::Evaluation);
            let _held = hold_drawn(drawn)?;
            let batch = ShardBatch::new(drawn, masked, &terms, objectives, shards.layout, device);
            let reading = batch.read(model, None, None);
            let scale = reading.log_scale.clone();
            let gathered = Gathered::of(&reading, &home);
            let mut sums = LossSums::default();
            for (term, sum) in own_sums(reading, objectives) {
                sums[term] = value(&sum);
            }
            Ok((sums, objectives.divisors(drawn, masked), gathered, scale))
        };
        let batches = if terms.is_empty() {
            Vec::new()
        } else {
            self.replicas
                .evaluate(self.values, shards.shards.len(), job)
        };
        let (mut sums, mut divisors) = (LossSums::default(), Divisors::default());
        let (mut shards, mut scale) = (Vec::new(), None);
        for of_batch in batches {
            let (of_batch, counts, gathered, of_model) = of_batch?;
            sums += of_batch;
            divisors += counts;
            shards.push(gathered);
            scale = scale.or(of_model);
        }
        let gathered = Gathered::all(&shards);
        let scale = scale.map(|scale| scale.to_device(&home));
        for (term, sum) in gathered.sums(scale.as_ref(), &objectives.recipe.valence) {
            if objectives.is_gathered(term) {
                sums[term] = value(&sum);
            }
        }
        Ok(Pass {
            sums,
            divisors,
            gathered,
        })
    }
}

/// Share of clips whose nearest caption reads as their `own`: several clips may be told in the same words.
fn retrieval(clips: Tensor<2>, captions: Tensor<2>, own: &[Vec<u32>]) -> f64 {
    let nearest = clips.matmul(captions.transpose()).argmax(1);
    let nearest: Vec<i64> = nearest.into_data().iter::<i64>().collect();
    let hits = nearest
        .iter()
        .zip(own)
        .filter(|(nearest, caption)| own[**nearest as usize] == **caption);
    hits.count() as f64 / own.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn a_clip_finds_its_caption_or_one_that_reads_the_same() {
        let device = Device::flex();
        let clips = Tensor::<2>::from_data([[1.0f32, 0.0], [0.0, 1.0], [0.8, 0.6]], &device);
        let data = TensorData::from([[0.6f32, 0.8], [0.0, 1.0], [1.0, 0.0]]);
        let captions = Tensor::<2>::from_data(data, &device);
        // Nearest are the third, the second and, by 0.96 against 0.8, the first.
        let apart = [1, 2, 3].map(|id| vec![id]);
        assert!((retrieval(clips.clone(), captions.clone(), &apart) - 1.0 / 3.0).abs() < 1e-12);
        let alike = [1, 2, 1].map(|id| vec![id]);
        assert_eq!(retrieval(clips, captions, &alike), 1.0);
    }
}

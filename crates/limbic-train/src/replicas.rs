//! One replica of the model a device, each on threads of its own; one device takes the same path.
//!
//! On CPU each replica works in a thread pool with its share of the cores: a replica a core keeps all of them busy where
//! single operations do not. Frozen weights are shared between replicas of one device.

use burn::tensor::{Device, Tensor};
use limbic_llama::Dropout;
use limbic_model::{Batch, EmotionLlm, Example, Trainables};
use limbic_weights::CounterRng;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::dataset::{Drawn, with_examples};
use crate::loss::{Counts, LossSums, joint_loss};
use crate::recipe::LossRecipe;
use crate::reduce::tree_sum;

/// The replicas.
pub struct Replicas {
    replicas: Vec<Replica>,
}

struct Replica {
    pool: ThreadPool,
    device: Device,
    /// With trained values that are replaced before each use.
    model: EmotionLlm,
}

/// What one step of all replicas gives.
pub struct StepGradient {
    /// Of the step's mean loss by the trained values.
    pub gradient: Tensor<1>,
    /// Sums over all shards.
    pub sums: LossSums,
    /// What they were divided by.
    pub counts: Counts,
    /// Positions processed, padding left out.
    pub positions: usize,
}

impl Replicas {
    /// One replica of `model` for each of `devices`.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(model: &EmotionLlm, devices: &[Device]) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / devices.len()).max(1);
        let home = Trainables::device(model);
        let replicas = devices
            .iter()
            .map(|device| {
                let model = if *device == home {
                    model.clone()
                } else {
                    burn::module::Module::fork(model.clone(), device)
                };
                Ok(Replica {
                    pool: ThreadPoolBuilder::new().num_threads(threads).build()?,
                    device: device.clone().without_autodiff(),
                    model,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { replicas })
    }

    /// The gradient of the mean loss over `shards` at `values`.
    ///
    /// # Panics
    /// When no shard has anything to learn: a dataset holds only samples with an answer.
    pub fn gradient(
        &self,
        trainables: &Trainables,
        values: &Tensor<1>,
        shards: &[&[Drawn]],
        loss: &LossRecipe,
        dropout: CounterRng,
    ) -> StepGradient {
        let counts = shards.iter().flat_map(|shard| shard.iter()).fold(
            Counts::default(),
            |counts, drawn| Counts {
                tokens: counts.tokens + drawn.compiled.answer.len(),
                labelled: counts.labelled + usize::from(drawn.sample.label.is_some()),
            },
        );
        let job = |replica: &Replica, number: usize| {
            let batch = with_examples(shards[number], |examples: &[Example]| {
                Batch::new(examples, &replica.device)
            });
            let values = values.clone().to_device(&replica.device);
            let model = trainables.scatter_tracked(replica.model.clone(), &values);
            trainables.assert_split(&model);
            let readout = model.forward(&batch, Dropout::keyed(dropout.index(number as u64)));
            let (objective, sums) = joint_loss(readout, counts, loss);
            let gradient =
                objective.map(|objective| trainables.gradients(&model, &objective.backward()));
            (gradient, sums, batch.num_positions)
        };
        let per_shard = self.run(shards.len(), job);

        let mut sums = LossSums::default();
        let mut positions = 0;
        let mut leaves = Vec::with_capacity(shards.len());
        for (gradient, shard, count) in per_shard {
            sums.lm += shard.lm;
            sums.class += shard.class;
            positions += count;
            leaves.push(match gradient {
                Some(gradient) => gradient.to_device(&values.device()),
                None => values.zeros_like(),
            });
        }
        StepGradient {
            gradient: tree_sum(leaves).expect("a step has at least one shard"),
            sums,
            counts,
            positions,
        }
    }

    /// Runs `job` for each of `count` numbers, a contiguous block a replica, and returns the results in order.
    fn run<R: Send>(&self, count: usize, job: impl Fn(&Replica, usize) -> R + Sync) -> Vec<R> {
        let block = count.div_ceil(self.replicas.len());
        let job = &job;
        std::thread::scope(|scope| {
            let handles: Vec<_> = self
                .replicas
                .iter()
                .enumerate()
                .map(|(index, replica)| {
                    let numbers = (index * block).min(count)..((index + 1) * block).min(count);
                    scope.spawn(move || {
                        replica.pool.install(|| {
                            numbers
                                .map(|number| job(replica, number))
                                .collect::<Vec<R>>()
                        })
                    })
                })
                .collect();
            handles
                .into_iter()
                .flat_map(|handle| match handle.join() {
                    Ok(results) => results,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }

    /// Runs `job` with untracked models, at `values` where some are given and as they were built otherwise.
    pub fn evaluate<R: Send>(
        &self,
        values: Option<(&Trainables, &Tensor<1>)>,
        count: usize,
        job: impl Fn(&EmotionLlm, &Device, usize) -> R + Sync,
    ) -> Vec<R> {
        self.run(count, |replica, number| {
            let model = replica.model.clone();
            let model = match values {
                None => model,
                Some((trainables, values)) => {
                    let values = values.clone().to_device(&replica.device);
                    trainables.scatter_plain(model, &values)
                }
            };
            job(&model, &replica.device, number)
        })
    }
}

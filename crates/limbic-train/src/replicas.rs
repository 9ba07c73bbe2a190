//! One replica of the model a device, each on threads of its own; one device takes the same path.
//!
//! On CPU each replica works in a thread pool with its share of the cores: a replica a core keeps all of them busy where
//! single operations do not. Frozen weights are shared between replicas of one device.

use burn::tensor::{Device, Tensor};
use limbic_llama::{Recompute, Tape, is_cpu};
use limbic_model::{EmotionLlm, MaskedCaption, Trainables};
use limbic_weights::CounterRng;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batching::Shards;
use crate::gathered::{Gathered, Pull};
use crate::loss::{PendingSums, joint_loss};
use crate::objectives::{MaskKey, Objectives};
use crate::optimizer::sums_of_squares;
use crate::plan::Plan;
use crate::reduce::tree_sum;
use crate::shard::ShardBatch;
use crate::terms::{Divisors, LossSums, PerTerm, Term};

/// The replicas.
pub struct Replicas {
    replicas: Vec<Replica>,
    recompute: Recompute,
}

struct Replica {
    pool: ThreadPool,
    device: Device,
    /// With trained values that are replaced before each use.
    model: EmotionLlm,
}

/// One step's samples and what they are divided by, before any replica begins.
struct Step<'a> {
    shards: &'a Shards<'a>,
    /// Captions with hidden tokens, a list a shard.
    masked: Vec<Vec<Option<MaskedCaption>>>,
    objectives: &'a Objectives,
    divisors: Divisors,
    /// Weights over divisors.
    shares: PerTerm<f64>,
}

impl<'a> Step<'a> {
    fn new(shards: &'a Shards<'a>, objectives: &'a Objectives, step: u64) -> Self {
        let mut divisors = Divisors::default();
        let mut masked = Vec::with_capacity(shards.shards.len());
        for shard in &shards.shards {
            let key = MaskKey::Step(step);
            let of_shard = objectives.masked(&shard.drawn, &shard.places, key);
            divisors += objectives.divisors(&shard.drawn, &of_shard);
            masked.push(of_shard);
        }
        let weights = objectives.weights(step);
        Self {
            shards,
            masked,
            objectives,
            divisors,
            shares: PerTerm::from_fn(|term| match divisors[term] {
                0.0 => 0.0,
                divisor => weights[term] / divisor,
            }),
        }
    }

    fn batch(&self, number: usize, terms: &[Term], device: &Device) -> ShardBatch {
        let (drawn, masked) = (&self.shards.shards[number].drawn, &self.masked[number]);
        let layout = self.shards.layout;
        ShardBatch::new(drawn, masked, terms, self.objectives, layout, device)
    }
}

/// What one step of all replicas gives.
pub struct StepGradient {
    /// Of the step's mean loss by the trained values.
    pub gradient: Tensor<1>,
    /// Which parameters took part in the loss of any shard, in the order of [`Trainables::parameters`].
    pub took_part: Vec<bool>,
    /// Sums over the losses that look at all shards at once, and those of each shard.
    sums: (LossSums, Vec<PendingSums>),
    /// What they were divided by.
    pub divisors: Divisors,
    /// Positions processed, padding left out.
    pub positions: usize,
    /// Positions processed, padding included.
    pub slots: usize,
}

impl StepGradient {
    /// The losses' sums over all shards and the Euclidean norm of the gradient, in the one transfer from the device that
    /// a step makes: each waits for all that the device has to do.
    pub fn read(&self) -> (LossSums, f64) {
        let (mut sums, shards) = self.sums.clone();
        let (terms, values): (Vec<Term>, Vec<Tensor<1>>) =
            shards.iter().flat_map(PendingSums::iter).unzip();
        let squares = sums_of_squares(&self.gradient);
        let values = Tensor::cat(values.into_iter().chain([squares]).collect(), 0).into_data();
        let mut values = values.iter::<f64>();
        for (term, value) in terms.iter().zip(values.by_ref()) {
            sums[*term] += value;
        }
        (sums, values.sum::<f64>().sqrt())
    }
}

impl Replicas {
    /// One replica of `model` for each of `devices`.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn new(model: &EmotionLlm, devices: &[Device]) -> anyhow::Result<Self> {
        let share = (rayon::current_num_threads() / devices.len()).max(1);
        let home = Trainables::device(model);
        let replicas = devices
            .iter()
            .map(|device| {
                let model = if *device == home {
                    model.clone()
                } else {
                    burn::module::Module::fork(model.clone(), device)
                };
                // Where a GPU computes, one thread is to launch all its work: each thread has a stream and memory there.
                let threads = if is_cpu(device) { share } else { 1 };
                Ok(Replica {
                    pool: ThreadPoolBuilder::new().num_threads(threads).build()?,
                    device: device.clone().without_autodiff(),
                    model,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            replicas,
            recompute: Recompute::None,
        })
    }

    /// The same with this choice of what is computed again on the way back.
    pub fn recomputing(self, recompute: Recompute) -> Self {
        Self { recompute, ..self }
    }

    /// Runs on another plan from now on: replicas of the first one, which is on CPU. No number depends on it.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn adopt(&mut self, plan: Plan) -> anyhow::Result<()> {
        let first = &self.replicas[0];
        let (device, model) = (first.device.clone(), first.model.clone());
        let replica = |_| {
            Ok(Replica {
                pool: ThreadPoolBuilder::new().num_threads(plan.threads).build()?,
                device: device.clone(),
                model: model.clone(),
            })
        };
        // What the threads before used lies idle, in sizes that these may not want.
        limbic_llama::free_idle_memory();
        self.replicas = (0..plan.replicas)
            .map(replica)
            .collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    /// The gradient of the mean loss over `shards` in step `step` at `values`.
    ///
    /// # Panics
    /// When no shard has anything to learn: a dataset holds only samples with an answer.
    pub fn gradient(
        &self,
        trainables: &Trainables,
        values: &Tensor<1>,
        shards: &Shards,
        objectives: &Objectives,
        step: u64,
        dropout: CounterRng,
    ) -> StepGradient {
        let step = Step::new(shards, objectives, step);
        let home = values.device();
        let key = |number: usize| Some(dropout.index(number as u64));
        let pulls = self.pulls(trainables, values, &step, &key);
        let job = |replica: &Replica, number: usize| {
            let batch = step.batch(number, objectives.active(), &replica.device);
            let values = values.clone().to_device(&replica.device);
            let model = trainables.scatter_tracked(replica.model.clone(), &values);
            trainables.assert_split(&model);
            let tape = Tape::new(self.recompute);
            let reading = batch.read(&model, key(number), Some(&tape));
            let pull = pulls.as_ref().map(|(pulls, _)| &pulls[number]);
            let (objective, sums) = joint_loss(reading, objectives, &step.shares, pull);
            // What no trained value takes part in has no slope.
            let gradient = objective
                .filter(Tensor::is_tracked)
                .map(|objective| trainables.gradients(&model, &tape.backward(objective)));
            (
                gradient,
                sums.moved_to(&home),
                batch.num_positions(),
                batch.num_slots(),
            )
        };
        let count = shards.shards.len();
        let per_shard = self.run(count, job);

        let mut sums = Vec::with_capacity(count);
        let (mut positions, mut slots) = (0, 0);
        let mut leaves = Vec::with_capacity(count);
        let mut took_part = vec![false; trainables.num_parameters()];
        for (gradient, shard, of_shard, with_padding) in per_shard {
            sums.push(shard);
            positions += of_shard;
            slots += with_padding;
            leaves.push(match gradient {
                Some((gradient, of_shard)) => {
                    for (any, of_shard) in took_part.iter_mut().zip(of_shard) {
                        *any |= of_shard;
                    }
                    gradient.to_device(&home)
                }
                None => values.zeros_like(),
            });
        }
        StepGradient {
            gradient: tree_sum(leaves).expect("a step has at least one shard"),
            took_part,
            sums: (pulls.map_or_else(LossSums::default, |(_, sums)| sums), sums),
            divisors: step.divisors,
            positions,
            slots,
        }
    }

    /// What the losses that look at the whole step do to each shard, and their sums; `None` where there are none.
    fn pulls(
        &self,
        trainables: &Trainables,
        values: &Tensor<1>,
        step: &Step,
        key: &(impl Fn(usize) -> Option<CounterRng> + Sync),
    ) -> Option<(Vec<Pull>, LossSums)> {
        let objectives = step.objectives;
        let gathered = |term: &Term| objectives.is_gathered(*term);
        let terms: Vec<Term> = objectives
            .active()
            .iter()
            .copied()
            .filter(gathered)
            .collect();
        if terms.is_empty() {
            return None;
        }
        let home = values.device();
        let shards = self.run(step.shards.shards.len(), |replica, number| {
            let values = values.clone().to_device(&replica.device);
            let model = trainables.scatter_plain(replica.model.clone(), &values);
            let batch = step.batch(number, &terms, &replica.device);
            Gathered::of(&batch.read(&model, key(number), None), &home)
        });
        let model = trainables.scatter_plain(self.replicas[0].model.clone(), values);
        let scale = model
            .alignment
            .map(|alignment| alignment.log_scale.val().to_device(&home));
        Some(Pull::of(&shards, scale, objectives, &step.shares))
    }

    /// Number of replicas, and of threads that each works on.
    pub fn plan(&self) -> (usize, usize) {
        let threads = self.replicas.first();
        let threads = threads.map_or(0, |replica| replica.pool.current_num_threads());
        (self.replicas.len(), threads)
    }

    /// Where what all replicas give is put together.
    pub(crate) fn home(&self) -> Device {
        self.replicas[0].device.clone()
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

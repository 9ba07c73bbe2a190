use limbic_train::bench::{StepConfig, StepDone};
use serde_json::{Value, json};

use super::args::{RecomputeName, StepArgs};
use super::measure;

/// The pieces that recipes cut a micro-batch into.
const SHARDS: usize = 4;

pub(crate) fn run(args: &StepArgs) -> anyhow::Result<()> {
    let answer = match args.every_position {
        true => args.shape.seq.saturating_sub(1),
        // The peer counts the first position too, though nothing comes before it.
        false if args.answer == args.shape.seq => args.answer.saturating_sub(1),
        false => args.answer,
    };
    let batch = args.shape.batch;
    let default = || (1..=SHARDS).rev().find(|n| batch.is_multiple_of(*n));
    let shards = args.shards.or_else(default).unwrap_or(1);
    let config = StepConfig {
        decoder: args.shape.decoder(args.shape.seq)?,
        precision: args.shape.dtype.float_dtype(),
        lora: args.shape.lora(),
        batch,
        positions: args.shape.seq,
        shortest: args.shortest.unwrap_or(args.shape.seq),
        batching: args.batching.into(),
        recompute: args.recompute.into(),
        answer,
        shards,
    };
    let devices = measure::devices(&args.run)?;
    let mut bench = config.init(&devices)?;
    // Whoever names devices has a plan.
    let mut steps = match args.run.devices {
        None => bench.calibrate(rayon::current_num_threads())?,
        Some(_) => Vec::new(),
    };
    let (replicas, threads) = bench.plan();
    let (times, timed) = measure::repeat(args.run.warmup, args.run.steps, || bench.step())?;
    steps.extend(timed);
    // The command line wants at least one step.
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    let StepDone {
        positions,
        slots,
        supervised,
        ..
    } = last;
    let median = times.median();
    let work = flops(args, positions, supervised);
    let mfu = args.peak_tflops.map(|peak| work / median / (peak * 1e12));
    let mut shape = serde_json::to_value(args)?;
    shape["answer"] = answer.into();
    shape["shards"] = shards.into();
    let figures = json!({
        "positions_per_s": measure::rounded(positions as f64 / median),
        "supervised_per_s": measure::rounded(supervised as f64 / median),
        "real_positions": measure::rounded(positions as f64 / slots as f64),
        "trainable_params": bench.num_trained(),
        "first_loss": measure::rounded(first.loss),
        "last_loss": measure::rounded(last.loss),
        "tflops": measure::rounded(work / median / 1e12),
        "mfu": mfu.map_or(Value::Null, measure::rounded),
        "plan": { "replicas": replicas, "threads": threads },
        "peak_device_mib": measure::peak_device_mib(&devices),
    });
    measure::print("step", &shape, &times, "step", figures)
}

/// Floating-point operations of the frozen layers in a step: 2 a value on the way forward, 2 where a block runs again, and
/// 2 on the way back, since frozen weights have no gradient. The output layer sees supervised positions only; attention
/// is not counted.
fn flops(args: &StepArgs, positions: usize, supervised: usize) -> f64 {
    let [blocks, head] = args.shape.linear_values();
    let of_blocks = match args.recompute {
        RecomputeName::None => 4.0,
        RecomputeName::Block => 6.0,
    };
    of_blocks * blocks * positions as f64 + 4.0 * head * supervised as f64
}

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Distribution, Tensor};
use limbic_train::tree_sum;
use serde_json::json;

use super::args::AllreduceArgs;
use super::{measure, shape};

pub(crate) fn run(args: &AllreduceArgs) -> anyhow::Result<()> {
    let devices = measure::devices(&args.run)?;
    let values = match args.values {
        Some(values) => values,
        None => {
            // Lazy: nothing is allocated for it.
            let llama = args.shape.decoder(args.shape.seq)?.init(&devices[0]);
            let before = llama.num_params();
            let mut all = Count(0);
            shape::adapted(llama, &args.shape.lora())?.visit(&mut all);
            all.0 - before
        }
    };
    let block = args.shards.div_ceil(devices.len());
    let leaves: Vec<Tensor<1>> = (0..args.shards)
        .map(|shard| {
            let device = devices[shard / block].clone().without_autodiff();
            Tensor::random([values], Distribution::Normal(0.0, 1.0), &device)
        })
        .collect();
    let home = leaves[0].device();
    let (times, _) = measure::repeat(args.run.warmup, args.run.steps, || {
        let moved = leaves.iter().map(|leaf| leaf.clone().to_device(&home));
        let sum = tree_sum(moved.collect());
        home.sync()?;
        Ok(sum)
    })?;
    let bytes = (args.shards * values * size_of::<f32>()) as f64;
    let figures = json!({
        "values": values,
        "megabytes": measure::rounded(bytes / 1e6),
        "median_ms": measure::rounded(times.median() * 1e3),
        "gigabytes_per_s": measure::rounded(bytes / times.median() / 1e9),
        "peak_device_mib": measure::peak_device_mib(&devices),
    });
    measure::print("allreduce", args, &times, "run", figures)
}

/// Values of all parameters, which are not looked at.
struct Count(usize);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += param.lazy_shape().num_elements();
    }
}

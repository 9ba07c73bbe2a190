//! Benchmarks: one JSON line a case. Flags and keys are those of scripts/bench/peer_step.py, where it has them.

mod allreduce;
pub(crate) mod args;
mod decode;
mod encode;
mod generate;
mod load;
mod measure;
mod shape;
mod step;

use args::BenchCommand;

pub(crate) fn run(command: &BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args),
        BenchCommand::Generate(args) => generate::run(args),
        BenchCommand::Decode(args) => decode::run(args),
        BenchCommand::Encode(args) => encode::run(args),
        BenchCommand::Load(args) => load::run(args),
        BenchCommand::Allreduce(args) => allreduce::run(args),
    }
}

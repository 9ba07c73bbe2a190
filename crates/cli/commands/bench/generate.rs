use burn::tensor::{Distribution, Tensor};
use limbic_llama::{Llama, Prompt, Sampling, generate};
use serde_json::json;

use super::args::GenerateArgs;
use super::measure;

pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let shape = &args.shape;
    let device = measure::one_device(&args.run)?;
    let llama = shape.drawn(shape.seq + args.new_tokens, &device)?;
    let prompts: Vec<Prompt> = (0..shape.batch as u64)
        .map(|id| Prompt {
            id,
            content: Vec::new(),
            embeddings: Tensor::random(
                [shape.seq, shape.dim],
                Distribution::Normal(0.0, 0.02),
                &device,
            ),
        })
        .collect();
    let (warmup, timed) = (args.run.warmup, args.run.steps);
    let (first, _) = measure::repeat(warmup, timed, || tokens(&llama, &prompts, 1))?;
    let (times, counts) =
        measure::repeat(warmup, timed, || tokens(&llama, &prompts, args.new_tokens))?;
    let made = counts.last().copied().unwrap_or_default() as f64;
    let (all, first) = (times.median(), first.median());
    let decoding = (args.new_tokens > 1 && all > first)
        .then(|| (made - shape.batch as f64) / (all - first))
        .map(measure::rounded);
    let figures = json!({
        "time_to_first_token_s": measure::rounded(first),
        "tokens_per_s": measure::rounded(made / all),
        "decoding_tokens_per_s": decoding,
        "prompt_positions_per_s": measure::rounded((shape.batch * shape.seq) as f64 / first),
        "peak_device_mib": measure::peak_device_mib(&[device]),
    });
    measure::print("generate", args, &times, "run", figures)
}

/// How many tokens `count` more for each prompt are; nothing stops them early.
fn tokens(llama: &Llama, prompts: &[Prompt], count: usize) -> anyhow::Result<usize> {
    let rows = generate(llama, prompts, count, &[], &Sampling::GREEDY)?;
    Ok(rows.iter().map(|row| row.tokens.len()).sum())
}

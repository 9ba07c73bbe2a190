use anyhow::Context;
use limbic_model::{ExportOptions, Verified, export, verify_export};
use limbic_train::{RunError, find_artifact};

use crate::args::ExportArgs;
use crate::device;

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let (run, _) = find_artifact(&args.run)?;
    if args.out.exists() {
        return Err(RunError::recipe(format!(
            "{} is there already; name a folder that is not",
            args.out.display()
        )));
    }
    if let Some(parent) = args.out.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let device = &device::parse("cpu:1")?[0];
    let options = ExportOptions {
        merged: args.merged,
        precision: args.dtype,
        max_shard_bytes: args.max_shard_size,
    };
    let exported = export(&run, &args.out, &options, device)?;
    println!("{}", args.out.display());
    if let Some(lora) = &exported.lora {
        println!(
            "  llm_adapter/  PEFT adapter, rank {} on {}, for the decoder {}",
            lora.r,
            lora.target_modules,
            exported.decoder.display()
        );
    }
    if let Some(merged) = &exported.merged {
        println!(
            "  merged/       the decoder with the adapter in {} of its {} tensors, {:.1} MB",
            merged.adapted,
            merged.tensors,
            merged.bytes as f64 / 1e6
        );
    }
    println!("  mm/           projectors, class head, encoders and prompts in mm_config.json");
    if args.verify {
        let verified = verify_export(&run, &args.out, &options, device)
            .context("the export differs from its run")?;
        report(&verified);
    }
    Ok(())
}

fn report(verified: &Verified) {
    println!(
        "verified: {} tensors are the run's; logits of a prompt differ by at most",
        verified.tensors
    );
    println!("  {:>8.1e}  reloaded", verified.adapter);
    if let (Some(merged), Some(rounding)) = (verified.merged, verified.rounding) {
        println!("  {merged:>8.1e}  merged, from the run's weights merged and rounded alike");
        println!("  {rounding:>8.1e}  merged, from the run as it is");
    }
    if verified.zero_b {
        eprintln!(
            "warning: every B of the adapter is zero, so that it changes nothing; was it trained?"
        );
    }
}

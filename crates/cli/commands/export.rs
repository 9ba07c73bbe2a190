use anyhow::Context;
use limbic_model::{verify_directory, write_directory};
use limbic_train::{Model, RunError};

use crate::args::ExportArgs;
use crate::device;

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let model = Model::open(&args.run, &device::parse("cpu:1")?)?;
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
    write_directory(&args.out, |folder| model.artifact.write(folder, &args.out))?;
    verify_directory(&args.out)?;
    println!("{}", args.out.display());
    if let Some(lora) = model.artifact.model.llama.lora() {
        println!(
            "  llm_adapter/  PEFT adapter, rank {} on {}, for the decoder {}",
            lora.r,
            lora.target_modules,
            model.artifact.decoder.display()
        );
    }
    println!("  mm/           projectors, class head, encoders and prompts in mm_config.json");
    Ok(())
}

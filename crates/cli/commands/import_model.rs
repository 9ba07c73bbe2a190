use anyhow::Context;
use limbic_model::{verify_directory, write_directory};
use limbic_train::{Import, RunError};

use crate::args::ImportModelArgs;
use crate::device;

pub(crate) fn run(args: &ImportModelArgs) -> anyhow::Result<()> {
    if args.out.exists() {
        return Err(RunError::recipe(format!(
            "{} is there already; name a folder that is not",
            args.out.display()
        )));
    }
    let import = Import {
        published: args.kind,
        checkpoint: args.checkpoint.clone(),
        model: args.model.clone(),
        prompt: args.prompt.clone(),
        labels: args.labels.clone(),
        seed: args.seed,
    };
    let device = &device::parse("cpu:1")?[0];
    let (artifact, imported) = import.run(device)?;
    print!("{}", imported.report);
    if !imported.left.is_empty() {
        println!(
            "not in the checkpoint, drawn from seed {}: {}",
            args.seed,
            imported.left.len()
        );
        for name in &imported.left {
            println!("  {name}");
        }
    }
    if let Some(parent) = args.out.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    write_directory(&args.out, |folder| artifact.write(folder, &args.out))?;
    verify_directory(&args.out)?;
    println!("{}", args.out.display());
    Ok(())
}

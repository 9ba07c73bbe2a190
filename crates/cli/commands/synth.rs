use limbic_data::synth::{SynthConfig, generate};

use crate::args::SynthArgs;

pub(crate) fn run(args: &SynthArgs) -> anyhow::Result<()> {
    let config = SynthConfig {
        clips: args.clips,
        seed: args.seed,
    };
    let every = (args.clips / 4).max(1);
    let progress = |done: usize| {
        if done.is_multiple_of(every) {
            eprintln!("{done} of {} clips", args.clips);
        }
    };
    let report = generate(&args.out, &config, &progress)?;
    let done = if report.existed {
        "was there already"
    } else {
        "written"
    };
    println!(
        "{} {done}: {} train, {} validation, {} test clips",
        report.manifest.display(),
        report.train,
        report.validation,
        report.test
    );
    Ok(())
}

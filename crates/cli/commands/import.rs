use crate::args::ImportArgs;

pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let report = args.corpus.import(&args.from, &args.out)?;
    for warning in &report.warnings {
        eprintln!("note: {warning}");
    }
    println!("{}: {} clips", report.manifest.display(), report.clips);
    for (split, emotions) in &report.counts {
        let counts: Vec<String> = emotions
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        println!("  {split:<11} {}", counts.join(", "));
    }
    Ok(())
}

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use limbic_train::Extraction;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::ExtractArgs;
use crate::device;

pub(crate) fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    let device = &device::parse(&args.devices)?[0];
    let recipe = limbic_train::read_recipe(&args.recipe, &args.overrides)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let start = Instant::now();
    let style = ProgressStyle::with_template("{bar:20} {pos}/{len} clips  {per_sec}  eta {eta}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        let every = (all / 4).max(50);
        if bar.is_hidden() && done.is_multiple_of(every) && done < all {
            eprintln!("{done} of {all} clips");
        }
    };
    let extraction = limbic_train::extract(&recipe, args.shard, device, &progress, &stop);
    bar.finish_and_clear();
    let Extraction {
        clips,
        quarantined,
        report,
    } = extraction?;
    for clip in &quarantined {
        eprintln!(
            "{} is quarantined ({}): {}",
            clip.id, clip.reason, clip.detail
        );
    }
    eprintln!("{}", report.line());
    for problem in report.problems() {
        eprintln!("{problem}");
    }
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    println!(
        "part {}: {clips} clips, {} features made ({:.1} MiB), {} found, {} clips quarantined, {seconds:.1} s, {:.1} clips/s",
        args.shard,
        report.made,
        report.bytes as f64 / f64::from(1 << 20),
        report.found,
        quarantined.len(),
        clips as f64 / seconds
    );
    if let Some(first) = report.unwritten.first.first() {
        bail!(
            "{} features could not be written, for example {first}; make room, or name another `cache.directory`",
            report.unwritten.count
        );
    }
    Ok(())
}

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use limbic_train::Start;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::TrainArgs;
use crate::device;

pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let devices = device::parse(&args.devices)?;
    let recipe = limbic_train::read_recipe(&args.recipe, &args.overrides)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal ends the program at once: the first may be waiting for a long step.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let start = Start {
        devices: &devices,
        calibrates: args.devices == "cpu",
        suits: device::suits(&devices),
        restart: args.restart,
        stop: &stop,
        say: &|line| eprintln!("{line}"),
    };
    let run = limbic_train::train(recipe, &start)?;
    println!("{}", run.path("final").display());
    Ok(())
}

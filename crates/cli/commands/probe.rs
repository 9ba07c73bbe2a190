use crate::args::ProbeArgs;
use crate::{device, probe};

pub(crate) fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let device = &device::parse(&args.device)?[0];
    let numbers = probe::run(args, device)?;
    match &args.out {
        Some(path) => {
            numbers.write(path)?;
            println!("{}", path.display());
        }
        None => print!("{}", numbers.table()),
    }
    Ok(())
}

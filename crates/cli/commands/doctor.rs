use std::time::Duration;

use crate::args::DoctorArgs;
use crate::doctor::{self, Report};

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(child) = &args.child {
        return doctor::run_child(child);
    }
    let report = Report::new(&args.device, Duration::from_secs(args.timeout))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    report.verdict()
}

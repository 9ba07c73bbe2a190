use indicatif::HumanBytes;

use crate::args::FetchArgs;
use crate::fetch::{Wish, fetch};

pub(crate) fn run(args: &FetchArgs) -> anyhow::Result<()> {
    let fetched = fetch(&Wish {
        model: &args.model,
        revision: &args.revision,
        include: &args.include,
        to: args.to.as_deref(),
        offline: args.offline,
    })?;
    if fetched.existed {
        eprintln!("note: it was there already, the same");
    }
    println!("{}", fetched.place.display());
    for (name, size) in &fetched.files {
        println!("  {name}  {}", HumanBytes(*size));
    }
    Ok(())
}

//! The command line: parse, run, print the error once, choose the exit code.
//!
//! Commands parse and print; the libraries do the work. This is also the only place that names a backend.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands print; libraries do not"
)]

mod args;
mod commands;
mod device;
mod doctor;
mod fetch;
mod probe;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use args::{Args, Command, DataCommand};
use clap::Parser;
use limbic_data::DataError;
use limbic_train::RunError;
use signal_hook::consts::SIGPIPE;

fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let result = match Args::parse().command {
        Command::Data(DataCommand::Synth(args)) => commands::synth::run(&args),
        Command::Data(DataCommand::Import(args)) => commands::import::run(&args),
        Command::Extract(args) => commands::extract::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Infer(args) => commands::infer::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Import(args) => commands::import_model::run(&args),
        Command::Fetch(args) => commands::fetch::run(&args),
        Command::Probe(args) => commands::probe::run(&args),
        Command::Bench(command) => commands::bench::run(&command),
        Command::Doctor(args) => commands::doctor::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// As other tools end under `| head`: Rust ignores the signal, and then printing panics.
fn end_quietly_on_a_closed_pipe() {
    let always = Arc::new(AtomicBool::new(true));
    if let Err(error) = signal_hook::flag::register_conditional_default(SIGPIPE, always) {
        eprintln!("note: a closed pipe will be an error: {error}");
    }
}

/// The error and its causes, each said once: some errors quote their cause already.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        if said.is_empty() {
            cause
        } else if said.contains(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        }
    })
}

/// 2 the recipe, 3 the data, 5 diverged, 130 interrupted and saved, 1 anything else. docs/cli.md lists them.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<RunError>() {
        return match error {
            RunError::Recipe(_) => 2,
            RunError::Data(_) => 3,
            RunError::Diverged(_) => 5,
            RunError::Stopped | RunError::Interrupted { .. } => 130,
        };
    }
    if error.downcast_ref::<DataError>().is_some() {
        3
    } else {
        1
    }
}

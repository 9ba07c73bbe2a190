//! This program once more, to ask a driver what may be its last question.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::trial::{Check, Finding};
use crate::device;

/// What is asked: `list:KIND` or `try:DEVICE`.
#[derive(Clone)]
pub(crate) enum Child {
    /// The names of all devices of a kind, a line each.
    List(String),
    /// Every check of a device, a finding in JSON a line, each written as soon as it is known.
    Try(String),
}

impl FromStr for Child {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("list", kind)) => Ok(Self::List(kind.into())),
            Some(("try", name)) => Ok(Self::Try(name.into())),
            _ => Err("wanted list:KIND or try:DEVICE".into()),
        }
    }
}

/// Answers, in the process that was started for it.
///
/// # Errors
/// When nobody reads the answer.
pub(crate) fn run_child(child: &Child) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match child {
        Child::List(kind) => {
            for name in device::names(kind) {
                writeln!(out, "{name}")?;
            }
        }
        Child::Try(name) => {
            for check in Check::ALL {
                let finding = check.run(name);
                writeln!(out, "{}", serde_json::to_string(&finding)?)?;
                out.flush()?;
                if !finding.works && check == Check::Open {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The names of all devices of `kind`, or how asking for them failed.
pub(super) fn list(kind: &str, timeout: Duration) -> anyhow::Result<Result<Vec<String>, String>> {
    let ended = run(&format!("list:{kind}"), timeout)?;
    Ok(match ended.problem {
        None => Ok(ended.stdout.lines().map(str::to_string).collect()),
        Some(problem) => Err(problem),
    })
}

/// What is found on the device called `name`; a check that took the process with it has failed.
pub(super) fn examine(name: &str, timeout: Duration) -> anyhow::Result<Vec<Finding>> {
    let ended = run(&format!("try:{name}"), timeout)?;
    let mut findings = Vec::new();
    for line in ended.stdout.lines() {
        // The last line may have been cut.
        if let Ok(finding) = serde_json::from_str::<Finding>(line) {
            findings.push(finding);
        }
    }
    if let Some(problem) = ended.problem {
        let reached = Check::ALL.get(findings.len());
        findings.push(Finding::failed(
            reached.copied().unwrap_or(Check::Open),
            problem,
        ));
    }
    Ok(findings)
}

struct Ended {
    stdout: String,
    /// How it ended, unless as it should.
    problem: Option<String>,
}

fn run(child: &str, timeout: Duration) -> anyhow::Result<Ended> {
    let program = std::env::current_exe().context("limbic cannot find its own file")?;
    let mut process = Command::new(&program)
        .args(["doctor", "--child", child])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    // Read at once: a process that fills a pipe nobody reads would wait for ever.
    let stdout = process.stdout.take().map(collect);
    let stderr = process.stderr.take().map(collect);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > timeout {
            process.kill()?;
            process.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let problem = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}{}", last_words(&stderr))),
        None => Some(format!(
            "no answer in {} s (--timeout){}",
            timeout.as_secs(),
            last_words(&stderr)
        )),
    };
    Ok(Ended { stdout, problem })
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until then is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The end of what a process complained about.
fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
        .collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join(" "))
    }
}

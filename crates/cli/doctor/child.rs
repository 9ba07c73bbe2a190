//! This program once more, to ask a driver what may be its last question.

use std::io::{Read, Write};
use std::process::{self, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

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

/// What is found on a device.
#[derive(Debug, Serialize)]
pub(super) struct Examination {
    /// For each check, unless the device does not open.
    findings: Vec<Finding>,
    /// How the process ended, where all was answered and it ended badly after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<String>,
}

impl Examination {
    /// From what was written until the process ended, with a `problem` where it ended badly, `seconds` after its start.
    ///
    /// Drivers write where findings are written, in the midst of a line, too.
    fn of(written: &str, problem: Option<String>, seconds: f64) -> Self {
        let mut answers: Vec<Finding> = written
            .match_indices("{\"check\"")
            .filter_map(|(start, _)| {
                // The last one may have been cut.
                let mut values = serde_json::Deserializer::from_str(&written[start..]).into_iter();
                values.next()?.ok()
            })
            .collect();
        let mut exit = problem;
        let mut findings: Vec<Finding> = Vec::new();
        for check in Check::ALL {
            if let Some(place) = answers.iter().position(|answer| answer.check == check) {
                findings.push(answers.swap_remove(place));
            } else {
                let known: f64 = findings.iter().map(|finding| finding.seconds).sum();
                findings.push(match exit.take() {
                    Some(ended) => Finding::failed(check, ended, seconds - known),
                    None => Finding::failed(check, "ended without an answer".into(), 0.0),
                });
            }
            if check == Check::Open && !findings[0].works {
                break;
            }
        }
        Self { findings, exit }
    }

    pub(super) fn all_work(&self) -> bool {
        self.exit.is_none() && self.findings.iter().all(|finding| finding.works)
    }

    /// For people.
    pub(super) fn lines(&self) -> String {
        let mut lines: String = self.findings.iter().map(Finding::line).collect();
        if let Some(exit) = &self.exit {
            lines += &format!("  its process FAILS at its end: {exit}\n");
        }
        lines
    }
}

/// The names of all devices of `kind`, or how asking for them failed.
pub(super) fn list(kind: &str, timeout: Duration) -> anyhow::Result<Result<Vec<String>, String>> {
    let ended = ask(&format!("list:{kind}"), timeout)?;
    let names = ended.stdout.lines().filter(|line| {
        let rest = line.strip_prefix(kind);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    });
    Ok(match ended.problem {
        None => Ok(names.map(str::to_string).collect()),
        Some(problem) => Err(problem),
    })
}

/// What is found on the device called `name`; a check that took the process with it has failed.
pub(super) fn examine(name: &str, timeout: Duration) -> anyhow::Result<Examination> {
    let ended = ask(&format!("try:{name}"), timeout)?;
    Ok(Examination::of(&ended.stdout, ended.problem, ended.seconds))
}

struct Ended {
    stdout: String,
    /// How it ended, unless as it should.
    problem: Option<String>,
    seconds: f64,
}

fn ask(child: &str, timeout: Duration) -> anyhow::Result<Ended> {
    let program = std::env::current_exe().context("limbic cannot find its own file")?;
    let mut command = Command::new(&program);
    command.args(["doctor", "--child", child]);
    run(command, timeout).with_context(|| program.display().to_string())
}

/// How long the system may take to end a process, and what it wrote to arrive.
const GRACE: Duration = Duration::from_secs(2);

fn run(mut command: Command, timeout: Duration) -> std::io::Result<Ended> {
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Read at once: a process that fills a pipe nobody reads would wait for ever.
    let stdout = process.stdout.take().map(collect);
    let stderr = process.stderr.take().map(collect);
    let start = Instant::now();
    let status = wait(&mut process, timeout)?;
    let mut killed = true;
    if status.is_none() {
        process.kill()?;
        // One that waits inside a driver does not end before that answers.
        killed = wait(&mut process, GRACE)?.is_some();
    }
    let seconds = start.elapsed().as_secs_f64();
    let end = Instant::now() + GRACE;
    let text = |pieces: Option<Receiver<Vec<u8>>>| {
        pieces.map_or(String::new(), |pieces| received(&pieces, end))
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let problem = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}{}", last_words(&stderr))),
        None => Some(format!(
            "no answer in {} s (--timeout){}{}",
            timeout.as_secs(),
            if killed {
                ""
            } else {
                ", and it cannot be ended"
            },
            last_words(&stderr)
        )),
    };
    Ok(Ended {
        stdout,
        problem,
        seconds,
    })
}

/// How `process` ended, if it does within `most`.
fn wait(process: &mut process::Child, most: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = process.try_wait()?;
        if status.is_some() || start.elapsed() > most {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What is written into `pipe`. It stays open for as long as any process that inherited it lives.
fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        // What was read until then is what there is.
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// All that arrives until the pipe is closed, or until `end`.
fn received(pieces: &Receiver<Vec<u8>>, end: Instant) -> String {
    let mut bytes = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
        bytes.extend(piece);
    }
    String::from_utf8_lossy(&bytes).into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(check: &str, works: bool) -> String {
        format!(r#"{{"check":"{check}","works":{works},"detail":"it is","seconds":1.0}}"#)
    }

    /// Check, whether it works, what is said of it.
    fn told(examination: &Examination) -> Vec<(Check, bool, &str)> {
        let findings = examination.findings.iter();
        findings
            .map(|finding| (finding.check, finding.works, &*finding.detail))
            .collect()
    }

    #[test]
    fn every_check_is_answered_or_has_failed() {
        let all = ["open", "matmul", "step", "bf16", "step_bf16"];
        let lines = |checks: &[&str]| -> String {
            let lines = checks.iter().map(|check| answer(check, true) + "\n");
            lines.collect()
        };
        let whole = Examination::of(&lines(&all), None, 9.0);
        assert!(whole.all_work());
        // A driver's words before, in the midst and behind.
        let noisy = format!("loading {}ready", lines(&all).replace('\n', " WARN: "));
        assert_eq!(told(&Examination::of(&noisy, None, 9.0)), told(&whole));

        // One that ends as if all were well.
        let part = Examination::of(&lines(&all[..3]), None, 9.0);
        assert!(!part.all_work());
        let lost = "ended without an answer";
        assert_eq!(
            told(&part)[3..],
            [(Check::Bf16, false, lost), (Check::StepBf16, false, lost)]
        );

        // One that is ended in the midst of a check; half an answer is none.
        let cut = lines(&all[..2]) + &answer("step", true)[..30];
        let crashed = Examination::of(&cut, Some("signal: 11".into()), 9.0);
        assert_eq!(told(&crashed)[2], (Check::Step, false, "signal: 11"));
        assert_eq!(crashed.findings[2].seconds, 7.0);
        assert_eq!(crashed.findings.len(), all.len());

        let exit = Examination::of(&lines(&all), Some("signal: 6".into()), 9.0);
        assert!(!exit.all_work() && told(&exit) == told(&whole));
        assert!(exit.lines().contains("at its end: signal: 6"));

        let closed = Examination::of(&answer("open", false), None, 9.0);
        assert_eq!(told(&closed), [(Check::Open, false, "it is")]);
        assert!(!Examination::of("", None, 9.0).all_work());
    }

    #[test]
    #[cfg(unix)]
    fn no_process_is_waited_for_for_ever() {
        let shell = |script: &str, timeout: u64| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(command, Duration::from_millis(timeout)).unwrap()
        };
        let start = Instant::now();
        // The pipe is inherited by a process that goes on.
        let ended = shell("echo said; sleep 60 &", 10_000);
        assert_eq!((ended.stdout.as_str(), ended.problem), ("said\n", None));
        let ended = shell("echo said; exec sleep 60", 500);
        assert!(ended.problem.unwrap().starts_with("no answer in 0 s"));
        assert!(ended.seconds >= 0.5);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

//! One file, fetched in as many pieces as it takes: what is on the disk is not fetched again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use ureq::http::{HeaderMap, StatusCode};

use super::hub::{Hub, RemoteFile};

/// Attempts that may fail in a row, without a byte in between.
const ATTEMPTS: u32 = 4;

/// How a piece ended.
enum Piece {
    /// The server closed, in order or not; what came is on the disk.
    Ended,
    /// The server refuses, and would do so again.
    Refused(anyhow::Error),
    /// Worth another attempt.
    Failed(anyhow::Error),
}

/// Fetches `remote` to `blob`, going on from where an earlier attempt was cut off.
///
/// # Errors
/// A server that refuses or keeps failing, a full disk, content that is not what the hub said.
pub(super) fn download(hub: &Hub, remote: &RemoteFile, blob: &Path) -> anyhow::Result<()> {
    let partial = partial_of(blob);
    let at = || partial.display().to_string();
    let options = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .clone();
    let mut file = options.open(&partial).with_context(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another process is fetching {}; wait for it",
                remote.address
            )
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(at),
    }
    let bar = progress(remote);
    let mut failures = 0;
    loop {
        let have = file.metadata().with_context(at)?.len();
        if have == remote.size {
            break;
        }
        if have > remote.size {
            file.set_len(0).with_context(at)?;
            continue;
        }
        bar.set_position(have);
        let piece = append(hub, remote, have, &mut file, &bar);
        let error = match piece {
            Piece::Refused(error) => return Err(error),
            Piece::Ended => anyhow!("{}: the connection was cut", remote.address),
            Piece::Failed(error) => error,
        };
        if file.metadata().with_context(at)?.len() > have {
            failures = 0;
            continue;
        }
        failures += 1;
        if failures == ATTEMPTS {
            return Err(error.context(format!(
                "gave up after {ATTEMPTS} attempts; what was fetched is kept, and the same command goes on from it"
            )));
        }
        std::thread::sleep(Duration::from_millis(250 << failures));
    }
    bar.finish_and_clear();
    file.sync_all().with_context(at)?;
    if let Some(digest) = &remote.digest
        && let Some(complaint) = digest.complaint(&partial)?
    {
        std::fs::remove_file(&partial).with_context(at)?;
        bail!(
            "{}: {complaint}; the file was removed: fetch again, and if it happens again, something on the way changes \
             files",
            remote.address
        );
    }
    std::fs::rename(&partial, blob).with_context(at)
}

/// Fetches what lies beyond byte `have`.
fn append(hub: &Hub, remote: &RemoteFile, have: u64, file: &mut File, bar: &ProgressBar) -> Piece {
    let answer = match hub.get(&remote.address, (have > 0).then_some(have)) {
        Ok(answer) => answer,
        Err(error) => return Piece::Failed(error),
    };
    let status = answer.status();
    let start = match (status, first_byte(answer.headers())) {
        (StatusCode::PARTIAL_CONTENT, Some(from)) if from == have => have,
        // The server sends all of it again, or knows nothing beyond: what is here is of no use.
        (StatusCode::OK, _) => 0,
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
            return match file.set_len(0) {
                Ok(()) => Piece::Failed(anyhow!("{}: no such range", remote.address)),
                Err(error) => Piece::Refused(error.into()),
            };
        }
        _ => {
            let error = anyhow!("{}: the server answered {status}", remote.address);
            return if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                Piece::Failed(error)
            } else {
                Piece::Refused(error)
            };
        }
    };
    if start < have {
        if let Err(error) = file.set_len(start) {
            return Piece::Refused(error.into());
        }
        bar.set_position(start);
    }
    let mut body = answer.into_body().into_reader().take(remote.size - start);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Piece::Ended,
            Ok(count) => {
                // Straight to the disk: whatever kills this process, the next one goes on from here.
                if let Err(error) = file.write_all(&buffer[..count]) {
                    return Piece::Refused(error.into());
                }
                bar.inc(count as u64);
            }
            Err(error) => return Piece::Failed(anyhow!("{}: {error}", remote.address)),
        }
    }
}

/// The first byte that a partial answer holds.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Where the part that is there already lies. Hugging Face's tools call it so too.
fn partial_of(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    PathBuf::from(name)
}

/// A bar on a terminal, a line elsewhere.
fn progress(remote: &RemoteFile) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("fetching {} ({})", remote.name, HumanBytes(remote.size));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(remote.size).with_message(remote.name.clone());
    let style = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

//! Processor, memory and FFmpeg.

use std::fs;

use limbic_data::FfmpegBuild;
use serde::Serialize;

/// What the machine is.
#[derive(Serialize)]
pub(crate) struct Machine {
    /// Its name, where the system tells.
    processor: Option<String>,
    /// Threads that may run at once.
    threads: usize,
    /// Those of [`USEFUL`] that it has.
    instructions: Vec<&'static str>,
    /// Bytes, where the system tells: the machine's, or less where a control group allows less.
    memory: Option<u64>,
    /// Bytes that are free, likewise.
    free: Option<u64>,
    ffmpeg: Ffmpeg,
}

#[derive(Serialize)]
struct Ffmpeg {
    libavcodec: String,
    release: u32,
    missing_decoders: Vec<&'static str>,
}

/// What speeds matrix products up, as Linux names it.
const USEFUL: [&str; 7] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "asimd",
];

impl Machine {
    pub(crate) fn new() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let flags = field(&processor, "flags").or(field(&processor, "Features"));
        let flags: Vec<&str> = flags.unwrap_or_default().split_whitespace().collect();
        let bytes = |key| kibibytes(field(&memory, key)?);
        let allowed = control_group("memory.max");
        let left = allowed.zip(control_group("memory.current"));
        let least = |machine: Option<u64>, group: Option<u64>| match (machine, group) {
            (Some(machine), Some(group)) => Some(machine.min(group)),
            (machine, group) => machine.or(group),
        };
        let ffmpeg = FfmpegBuild::loaded();
        Self {
            processor: field(&processor, "model name").map(str::to_string),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            instructions: USEFUL
                .into_iter()
                .filter(|name| flags.contains(name))
                .collect(),
            memory: least(bytes("MemTotal"), allowed),
            free: least(
                bytes("MemAvailable"),
                left.map(|(most, used)| most.saturating_sub(used)),
            ),
            ffmpeg: Ffmpeg {
                libavcodec: ffmpeg.libavcodec,
                release: ffmpeg.release,
                missing_decoders: ffmpeg.missing,
            },
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let missing = &self.ffmpeg.missing_decoders;
        let mut notes = Vec::new();
        if !missing.is_empty() {
            notes.push(format!(
                "FFmpeg cannot decode {}; install one that is built with them (Debian: libavcodec-extra) to read such clips",
                missing.join(", ")
            ));
        }
        notes
    }

    pub(crate) fn table(&self) -> String {
        let gibibytes = |bytes: Option<u64>| match bytes {
            Some(bytes) => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
            None => "unknown".to_string(),
        };
        format!(
            "processor     {}, {} thread(s)\ninstructions  {}\nmemory        {}, {} free\nFFmpeg        {} (libavcodec {})\n",
            self.processor.as_deref().unwrap_or("unknown"),
            self.threads,
            match self.instructions.as_slice() {
                [] => "none known".to_string(),
                known => known.join(", "),
            },
            gibibytes(self.memory),
            gibibytes(self.free),
            self.ffmpeg.release,
            self.ffmpeg.libavcodec,
        )
    }
}

/// The first value of `key` in lines of `key : value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

/// Bytes of `1234 kB`.
fn kibibytes(text: &str) -> Option<u64> {
    let count: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

/// A figure of the second version's control groups; `max` is none.
fn control_group(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_understood() {
        let text = "processor\t: 0\nmodel name\t: A B @ 2\nflags\t\t: fpu avx2 amx_bf16\n";
        assert_eq!(field(text, "model name"), Some("A B @ 2"));
        assert_eq!(field(text, "flags"), Some("fpu avx2 amx_bf16"));
        assert_eq!(field(text, "Features"), None);
        assert_eq!(kibibytes("24624 kB"), Some(24624 * 1024));
        assert_eq!(kibibytes("24624"), None);
    }
}

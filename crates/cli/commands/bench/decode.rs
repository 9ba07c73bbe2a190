use std::path::{Path, PathBuf};

use limbic_data::audio::{Waveform, resample};
use limbic_data::{Crop, FrameSampler, MediaInfo, Span, probe, read_frames, read_waveform};
use limbic_train::RunError;
use limbic_weights::CounterRng;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::args::{CropName, DecodeArgs};
use super::measure::{self, Times};

/// Length of the noise that is resampled.
const NOISE_SECONDS: usize = 10;

pub(crate) fn run(args: &DecodeArgs) -> anyhow::Result<()> {
    if args.files.is_empty() && args.resample.is_empty() {
        return Err(RunError::recipe(
            "nothing to decode; give files, or --resample with rates",
        ));
    }
    if args.resample.contains(&0) || args.rate == 0 {
        return Err(RunError::recipe("a rate is 0, wanted some Hz"));
    }
    let files: Vec<(&PathBuf, MediaInfo)> = args
        .files
        .iter()
        .map(|path| Ok((path, probe(path)?)))
        .collect::<anyhow::Result<_>>()?;
    let with = |has: fn(&MediaInfo) -> bool| -> Vec<(&Path, f64)> {
        let some = files.iter().filter(|(_, info)| has(info));
        some.map(|(path, info)| (path.as_path(), info.duration))
            .collect()
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let videos = with(|info| info.video.is_some());
    if !videos.is_empty() {
        let sampler = FrameSampler::Uniform { count: args.frames };
        let crop = match args.crop {
            CropName::Squash => Crop::Squash,
            CropName::CenterSquare => Crop::CenterSquare,
            CropName::Face => Crop::Face { margin: 0.3 },
        };
        let passes = passes(args, &pool, &videos, |path| {
            let frames = read_frames(path, Span::ALL, &sampler, args.size, &crop)?;
            Ok(frames.map_or(0, |frames| frames.count))
        })?;
        print(args, "video", &videos, passes, "frames")?;
    }
    let sounds = with(|info| info.audio.is_some());
    if !sounds.is_empty() {
        let passes = passes(args, &pool, &sounds, |path| {
            let waveform = read_waveform(path, Span::ALL, args.rate)?;
            Ok(waveform.map_or(0, |waveform| waveform.samples.len()))
        })?;
        print(args, "audio", &sounds, passes, "samples")?;
    }
    for rate in &args.resample {
        let noise = noise(*rate);
        let name = format!("noise at {rate} Hz");
        let one = [(Path::new(&name), NOISE_SECONDS as f64)];
        let passes = passes(args, &pool, &one, |_| {
            Ok(resample(&noise, args.rate).samples.len())
        })?;
        print(args, &format!("resample {rate}"), &one, passes, "samples")?;
    }
    Ok(())
}

/// What all timed passes took, and what one of them gave.
struct Passes {
    times: Times,
    /// Seconds that all cores worked in a pass.
    cpu: Option<f64>,
    made: usize,
}

/// Reads all files, again and again.
fn passes(
    args: &DecodeArgs,
    pool: &ThreadPool,
    files: &[(&Path, f64)],
    read: impl Fn(&Path) -> anyhow::Result<usize> + Sync,
) -> anyhow::Result<Passes> {
    let all = || -> anyhow::Result<usize> {
        pool.install(|| files.par_iter().map(|(path, _)| read(path)).sum())
    };
    measure::repeat(args.warmup, 0, all)?;
    let began = measure::cpu_seconds();
    let (times, made) = measure::repeat(0, args.steps, all)?;
    let cpu = began.zip(measure::cpu_seconds());
    Ok(Passes {
        times,
        cpu: cpu.map(|(began, ended)| (ended - began) / args.steps as f64),
        made: made.last().copied().unwrap_or_default(),
    })
}

fn print(
    args: &DecodeArgs,
    kind: &str,
    files: &[(&Path, f64)],
    passes: Passes,
    made: &str,
) -> anyhow::Result<()> {
    let Passes {
        times,
        cpu,
        made: count,
    } = passes;
    let seconds: f64 = files.iter().map(|(_, seconds)| seconds).sum();
    // A clock of hundredths may not have moved.
    let per_core = cpu.filter(|cpu| *cpu > 0.0).map(|cpu| seconds / cpu);
    let mut figures = json!({
        "kind": kind,
        "files": files.len(),
        "media_s": measure::rounded(seconds),
        "times_real_time": measure::rounded(seconds / times.median()),
        "times_real_time_per_core": per_core.map_or(Value::Null, measure::rounded),
    });
    figures[made] = count.into();
    figures[format!("{made}_per_s")] = measure::rounded(count as f64 / times.median());
    measure::print("decode", args, &times, "pass", figures)
}

fn noise(rate: u32) -> Waveform {
    let rng = CounterRng::new(u64::from(rate));
    let count = NOISE_SECONDS as u64 * u64::from(rate);
    Waveform {
        sample_rate: rate,
        samples: (0..count)
            .map(|index| rng.uniform(index) as f32 - 0.5)
            .collect(),
    }
}

//! Repeating, timing and reporting. Nothing is printed while a clock runs.

use std::fs;
use std::time::Instant;

use burn::tensor::Device;
use limbic_train::RunError;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::RunArgs;
use crate::device;

/// Seconds of each timed repetition, ascending.
pub(crate) struct Times(Vec<f64>);

/// Repeats `work` and times all but the first `warmup` repetitions; what each of all gave is returned too.
pub(crate) fn repeat<T>(
    warmup: usize,
    steps: usize,
    mut work: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<(Times, Vec<T>)> {
    let mut seconds = Vec::with_capacity(steps);
    let mut results = Vec::with_capacity(warmup + steps);
    for number in 0..warmup + steps {
        let (taken, result) = timed(&mut work)?;
        if number >= warmup {
            seconds.push(taken);
        }
        results.push(result);
    }
    Ok((Times::new(seconds), results))
}

/// What `work` gives, and the seconds it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let began = Instant::now();
    let result = work()?;
    Ok((began.elapsed().as_secs_f64(), result))
}

impl Times {
    pub(crate) fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Between the two nearest values, as numpy has it.
    fn quantile(&self, share: f64) -> f64 {
        let place = share * (self.0.len() - 1) as f64;
        let (low, high) = (
            self.0[place.floor() as usize],
            self.0[place.ceil() as usize],
        );
        low + (high - low) * place.fract()
    }

    /// Median, extremes and the distance between the quartiles of what one repetition takes, under `name`.
    pub(crate) fn report(&self, name: &str) -> Map<String, Value> {
        let spread = self.quantile(0.75) - self.quantile(0.25);
        [
            ("median", self.median()),
            ("min", self.quantile(0.0)),
            ("max", self.quantile(1.0)),
            ("spread", spread),
        ]
        .into_iter()
        .map(|(of, seconds)| (format!("{of}_{name}_s"), rounded(seconds)))
        .collect()
    }
}

/// One line: what was measured (`shape`), how long it took, and `figures` of it.
pub(crate) fn print(
    command: &str,
    shape: &impl Serialize,
    times: &Times,
    name: &str,
    figures: Value,
) -> anyhow::Result<()> {
    let mut line = times.report(name);
    let stack = concat!("limbic ", env!("CARGO_PKG_VERSION"));
    line.insert("stack".into(), stack.into());
    line.insert("bench".into(), command.into());
    let mut shape = serde_json::to_value(shape)?;
    if shape.get("threads").is_some_and(Value::is_null) {
        shape["threads"] = rayon::current_num_threads().into();
    }
    line.insert("shape".into(), shape);
    line.insert("peak_rss_mib".into(), json!(peak_rss_mib()));
    if let Value::Object(figures) = figures {
        line.extend(figures);
    }
    println!("{}", Value::Object(line));
    Ok(())
}

/// A number with as many digits as a measurement is worth.
pub(crate) fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(value.is_finite().then_some(value));
    }
    let digits = (5.0 - value.abs().log10().floor()).max(0.0) as i32;
    let scale = 10f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// The devices that were asked for, after the host's threads have been limited as asked; once a process.
pub(crate) fn devices(run: &RunArgs) -> anyhow::Result<Vec<Device>> {
    if let Some(threads) = run.threads {
        // The one pool of the process, which must not be there yet.
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()?;
    }
    match &run.devices {
        Some(devices) => device::parse(devices),
        None => device::parse(&format!("cpu:{}", rayon::current_num_threads())),
    }
}

/// The one device of a benchmark that uses no more.
pub(crate) fn one_device(run: &RunArgs) -> anyhow::Result<Device> {
    let devices = devices(run)?;
    match (&run.devices, devices.as_slice()) {
        (Some(text), [_, _, ..]) if !text.starts_with("cpu") => Err(RunError::recipe(format!(
            "`--devices {text}`: this benchmark uses one device"
        ))),
        (_, [device, ..]) => Ok(device.clone()),
        (_, []) => Err(RunError::recipe("`--devices`: wanted a device")),
    }
}

/// What the devices' allocators hold; they give nothing back, so that this is the peak. `None` on the CPU.
pub(crate) fn peak_device_mib(devices: &[Device]) -> Option<u64> {
    let mut seen: Vec<&Device> = Vec::new();
    for device in devices {
        if !seen.contains(&device) {
            seen.push(device);
        }
    }
    let usage = seen.into_iter().map(Device::memory_pool_usage);
    let bytes: Option<u64> = usage.map(|usage| Some(usage?.bytes_reserved)).sum();
    bytes.map(|bytes| bytes >> 20)
}

/// Most memory that this process has had, where the system says so.
fn peak_rss_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// Seconds that all cores together have worked for this process, where the system says so.
pub(crate) fn cpu_seconds() -> Option<f64> {
    /// Linux counts in hundredths of a second towards programs, whatever its own clock.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |index: usize| fields.split(' ').nth(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_nearest_values() {
        // numpy.quantile([1, 2, 4, 8], [0, 0.25, 0.5, 0.75, 1]) is [1, 1.75, 3, 5, 8].
        let report = Times::new(vec![8.0, 1.0, 4.0, 2.0]).report("step");
        assert_eq!(report["min_step_s"], 1.0);
        assert_eq!(report["median_step_s"], 3.0);
        assert_eq!(report["max_step_s"], 8.0);
        assert_eq!(report["spread_step_s"], 3.25);
    }

    #[test]
    fn warming_up_takes_no_time_but_gives_results() {
        let mut count = 0;
        let work = || {
            count += 1;
            Ok(count)
        };
        let (times, results) = repeat(2, 3, work).unwrap();
        assert_eq!((times.0.len(), results), (3, vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn six_digits_are_kept() {
        assert_eq!(rounded(1234.56789), json!(1234.57));
        assert_eq!(rounded(0.0012345678), json!(0.00123457));
        assert_eq!(rounded(0.0), json!(0.0));
        assert_eq!(rounded(f64::NAN), Value::Null);
    }
}

//! `cpu:2` or `cuda:0,1` to devices.

use burn::tensor::Device;
use limbic_train::RunError;

/// The devices that `text` names.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<Device>> {
    let (kind, rest) = match text.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (text, None),
    };
    match kind {
        "cpu" => cpu(rest),
        "cuda" => cuda(rest),
        "wgpu" => wgpu(rest),
        _ => Err(RunError::recipe(format!(
            "`--devices {text}`: wanted cpu, cpu:REPLICAS, cuda:INDEX,INDEX... or wgpu"
        ))),
    }
}

/// More replicas than any machine has cores; each has threads of its own.
#[cfg(feature = "flex")]
const MOST_REPLICAS: usize = 1024;

#[cfg(feature = "flex")]
fn cpu(replicas: Option<&str>) -> anyhow::Result<Vec<Device>> {
    let count = match replicas {
        None => std::thread::available_parallelism().map_or(1, usize::from),
        Some(count) => count
            .parse()
            .ok()
            .filter(|count| (1..=MOST_REPLICAS).contains(count))
            .ok_or_else(|| {
                RunError::recipe(format!(
                    "`--devices cpu:{count}`: wanted a number of replicas from 1 to {MOST_REPLICAS}, for example cpu:2"
                ))
            })?,
    };
    Ok(vec![Device::flex(); count])
}

#[cfg(not(feature = "flex"))]
fn cpu(_replicas: Option<&str>) -> anyhow::Result<Vec<Device>> {
    Err(missing("cpu", "flex"))
}

#[cfg(feature = "cuda")]
fn cuda(indices: Option<&str>) -> anyhow::Result<Vec<Device>> {
    Ok(parse_indices("cuda", indices)?
        .into_iter()
        .map(Device::cuda)
        .collect())
}

#[cfg(not(feature = "cuda"))]
fn cuda(indices: Option<&str>) -> anyhow::Result<Vec<Device>> {
    parse_indices("cuda", indices)?;
    Err(missing("cuda", "cuda"))
}

#[cfg(feature = "wgpu")]
fn wgpu(kind: Option<&str>) -> anyhow::Result<Vec<Device>> {
    use burn::tensor::DeviceKind;
    match kind {
        None => Ok(vec![Device::wgpu(DeviceKind::DefaultDevice)]),
        Some("cpu") => Ok(vec![Device::wgpu(DeviceKind::Cpu)]),
        Some(indices) => Ok(parse_indices("wgpu", Some(indices))?
            .into_iter()
            .map(|index| Device::wgpu(DeviceKind::DiscreteGpu(index)))
            .collect()),
    }
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_kind: Option<&str>) -> anyhow::Result<Vec<Device>> {
    Err(missing("wgpu", "wgpu"))
}

fn parse_indices(kind: &str, indices: Option<&str>) -> anyhow::Result<Vec<usize>> {
    let indices = indices
        .unwrap_or("0")
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<usize>, _>>();
    indices
        .ok()
        .filter(|indices| !indices.is_empty())
        .ok_or_else(|| {
            RunError::recipe(format!(
                "`--devices {kind}:...` wants indices, for example {kind}:0,1"
            ))
        })
}

#[cfg(not(all(feature = "cuda", feature = "wgpu", feature = "flex")))]
fn missing(kind: &str, feature: &str) -> anyhow::Error {
    RunError::recipe(format!(
        "this limbic was built without {kind}; build it with `cargo build --release --features {feature}`"
    ))
}

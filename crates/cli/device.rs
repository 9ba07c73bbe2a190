//! `cpu:2` or `cuda:0,1` to devices that are there.

#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::tensor::DeviceType;
use burn::tensor::{Device, FloatDType};
use limbic_llama::is_cpu;
use limbic_train::RunError;
use limbic_weights::Precision;

/// The kinds of device that limbic knows, with the feature that builds each and whether it is built in.
pub(crate) const KINDS: [(&str, &str, bool); 3] = [
    ("cpu", "flex", cfg!(feature = "flex")),
    ("cuda", "cuda", cfg!(feature = "cuda")),
    ("wgpu", "wgpu", cfg!(feature = "wgpu")),
];

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
            "`--devices {text}`: wanted cpu, cpu:REPLICAS, cuda:INDEX,INDEX..., wgpu, wgpu:INDEX,INDEX... or wgpu:cpu"
        ))),
    }
}

/// The names of the devices that `text` names, one at a time; the replicas of a CPU are one device.
pub(crate) fn each(text: &str) -> Vec<String> {
    match text.split_once(':') {
        Some((kind @ ("cuda" | "wgpu"), indices)) => indices
            .split(',')
            .map(|index| format!("{kind}:{index}"))
            .collect(),
        _ => vec![text.to_string()],
    }
}

/// A name for each device of `kind` that is there.
pub(crate) fn names(kind: &str) -> Vec<String> {
    match kind {
        "cpu" if cfg!(feature = "flex") => vec!["cpu".to_string()],
        "cuda" => cuda_names(),
        "wgpu" => wgpu_names(),
        _ => Vec::new(),
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

/// burn panics where it opens a GPU that is not there, so the driver is asked first.
#[cfg(feature = "cuda")]
fn cuda(indices: Option<&str>) -> anyhow::Result<Vec<Device>> {
    let indices = parse_indices("cuda", indices)?;
    let count = Device::enumerate(DeviceType::Cuda).len();
    indices
        .into_iter()
        .map(|index| match count {
            0 => Err(RunError::recipe(format!(
                "`--devices cuda:{index}`: there is no NVIDIA driver (libcuda.so), or it finds no GPU; see what \
                 `nvidia-smi` says and install the driver, set LD_LIBRARY_PATH where it lies elsewhere, or use \
                 `--devices cpu`"
            ))),
            _ if index >= count => Err(RunError::recipe(format!(
                "`--devices cuda:{index}`: the driver finds {count} GPU(s), cuda:0 to cuda:{}",
                count - 1
            ))),
            _ => Ok(Device::cuda(index)),
        })
        .collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda(indices: Option<&str>) -> anyhow::Result<Vec<Device>> {
    parse_indices("cuda", indices)?;
    Err(missing("cuda", "cuda"))
}

#[cfg(feature = "cuda")]
fn cuda_names() -> Vec<String> {
    let count = Device::enumerate(DeviceType::Cuda).len();
    (0..count).map(|index| format!("cuda:{index}")).collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_names() -> Vec<String> {
    Vec::new()
}

#[cfg(feature = "wgpu")]
fn wgpu(kind: Option<&str>) -> anyhow::Result<Vec<Device>> {
    let wanted = match kind {
        None => vec![Device::wgpu(DeviceKind::DefaultDevice)],
        Some("cpu") => vec![Device::wgpu(DeviceKind::Cpu)],
        Some(indices) => parse_indices("wgpu", Some(indices))?
            .into_iter()
            .map(|index| Device::wgpu(DeviceKind::DiscreteGpu(index)))
            .collect(),
    };
    let found = Device::enumerate(DeviceType::Wgpu);
    let text = kind.map_or("wgpu".to_string(), |kind| format!("wgpu:{kind}"));
    if found.is_empty() {
        return Err(RunError::recipe(format!(
            "`--devices {text}`: no Vulkan driver finds a device; install the GPU's driver, or mesa-vulkan-drivers and \
             libvulkan1 for one in software (wgpu:cpu), or use `--devices cpu`"
        )));
    }
    if kind.is_some() && wanted.iter().any(|device| !found.contains(device)) {
        return Err(RunError::recipe(format!(
            "`--devices {text}`: there is no such device, wanted one of {}",
            wgpu_names().join(", ")
        )));
    }
    Ok(wanted)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_kind: Option<&str>) -> anyhow::Result<Vec<Device>> {
    Err(missing("wgpu", "wgpu"))
}

/// Integrated and virtual GPUs have no name of their own, but are what `wgpu` alone takes.
#[cfg(feature = "wgpu")]
fn wgpu_names() -> Vec<String> {
    let found = Device::enumerate(DeviceType::Wgpu);
    let mut named: Vec<String> = (0..found.len())
        .filter(|index| found.contains(&Device::wgpu(DeviceKind::DiscreteGpu(*index))))
        .map(|index| format!("wgpu:{index}"))
        .collect();
    if found.contains(&Device::wgpu(DeviceKind::Cpu)) {
        named.push("wgpu:cpu".into());
    }
    if named.len() < found.len() {
        named.push("wgpu".into());
    }
    named
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_names() -> Vec<String> {
    Vec::new()
}

fn parse_indices(kind: &str, indices: Option<&str>) -> anyhow::Result<Vec<usize>> {
    indices
        .unwrap_or("0")
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| {
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

/// The precision that frozen weights are best held in on all of `devices`: GPUs multiply BF16 many times as fast as F32,
/// and a CPU converts it to F32 at every product.
pub(crate) fn suits(devices: &[Device]) -> Precision {
    let suited = |device: &Device| !is_cpu(device) && device.supports_dtype(FloatDType::BF16);
    match devices.iter().all(suited) {
        true => Precision::Bf16,
        false => Precision::F32,
    }
}

/// What a device calls itself, where it says so. Opens it.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) fn title(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

/// What a device calls itself, where it says so.
#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
pub(crate) fn title(_device: &Device) -> Option<String> {
    None
}

//! What the machine has, and what each device gets right. A driver may crash the process that asks it, so each device is
//! asked in a process of its own.

mod child;
mod machine;
mod step;
mod trial;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use child::Examination;
pub(crate) use child::{Child, run_child};
use machine::Machine;

use crate::device::{self, KINDS};

/// All that doctor has to say.
#[derive(Serialize)]
pub(crate) struct Report {
    version: &'static str,
    /// Features that name devices.
    features: Vec<&'static str>,
    machine: Machine,
    devices: Vec<Examined>,
    /// What is missing, and what to do.
    notes: Vec<String>,
    /// Devices without which the report is a bad one.
    #[serde(skip)]
    needed: Vec<String>,
}

/// A device and what was found on it.
#[derive(Serialize)]
struct Examined {
    /// As `--devices` has it.
    name: String,
    works: bool,
    #[serde(flatten)]
    examination: Examination,
}

impl Report {
    /// Examines the machine and the devices called `names`, or all that are found.
    ///
    /// # Errors
    /// When this program cannot be started a second time.
    pub(crate) fn new(names: &[String], timeout: Duration) -> anyhow::Result<Self> {
        let machine = Machine::new();
        let mut notes = machine.notes();
        let named: Vec<String> = names.iter().flat_map(|name| device::each(name)).collect();
        let mut found = named.clone();
        for (kind, feature, built) in KINDS {
            if !built {
                notes.extend(unbuilt(kind, feature));
            } else if names.is_empty() {
                match child::list(kind, timeout)? {
                    Ok(listed) if listed.is_empty() => notes.push(absent(kind).to_string()),
                    Ok(listed) => found.extend(listed),
                    Err(problem) => {
                        notes.push(format!("devices of {kind} cannot be listed: {problem}"))
                    }
                }
            }
        }
        if cfg!(feature = "cuda") && found.iter().any(|name| name.starts_with("cuda")) {
            notes.extend(lacking_toolkit());
        }
        let devices: Vec<Examined> = found
            .into_iter()
            .map(|name| {
                let examination = child::examine(&name, timeout)?;
                Ok(Examined {
                    works: examination.all_work(),
                    name,
                    examination,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let needed = match names {
            [] if cfg!(feature = "flex") => vec!["cpu".to_string()],
            _ => named,
        };
        Ok(Self {
            needed,
            version: env!("CARGO_PKG_VERSION"),
            features: KINDS
                .iter()
                .filter(|(.., built)| *built)
                .map(|(_, feature, _)| *feature)
                .collect(),
            machine,
            devices,
            notes,
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "limbic {}, built with {}\n\n{}",
            self.version,
            self.features.join(", "),
            self.machine.table()
        );
        for device in &self.devices {
            let verdict = if device.works {
                "works"
            } else {
                "does not work"
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n--devices {} {verdict}", device.name);
            text += &device.examination.lines();
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    /// # Errors
    /// When a device that was asked for, or the CPU, does not work; without a CPU, when none does. GPUs that were merely
    /// found may fail.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let works = |name: &String| {
            let mut devices = self.devices.iter();
            devices.any(|device| device.works && device.name == *name)
        };
        if let Some(name) = self.needed.iter().find(|name| !works(name)) {
            anyhow::bail!("`--devices {name}` does not work here; what failed is listed above");
        }
        anyhow::ensure!(
            self.devices.iter().any(|device| device.works),
            "no device works here; what failed is listed above"
        );
        Ok(())
    }
}

/// A driver on the machine that this program was built without.
fn unbuilt(kind: &str, feature: &str) -> Option<String> {
    let driver = "/proc/driver/nvidia/version";
    match kind {
        "cpu" => Some(format!(
            "built without the feature `{feature}`: results cannot be compared with a CPU's"
        )),
        "cuda" if Path::new(driver).exists() => Some(format!(
            "there is an NVIDIA driver, but limbic was built without cuda; build it with `cargo build --release \
             --features {feature}`, or with scripts/build-cuda-offline.sh where LLVM cannot be downloaded"
        )),
        _ => None,
    }
}

/// What kernels for cuda are compiled with beside the driver, where burn would not find it.
fn lacking_toolkit() -> Option<String> {
    let (what, file, usual): (_, _, &[&str]) = match cfg!(feature = "cuda-nvrtc") {
        true => (
            "NVRTC and headers",
            "include/cuda_fp16.h",
            &["/usr/local/cuda", "/opt/cuda", "/usr"],
        ),
        false => (
            "libdevice",
            "nvvm/libdevice/libdevice.10.bc",
            &["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"],
        ),
    };
    let there = match std::env::var_os("CUDA_PATH") {
        Some(folder) => Path::new(&folder).join(file).is_file(),
        None => usual
            .iter()
            .any(|folder| Path::new(folder).join(file).is_file()),
    };
    (!there).then(|| {
        format!(
            "no CUDA toolkit, with whose {what} kernels are compiled for cuda: install one (Debian: \
             nvidia-cuda-toolkit), or set CUDA_PATH to the folder that has its {file}"
        )
    })
}

/// A kind of device that was built in and is not there.
fn absent(kind: &str) -> &'static str {
    match kind {
        "cuda" => {
            "no cuda device: there is no NVIDIA driver (libcuda.so), or it finds no GPU; see what `nvidia-smi` says, and \
             install the driver or set LD_LIBRARY_PATH"
        }
        "wgpu" => {
            "no wgpu device: no Vulkan driver finds one; install the GPU's driver, or libvulkan1 and mesa-vulkan-drivers \
             for one in software"
        }
        _ => "no cpu device",
    }
}

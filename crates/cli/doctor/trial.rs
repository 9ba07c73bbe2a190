//! What a device is asked to compute, and what is held against it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{CounterRng, Precision};
use serde::{Deserialize, Serialize};

use super::step::{self, Step};
use crate::device;

/// One question. Each stands on those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Check {
    /// Does it open, and what does it call itself?
    Open,
    /// Is an F32 matrix product right?
    Matmul,
    /// Are loss and gradients of a training step right?
    Step,
    /// Does it compute in BF16?
    Bf16,
    /// Are they right with the frozen weights in BF16?
    StepBf16,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    /// Whether it is as it should be; a device without BF16 is.
    pub(super) works: bool,
    /// In words.
    pub(super) detail: String,
    /// The largest difference found, relative to the largest value, where something was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    difference: Option<f64>,
    /// With compiling and choosing kernels, where that is done.
    pub(super) seconds: f64,
}

/// Largest relative differences. GPUs may take F32 products in TF32, whose 11 significant bits leave about 1e-3.
const F32: f64 = 5e-3;
/// BF16 has 8 significant bits.
const BF16: f64 = 5e-2;
/// A slope measured from two F32 losses has about four digits.
const SLOPE: f64 = 1e-2;

impl Check {
    pub(super) const ALL: [Self; 5] = [
        Self::Open,
        Self::Matmul,
        Self::Step,
        Self::Bf16,
        Self::StepBf16,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Open => "opens",
            Self::Matmul => "f32 product",
            Self::Step => "training step",
            Self::Bf16 => "bf16",
            Self::StepBf16 => "bf16 step",
        }
    }

    /// Asks the device called `name`. A panic is an answer, too.
    pub(super) fn run(self, name: &str) -> Finding {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.ask(name)));
        let seconds = start.elapsed().as_secs_f64();
        let failed = |detail| Finding::failed(self, detail, seconds);
        match outcome {
            Ok(Ok((detail, difference))) => Finding {
                check: self,
                works: true,
                detail,
                difference,
                seconds,
            },
            Ok(Err(error)) => failed(format!("{error:#}")),
            Err(panic) => failed(words(&*panic)),
        }
    }

    /// The answer in words, and the difference.
    fn ask(self, name: &str) -> anyhow::Result<(String, Option<f64>)> {
        // Replicas of a CPU are one device, and others are named one at a time.
        let device = device::parse(name)?.swap_remove(0);
        match self {
            Self::Open => {
                let sum = Tensor::<1>::ones([2], &device).sum();
                anyhow::ensure!(sum.into_scalar::<f32>() == 2.0, "1 + 1 is not 2 there");
                let title = device::title(&device);
                Ok((title.unwrap_or_else(|| "yes".into()), None))
            }
            Self::Matmul => compared("the exact one", matmul_difference(&device), F32),
            Self::Step if name.starts_with("cpu") || !HAS_CPU => {
                let difference = step::slope_difference(&device)?;
                compared("slopes of the loss", difference, SLOPE)
            }
            Self::Step => {
                let difference =
                    step::run(&device, Precision::F32)?.difference(&reference(&device)?);
                compared("the CPU's loss and gradients", difference, F32)
            }
            Self::Bf16 => Ok((
                match device.supports_dtype(FloatDType::BF16) {
                    true => "supported".into(),
                    false => "not supported; frozen weights stay in f32".into(),
                },
                None,
            )),
            Self::StepBf16 if !device.supports_dtype(FloatDType::BF16) => {
                Ok(("left out".into(), None))
            }
            Self::StepBf16 => {
                let difference =
                    step::run(&device, Precision::Bf16)?.difference(&reference(&device)?);
                let with = match HAS_CPU {
                    true => "the CPU's loss and gradients in f32",
                    false => "its own loss and gradients in f32",
                };
                compared(with, difference, BF16)
            }
        }
    }
}

/// Whether there is a CPU to hold others against.
const HAS_CPU: bool = cfg!(feature = "flex");

/// The training step on the CPU, or on `device` itself where the CPU is not built in.
fn reference(device: &Device) -> anyhow::Result<Step> {
    let device = match HAS_CPU {
        true => &device::parse("cpu:1")?[0],
        false => device,
    };
    step::run(device, Precision::F32)
}

fn compared(with: &str, difference: f64, most: f64) -> anyhow::Result<(String, Option<f64>)> {
    // Not `>`: what is no number is wrong.
    anyhow::ensure!(
        difference <= most,
        "wrong: differs from {with} by {difference:.1e} of the largest value, at most {most:.0e} would do"
    );
    Ok((
        format!("right: differs from {with} by {difference:.1e} of the largest value"),
        Some(difference),
    ))
}

/// Of a product of odd sizes, from the same in F64.
fn matmul_difference(device: &Device) -> f64 {
    let [rows, inner, columns] = [37, 113, 61];
    let rng = CounterRng::new(1);
    let values = |site: &str, count: usize| -> Vec<f32> {
        let rng = rng.site(site);
        (0..count as u64).map(|i| rng.normal(i) as f32).collect()
    };
    let (a, b) = (values("a", rows * inner), values("b", inner * columns));
    let exact = (0..rows * columns).map(|place| {
        let (row, column) = (place / columns, place % columns);
        let terms =
            (0..inner).map(|k| f64::from(a[row * inner + k]) * f64::from(b[k * columns + column]));
        terms.sum::<f64>()
    });
    let tensor = |values: &[f32], shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let product = tensor(&a, [rows, inner]).matmul(tensor(&b, [inner, columns]));
    let got: Vec<f64> = product.into_data().iter::<f64>().collect();
    step::relative(&got, &exact.collect::<Vec<f64>>())
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a word"))
}

impl Finding {
    /// Of a check that gave no answer, or a wrong one.
    pub(super) fn failed(check: Check, detail: String, seconds: f64) -> Self {
        Self {
            check,
            works: false,
            detail,
            difference: None,
            seconds,
        }
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        format!(
            "  {:<14} {:<5} {:>6.1} s  {}\n",
            self.check.name(),
            if self.works { "ok" } else { "FAILS" },
            self.seconds,
            self.detail
        )
    }
}

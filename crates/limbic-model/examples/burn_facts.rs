//! What the design takes for granted about burn, tried out. docs/architecture.md quotes the output.
//!
//! Run: `cargo run --release -p limbic-model --example burn_facts`

#![allow(clippy::print_stdout, reason = "a program to be read")]

use std::time::Instant;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};

#[derive(Module, Debug)]
struct Mixed {
    frozen: Param<Tensor<2>>,
    trained: Param<Tensor<2>>,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        let matrix = || Tensor::<2>::random([64, 64], Distribution::Default, device);
        Self {
            frozen: Param::initialized(ParamId::new(), matrix()),
            trained: Param::initialized(ParamId::new(), matrix().autodiff().require_grad()),
        }
    }

    /// Whether each of the two is tracked.
    fn split(&self) -> (bool, bool) {
        let tracked =
            |param: &Param<Tensor<2>>| param.val().is_autodiff() && param.val().is_require_grad();
        (tracked(&self.frozen), tracked(&self.trained))
    }
}

fn main() {
    let device = Device::flex();
    mixed_modules(&device);
    gradient_dtype(&device);
    transposed_products(&device);
    cost_of_values(&device);
}

fn mixed_modules(device: &Device) {
    let model = Mixed::new(device);
    println!("a module with a plain and a tracked parameter (frozen tracked, trained tracked):");
    println!("  as built          {:?}", model.split());
    println!("  after clone       {:?}", model.clone().split());
    println!(
        "  after fork        {:?}",
        model.clone().fork(device).split()
    );
    println!(
        "  after to_device   {:?}",
        model.clone().to_device(device).split()
    );
    println!("  after valid       {:?}", model.valid().split());
    println!("  after train       {:?}", model.clone().train().split());
    let x = Tensor::<2>::ones([1, 64], device);
    let gradients = x
        .matmul(model.frozen.val())
        .matmul(model.trained.val())
        .sum()
        .backward();
    println!(
        "  gradient of the trained one: {}, of the frozen one: none is recorded, it has no tape",
        model.trained.val().grad(&gradients).is_some()
    );
}

fn gradient_dtype(device: &Device) {
    let x = Tensor::<2>::ones([4, 64], device).autodiff().require_grad();
    let weight = Tensor::<2>::ones([64, 8], device).cast(FloatDType::BF16);
    let y = x
        .clone()
        .cast(FloatDType::BF16)
        .matmul(weight)
        .cast(FloatDType::F32);
    let gradient = x.grad(&y.sum().backward()).map(|gradient| gradient.dtype());
    println!(
        "gradient of an F32 leaf through a BF16 product: {gradient:?} (wanted {:?})",
        Some(DType::F32)
    );
}

fn transposed_products(device: &Device) {
    let x = Tensor::<2>::random([1360, 512], Distribution::Default, device);
    let rows = Tensor::<2>::random([1376, 512], Distribution::Default, device);
    let columns = Tensor::<2>::random([512, 1376], Distribution::Default, device);
    let view = median(|| x.clone().matmul(rows.clone().transpose()));
    let contiguous = median(|| x.clone().matmul(columns.clone()));
    println!(
        "[1360, 512] x [512, 1376]: {contiguous:.2} ms, with the right side a transposed view {view:.2} ms"
    );
}

fn cost_of_values(device: &Device) {
    let model = Mixed::new(device);
    let times = 100_000;
    let start = Instant::now();
    for _ in 0..times {
        drop(model.trained.val().inner());
    }
    println!(
        "Param::val().inner(): {:.0} ns",
        start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
    );
}

fn median(work: impl Fn() -> Tensor<2>) -> f64 {
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let product = work();
            assert_eq!(product.dims(), [1360, 1376]);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

//! Low-rank adapters (Hu et al. 2021) with PEFT's definition and initialisation:
//! `y = x Wᵀ + scale · (dropout(x) Aᵀ) Bᵀ`, A uniform in ±1/√in (its `kaiming_uniform_(a=√5)`), B zero.
//!
//! With DoRA (Liu et al. 2024) the rows of `W + scale · B A` are brought to trained lengths m:
//! `y = s · (x Wᵀ + scale · (x Aᵀ) Bᵀ)` with `s = m / ‖W + scale · B A‖`, whose denominator takes no gradient.
//!
//! The product B·A is formed for its norms and when merging only: two thin matrices cost `r (in + out)` a position,
//! the dense one `in · out` and a gradient of that size.

// `lora_A` and `lora_B` are the names in PEFT's files, and a module's field names are its parameters' names.
#![allow(non_snake_case)]

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use limbic_weights::CounterRng;

use crate::Dropout;
use crate::lora_config::{Adapter, LoraConfig};

/// A linear layer and, where the [`LoraConfig`] says so, the adapter beside it.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[out, in]`, PyTorch's layout; its transposed view costs a matrix product nothing.
    pub weight: Param<Tensor<2>>,
    /// `[out]`, where the layer has one.
    pub bias: Option<Param<Tensor<1>>>,
    lora_A: Option<LoraFactor>,
    lora_B: Option<LoraFactor>,
    /// The lengths m of the rows, `[out]`, with DoRA only.
    lora_magnitude_vector: Option<Param<Tensor<1>>>,
    #[module(skip)]
    lora: Option<Adaptation>,
}

/// One of the two thin matrices: A `[r, in]`, B `[out, r]`.
#[derive(Module, Debug)]
pub struct LoraFactor {
    /// The matrix, in F32.
    pub weight: Param<Tensor<2>>,
}

/// What an adapter computes with.
#[cfg(feature = "flex")]
pub(crate) struct AdapterParts<'a> {
    pub(crate) a: &'a Param<Tensor<2>>,
    pub(crate) b: &'a Param<Tensor<2>>,
    pub(crate) magnitude: Option<&'a Param<Tensor<1>>>,
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
    pub(crate) site: &'a str,
}

#[derive(Clone, Debug)]
struct Adaptation {
    scale: f64,
    dropout: f64,
    site: String,
}

impl LoraLinear {
    pub(crate) fn new(input: usize, output: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: lazy_zeros([output, input], device),
            bias: bias.then(|| lazy_zeros([output], device)),
            lora_A: None,
            lora_B: None,
            lora_magnitude_vector: None,
            lora: None,
        }
    }

    /// # Shapes
    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
        let product = project(x.clone(), self.weight.val());
        let (Some(a), Some(b), Some(lora)) = (&self.lora_A, &self.lora_B, &self.lora) else {
            return self.with_bias(product);
        };
        let acts = dropout.acts(lora.dropout);
        let x = dropout.apply(x, lora.dropout, &lora.site);
        let low_rank = project(project(x.clone(), a.weight.val()), b.weight.val()) * lora.scale;
        let Some(magnitude) = &self.lora_magnitude_vector else {
            return self.with_bias(product) + low_rank;
        };
        let y = self.with_bias(product.clone());
        // PEFT's sum: the plain output, and what brings it to the trained length. With dropout the second part is
        // that of the thinned input.
        let product = if acts {
            project(x, self.weight.val())
        } else {
            product
        };
        let length = magnitude.val() / row_norms(self.merged_directions(a, b, lora.scale));
        y + product * (length.clone() - 1.0).unsqueeze() + low_rank * length.unsqueeze()
    }

    fn with_bias<const D: usize>(&self, y: Tensor<D>) -> Tensor<D> {
        match &self.bias {
            Some(bias) => {
                let bias = with_dtype(bias.val(), y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    /// Puts a fresh adapter beside the weight, in place of one that may be there.
    pub(crate) fn adapt(
        &mut self,
        name: &str,
        adapter: &Adapter,
        config: &LoraConfig,
        rng: CounterRng,
    ) {
        let [output, input] = self.weight.lazy_shape().dims();
        let device = self.weight.lazy_device().without_autodiff();
        let rank = adapter.rank;
        let rng = rng.site(&format!("{name}.lora_A.weight"));
        let uniform = move |device: &Device, _: bool| {
            let bound = 1.0 / (input as f64).sqrt();
            let values: Vec<f32> = (0..(rank * input) as u64)
                .map(|i| ((2.0 * rng.uniform(i) - 1.0) * bound) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, [rank, input]), device)
        };
        self.lora_A = Some(LoraFactor {
            weight: lazy([rank, input], uniform, &device),
        });
        self.lora_B = Some(LoraFactor {
            weight: lazy_zeros([output, rank], &device),
        });
        // Taken now, so that weights that come later cannot be mistaken for those that were adapted.
        let weight = self.weight.is_initialized().then(|| self.weight.val());
        let name_of_layer = name.to_string();
        let norms = move |_: &Device, _: bool| {
            let weight = weight.unwrap_or_else(|| {
                panic!("the row norms of `{name_of_layer}` were asked for, but it was adapted before its weights were there")
            });
            row_norms(with_dtype(weight.without_autodiff(), DType::F32))
        };
        self.lora_magnitude_vector = config.use_dora.then(|| lazy([output], norms, &device));
        self.lora = Some(Adaptation {
            scale: adapter.scale,
            dropout: config.lora_dropout,
            site: name.to_string(),
        });
    }

    /// The adapter beside the weight, if there is one.
    #[cfg(feature = "flex")]
    pub(crate) fn adapter(&self) -> Option<AdapterParts<'_>> {
        let (a, b) = self.lora_A.as_ref().zip(self.lora_B.as_ref())?;
        let lora = self.lora.as_ref()?;
        Some(AdapterParts {
            a: &a.weight,
            b: &b.weight,
            magnitude: self.lora_magnitude_vector.as_ref(),
            scale: lora.scale,
            dropout: lora.dropout,
            site: &lora.site,
        })
    }

    /// Whether the layer is a product with its weight and nothing else.
    pub(crate) fn is_plain(&self) -> bool {
        self.bias.is_none() && self.lora.is_none()
    }

    /// Whether an adapter stands beside the weight.
    pub(crate) fn is_adapted(&self) -> bool {
        self.lora.is_some()
    }

    /// Adds the adapter into the weight, in the precision of that, and takes it away.
    pub(crate) fn merge(&mut self) {
        let (Some(a), Some(b), Some(lora)) =
            (self.lora_A.take(), self.lora_B.take(), self.lora.take())
        else {
            return;
        };
        let dtype = self.weight.val().dtype();
        let mut merged = self.merged_directions(&a, &b, lora.scale);
        if let Some(magnitude) = self.lora_magnitude_vector.take() {
            let length = magnitude.val().without_autodiff() / row_norms(merged.clone());
            merged = merged * length.unsqueeze_dim(1);
        }
        self.weight = Param::initialized(self.weight.id, with_dtype(merged, dtype));
    }

    /// `W + scale · B A` in F32, without a tape.
    fn merged_directions(&self, a: &LoraFactor, b: &LoraFactor, scale: f64) -> Tensor<2> {
        let [a, b] = [a, b].map(|factor| factor.weight.val().without_autodiff());
        let weight = self.weight.val().without_autodiff();
        with_dtype(weight, DType::F32) + b.matmul(a) * scale
    }
}

/// Euclidean lengths of the rows, `[out, in]` to `[out]`.
fn row_norms(weight: Tensor<2>) -> Tensor<1> {
    weight.square().sum_dim(1).sqrt().squeeze_dim(1)
}

/// `x Wᵀ` with all leading dimensions folded into rows: one product reads the weight once, and in place.
/// (burn's `linear` copies a transposed weight whenever it decides not to fold.)
///
/// The product is taken in the weight's precision, or, of a few rows on CPU, in F32; the result is of x's.
pub(crate) fn project<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let mut shape = x.dims();
    let dtype = x.dtype();
    let [output, input] = weight.dims();
    let rows = shape[..D - 1].iter().product();
    shape[D - 1] = output;
    let x = x.reshape([rows, input]);
    #[cfg(feature = "flex")]
    if let Some(y) = crate::thin::product(&x, &weight) {
        return y.reshape(shape);
    }
    let x = with_dtype(x, weight.dtype());
    with_dtype(x.matmul(weight.transpose()), dtype).reshape(shape)
}

/// The same numbers in another precision; untouched where they have it.
pub(crate) fn with_dtype<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype {
        x
    } else {
        x.cast(FloatDType::from(dtype))
    }
}

/// Zeros that take memory when they are first read, so that loading weights allocates them once.
pub(crate) fn lazy_zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy(shape, move |device, _| Tensor::zeros(shape, device), device)
}

/// A parameter that is made when it is first read.
fn lazy<const D: usize>(
    shape: [usize; D],
    make: impl FnOnce(&Device, bool) -> Tensor<D> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::uninitialized(ParamId::new(), make, device.clone(), false, shape.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisation_is_pefts() {
        let device = Device::flex();
        let linear = LoraLinear::new(64, 32, false, &device);
        let mut linear = limbic_weights::seed(linear, 3);
        let config = LoraConfig {
            use_dora: true,
            ..LoraConfig::new(8, 16.0, &["q_proj"])
        };
        let plan = config.plan(&["q_proj".into()]).unwrap();
        linear.adapt(
            "q_proj",
            plan[0].as_ref().unwrap(),
            &config,
            CounterRng::new(1),
        );
        let values = |factor: &Option<LoraFactor>| {
            let value = factor.as_ref().unwrap().weight.val();
            (
                value.dims(),
                value.into_data().try_into_vec::<f32>().unwrap(),
            )
        };
        let (shape, a) = values(&linear.lora_A);
        assert_eq!(shape, [8, 64]);
        // Uniform in ±1/8: deviation 1/(8 √3) = 0.0722.
        let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let deviation = (a.iter().map(|v| v * v).sum::<f32>() / a.len() as f32).sqrt();
        assert!(largest <= 0.125 && largest > 0.12, "{largest}");
        assert!((deviation - 0.0722).abs() < 0.004, "{deviation}");
        let (shape, b) = values(&linear.lora_B);
        assert_eq!(shape, [32, 8]);
        assert!(b.iter().all(|v| *v == 0.0));

        let magnitude = linear.lora_magnitude_vector.as_ref().unwrap().val();
        let magnitude = magnitude.into_data().try_into_vec::<f32>().unwrap();
        let weight = linear
            .weight
            .val()
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        for (length, row) in magnitude.iter().zip(weight.chunks(64)) {
            let wanted = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            assert!((length - wanted).abs() < 1e-6, "{length} {wanted}");
        }
    }

    #[test]
    #[should_panic(expected = "`q_proj` were asked for")]
    fn norms_of_weights_that_are_not_there_are_not_made_up() {
        let mut linear = LoraLinear::new(4, 4, false, &Device::flex());
        let config = LoraConfig {
            use_dora: true,
            ..LoraConfig::new(2, 2.0, &["q_proj"])
        };
        let plan = config.plan(&["q_proj".into()]).unwrap();
        let adapter = plan[0].as_ref().unwrap();
        linear.adapt("q_proj", adapter, &config, CounterRng::new(1));
        linear.lora_magnitude_vector.unwrap().val();
    }
}

//! Frozen weights in fewer bits than what is computed around them.

use burn::module::Param;
use burn::tensor::Tensor;
use limbic_weights::Precision;

use crate::Llama;
use crate::lora::with_dtype;

impl Llama {
    /// The same model with its own matrices in `precision`, in which products with them are then taken. What stays in
    /// F32 is what is trained, the adapters, and what is small, norms and biases.
    pub fn hold_in(mut self, precision: Precision) -> Self {
        let dtype = precision.float_dtype().into();
        let mut changed = false;
        let mut held = |weight: &Param<Tensor<2>>| {
            let value = weight.val().without_autodiff();
            changed |= value.dtype() != dtype;
            Param::initialized(weight.id, with_dtype(value, dtype))
        };
        self.model.embed_tokens.weight = held(&self.model.embed_tokens.weight);
        for (_, linear) in self.linears_mut() {
            linear.weight = held(&linear.weight);
        }
        let device = self.model.embed_tokens.weight.lazy_device();
        // A GPU keeps what is let go of for later tensors, but this was twice as much as will be wanted. An error comes
        // up again where something is read.
        if changed && device.sync().is_ok() {
            device.memory_cleanup();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Device, FloatDType, Int};

    use super::*;
    use crate::{Dropout, LlamaConfig, LoraConfig, Padding};

    #[test]
    fn matrices_are_rounded_and_nothing_else() {
        let device = Device::flex();
        let config = LlamaConfig {
            attention_bias: true,
            ..LlamaConfig::small(32, 16, 2, 2)
        };
        let lora = LoraConfig::new(2, 2.0, &["q_proj"]);
        let llama = limbic_weights::seed(config.init(&device), 3);
        let llama = llama.with_lora(&lora, 3).unwrap();
        let held = llama.clone().hold_in(Precision::Bf16);
        let [before, after] = [&llama, &held].map(limbic_weights::Weights::collect);
        for (name, tensor) in &before.tensors {
            let is_own = tensor.shape.len() == 2 && !name.contains("lora");
            let wanted: Vec<f32> = match is_own {
                true => tensor
                    .values
                    .iter()
                    .map(|v| Precision::Bf16.round(*v))
                    .collect(),
                false => tensor.values.clone(),
            };
            assert_eq!(after.tensors[name].values, wanted, "{name}");
        }
        let dtype = |llama: &Llama| llama.model.layers[0].mlp.up_proj.weight.val().dtype();
        assert_eq!(dtype(&held), FloatDType::BF16.into());
        assert_eq!(held.num_params(), llama.num_params());

        let ids = Tensor::<2, Int>::from_data([[1i64, 2, 3]], &device);
        let hidden = |llama: &Llama| {
            let x = llama.embed(ids.clone());
            let hidden = llama.hidden(x, &Padding::Right, None, Dropout::OFF);
            assert_eq!(hidden.dtype(), FloatDType::F32.into());
            hidden
        };
        let difference = (hidden(&llama) - hidden(&held)).abs().max();
        let difference =
            difference.into_scalar::<f32>() / hidden(&llama).abs().max().into_scalar::<f32>();
        assert!(difference > 0.0 && difference < 0.02, "{difference}");
    }
}

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::{CounterRng, ModulePath};

/// Fills the parameters of two or more dimensions from `(seed, parameter name)`.
///
/// Weights of linear and convolution layers are uniform in ±1/√fan_in, as `torch.nn.Linear` leaves
/// them; embeddings, queries and positions are normal with deviation 0.02 (BERT). Biases become zero
/// and norms keep the ones they were built with.
pub fn seed<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Seeder {
        path: ModulePath::default(),
        rng: CounterRng::new(seed),
    })
}

struct Seeder {
    path: ModulePath,
    rng: CounterRng,
}

impl ModuleMapper for Seeder {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let device = param.lazy_device().without_autodiff();
        if D == 1 {
            return if name.ends_with("bias") {
                let shape = param.lazy_shape().to_vec();
                Param::initialized(param.id, Tensor::zeros(shape, &device))
            } else {
                param
            };
        }
        let mut shape = param.lazy_shape().to_vec();
        let transposed = self.path.is_transposed();
        if transposed {
            shape.swap(0, 1);
        }
        let rng = self.rng.site(&name);
        let count = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = if self.path.is_linear_weight() {
            let bound = 1.0 / (shape[1..].iter().product::<usize>() as f64).sqrt();
            (0..count)
                .map(|i| ((2.0 * rng.uniform(i) - 1.0) * bound) as f32)
                .collect()
        } else {
            (0..count).map(|i| (rng.normal(i) * 0.02) as f32).collect()
        };
        let mut value = Tensor::<D>::from_data(TensorData::new(values, shape), &device);
        if transposed {
            value = value.swap_dims(0, 1);
        }
        Param::initialized(param.id, value)
    }
}

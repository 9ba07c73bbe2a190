use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::ModulePath;

/// Names and shapes of a module's float parameters as files have them, in the module's order. No parameter is read, so that lazy
/// ones take no memory.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut lister = ShapeLister::default();
    module.visit(&mut lister);
    lister.found
}

#[derive(Default)]
struct ShapeLister {
    path: ModulePath,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for ShapeLister {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().to_vec();
        if self.path.is_transposed() {
            shape.swap(0, 1);
        }
        self.found.push((self.path.name(), shape));
    }
}

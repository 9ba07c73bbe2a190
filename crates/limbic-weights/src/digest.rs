use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Element, Tensor, TensorData, bf16, f16};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::ModulePath;

/// SHA-256 over names, shapes and values of tensors, which need not be in memory together nor come in order.
///
/// Values count as F32, whatever they are stored in. They are cut into stretches of 2²⁰, so that several threads hash a
/// tensor. A tensor's digest is that of its name, its shape and the digests of its stretches; all of them in the order of
/// their names make the whole one.
#[derive(Debug, Clone, Default)]
pub struct TensorDigest {
    tensors: BTreeMap<String, [u8; 32]>,
}

/// Values of a stretch.
const STRETCH: usize = 1 << 20;

impl TensorDigest {
    /// The digest of the float parameters of `module` whose name `wanted` accepts, one of them at a time on the host.
    pub fn of_module<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Self {
        let mut visitor = Digester {
            path: ModulePath::default(),
            digest: Self::default(),
            wanted,
        };
        module.visit(&mut visitor);
        visitor.digest
    }

    /// Takes up a tensor.
    ///
    /// # Panics
    /// When one of that name was taken up before.
    pub fn update(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.put(name, shape, values, |value| *value);
    }

    /// The same, with the values in a precision of their own.
    fn update_data(&mut self, name: &str, data: TensorData) {
        let shape = data.shape().to_vec();
        match data.dtype() {
            DType::F16 => self.put(name, &shape, slice::<f16>(&data), |value| value.to_f32()),
            DType::BF16 => self.put(name, &shape, slice::<bf16>(&data), |value| value.to_f32()),
            _ => self.update(name, &shape, slice(&data.convert_dtype(DType::F32))),
        }
    }

    fn put<T: Sync>(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[T],
        widen: impl Fn(&T) -> f32 + Sync,
    ) {
        let stretches = values.par_chunks(STRETCH);
        let stretches: Vec<[u8; 32]> = stretches.map(|values| of_values(values, &widen)).collect();
        let mut hasher = Sha256::new();
        hasher.update(format!("{name}{shape:?}"));
        hasher.update(stretches.as_flattened());
        let before = self
            .tensors
            .insert(name.to_string(), hasher.finalize().into());
        assert!(before.is_none(), "`{name}` is in the digest twice");
    }

    /// The digest in hex.
    pub fn finish(self) -> String {
        let mut hasher = Sha256::new();
        for of_tensor in self.tensors.values() {
            hasher.update(of_tensor);
        }
        to_hex(&hasher.finalize())
    }
}

/// SHA-256 of the little-endian bytes of the values as F32.
fn of_values<T>(values: &[T], widen: impl Fn(&T) -> f32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut bytes = [0u8; 1 << 14];
    for values in values.chunks(bytes.len() / 4) {
        let (places, _) = bytes.as_chunks_mut::<4>();
        for (place, value) in places.iter_mut().zip(values) {
            *place = widen(value).to_le_bytes();
        }
        hasher.update(&bytes[..4 * values.len()]);
    }
    hasher.finalize().into()
}

fn slice<E: Element>(data: &TensorData) -> &[E] {
    data.as_slice().expect("the values are of this precision")
}

struct Digester<F> {
    path: ModulePath,
    digest: TensorDigest,
    wanted: F,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Digester<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if !(self.wanted)(&name) {
            return;
        }
        let mut value = param.val();
        if self.path.is_transposed() {
            value = value.swap_dims(0, 1);
        }
        self.digest.update_data(&name, value.into_data());
    }
}

/// SHA-256 of `bytes` in hex.
pub fn hex_digest(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file in hex, of which a small part at a time is in memory.
///
/// # Errors
/// A file that cannot be read.
pub fn file_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(to_hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_what_it_says() {
        let long: Vec<f32> = (0..STRETCH + 3).map(|i| i as f32).collect();
        let hash = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        let bytes = |values: &[f32]| -> Vec<u8> {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        };
        let stretches = [
            hash(&bytes(&long[..STRETCH])),
            hash(&bytes(&long[STRETCH..])),
        ]
        .concat();
        let of_long = hash(&[format!("b[1, {}]", STRETCH + 3).as_bytes(), &stretches].concat());
        let of_short = hash(&[b"a[2]", hash(&bytes(&[1.5, -2.0])).as_slice()].concat());
        let wanted = hex_digest(&[of_short, of_long].concat());

        let mut digest = TensorDigest::default();
        digest.update("b", &[1, STRETCH + 3], &long);
        digest.update("a", &[2], &[1.5, -2.0]);
        assert_eq!(digest.finish(), wanted);
    }

    #[test]
    fn a_tensor_in_16_bits_counts_as_its_numbers() {
        let halves: Vec<bf16> = (0..5000).map(|i| bf16::from_f32(i as f32 * 0.37)).collect();
        let wide: Vec<f32> = halves.iter().map(|value| value.to_f32()).collect();
        let digest = |data: TensorData| {
            let mut digest = TensorDigest::default();
            digest.update_data("a", data);
            digest.finish()
        };
        let of_halves = digest(TensorData::new(halves, [50, 100]));
        assert_eq!(of_halves, digest(TensorData::new(wide, [50, 100])));
        let fine: Vec<f32> = (0..5000).map(|i| i as f32 * 0.37).collect();
        let fine = TensorData::new(fine, [50, 100]);
        let narrow = fine.clone().convert_dtype(DType::F16);
        let rounded = narrow.clone().convert_dtype(DType::F32);
        assert_eq!(digest(narrow.clone()), digest(rounded));
        assert_ne!(digest(narrow), digest(fine));
    }

    #[test]
    fn one_bit_and_one_name_change_it() {
        let digest = |name: &str, shape: &[usize], values: &[f32]| {
            let mut digest = TensorDigest::default();
            digest.update(name, shape, values);
            digest.finish()
        };
        let one = digest("a", &[2], &[0.0, 1.0]);
        for other in [
            digest("b", &[2], &[0.0, 1.0]),
            digest("a", &[1, 2], &[0.0, 1.0]),
            digest("a", &[2], &[-0.0, 1.0]),
        ] {
            assert_ne!(one, other);
        }
    }
}

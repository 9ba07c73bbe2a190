use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::NamedTensor;

/// SHA-256 over names, shapes and bits of tensors that need not be in memory together.
#[derive(Debug, Clone, Default)]
pub struct TensorDigest(Sha256);

impl TensorDigest {
    /// Takes up a tensor. The order counts: by name, as in [`Weights`](crate::Weights).
    pub fn update(&mut self, name: &str, tensor: &NamedTensor) {
        self.0.update(format!("{name}{:?}", tensor.shape));
        for chunk in tensor.values.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.0.update(bytes);
        }
    }

    /// The digest in hex.
    pub fn finish(self) -> String {
        to_hex(&self.0.finalize())
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

//! Strict reading, naming, seeding and writing of named weights.
//!
//! Every crate that owns a burn module names its parameters here and nowhere else, so that a file
//! means the same to the loader, the checkpoint and the export:
//!
//! - [`Weights`] is a set of named F32 tensors: read from safetensors, collected from a module, written back.
//! - [`load`] puts them into a module and fails on anything missing, unexpected or of another shape.
//! - [`seed`] fills a module from `(seed, parameter name)`, so that a value depends neither on the
//!   order of construction nor on the device.
//! - [`CounterRng`] is the random function behind it: it has no state to save.
//!
//! Names and layouts are PyTorch's: the module path joined by dots, `weight` and `bias` for norms,
//! `[out, in]` for linear layers. Deliberately absent: PyTorch pickles, and dtypes other than F32 in
//! memory (F16 and BF16 files are widened when read).

mod checkpoint;
mod counter;
mod digest;
mod error;
mod load;
mod name;
mod precision;
mod seed;
mod shapes;
mod shards;
mod weights;
mod whole;

pub use checkpoint::Checkpoint;
pub use counter::CounterRng;
pub use digest::{TensorDigest, file_digest, hex_digest};
pub use error::WeightsError;
pub use load::{load, load_only};
pub use name::ModulePath;
pub use precision::Precision;
pub use seed::seed;
pub use shapes::shapes;
pub use shards::{MAX_SHARD_BYTES, Planned, ShardWriter};
pub use weights::{NamedTensor, Weights};
pub use whole::write_whole;

//! Strict reading, naming, seeding and writing of named weights.
//!
//! Every crate that owns a burn module names its parameters here and nowhere else, so that a file
//! means the same to the loader, the checkpoint and the export:
//!
//! - [`Checkpoint`] is weights on disk, safetensors or PyTorch's: opened without reading a value, renamed, compared with
//!   a module ([`Report`]), and read into it in the precision that is wanted.
//! - [`Weights`] is a set of named F32 tensors: read from a file, collected from a module, written back.
//! - [`load`] puts them into a module and fails on anything missing, unexpected or of another shape.
//! - [`seed`] fills a module from `(seed, parameter name)`, so that a value depends neither on the
//!   order of construction nor on the device.
//! - [`ParameterTable`] counts what is trained.
//! - [`CounterRng`] is the random function behind it: it has no state to save.
//!
//! Names and layouts are PyTorch's: the module path joined by dots, `weight` and `bias` for norms,
//! `[out, in]` for linear layers. Files are not trusted: sizes are compared with the file before memory is taken, and
//! a pickle is read by a machine that can describe tensors and nothing else. Deliberately absent: PyTorch files of
//! before 1.6, quantized and complex values.

mod checkpoint;
mod counter;
mod digest;
mod error;
mod header;
mod load;
mod name;
mod open;
mod pickle;
mod precision;
mod report;
mod seed;
mod shards;
mod source;
mod stored;
mod table;
mod torch;
mod weights;
mod whole;
mod zip;

pub use checkpoint::Checkpoint;
pub use counter::CounterRng;
pub use digest::{TensorDigest, file_digest, hex_digest};
pub use error::WeightsError;
pub use load::{load, load_only};
pub use name::ModulePath;
pub use precision::Precision;
pub use report::{Ignored, Misfit, Report};
pub use seed::seed;
pub use shards::{MAX_SHARD_BYTES, Planned, ShardWriter};
pub use stored::StoredDtype;
pub use table::{ParameterKind, ParameterTable};
pub use weights::{NamedTensor, Weights};
pub use whole::write_whole;

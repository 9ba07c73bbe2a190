//! What a decoder block computes on CPU, forward and backward, on slices of F32.
//!
//! burn runs one operation after the other, each a pass over memory, and its tape keeps what every one of them read.
//! Here a whole [`Block`] is one function with a hand-written derivative: it keeps what that needs and no more, products
//! are taken in place with strides, and what is element by element is vectorised.
//!
//! - [`Linear`], [`Adapter`]: a layer with LoRA; a frozen one has no gradient of its own.
//! - [`Stored`]: its matrix in F32, BF16 or F16.
//! - [`Block`]: norm, attention, norm, SwiGLU.
//! - [`thin_product`]: a few rows with a large matrix in F32 or a half precision.
//! - [`cross_entropy`]: loss and slope of logits, in place.
//!
//! Work is shared between the threads of the rayon pool that a function is called in. Each number is computed by one thread
//! in one order, so that results do not depend on how many there are.

#![warn(missing_docs)]

mod attention;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that the machine was seen to have")]
mod bf16;
mod block;
mod cross_entropy;
mod linear;
mod matrix;
mod norm;
mod rotary;
mod rows;
mod scratch;
mod sequences;
mod stored;
mod swiglu;
mod thin;
mod vector;

pub use block::{Block, BlockGradients, BlockShape, Kept, Past};
pub use cross_entropy::cross_entropy;
pub use linear::{Adapter, Linear, LinearGradients};
use matrix::{Matrix, MatrixMut, multiply};
pub use norm::Norm;
pub use rotary::Rotary;
pub use scratch::{Buffer, free_idle_buffers};
pub use sequences::{Segment, Sequences};
pub use stored::Stored;
pub use thin::{MOST_THIN_ROWS, thin_product};

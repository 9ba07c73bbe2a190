//! `silu(gate) · up` (Shazeer 2020), `silu(x) = x σ(x)`.

use crate::Buffer;
use crate::rows::{for_rows, for_rows_of_two};
use crate::vector::{sigmoid, widest};

/// `silu(gate) · up`
pub(crate) fn swiglu(gate: &[f32], up: &[f32]) -> Buffer {
    let mut out = Buffer::stale(gate.len());
    for_rows(&mut out, 1, |first, out| {
        let range = first..first + out.len();
        let (gate, up) = (&gate[range.clone()], &up[range]);
        widest(
            #[inline(always)]
            || {
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate * sigmoid(*gate) * up;
                }
            },
        );
    });
    out
}

/// Replaces gate and up by the slopes at them, given the one at the product:
/// `d gate = d up σ (1 + gate (1 - σ))`, `d up = d gate σ`.
pub(crate) fn swiglu_backward(gate: &mut [f32], up: &mut [f32], slope: &[f32]) {
    for_rows_of_two((gate, 1), (up, 1), |first, gate, up| {
        let slope = &slope[first..first + gate.len()];
        widest(
            #[inline(always)]
            || {
                for ((gate, up), slope) in gate.iter_mut().zip(up).zip(slope) {
                    let s = sigmoid(*gate);
                    let of_up = slope * *gate * s;
                    *gate = slope * *up * s * (1.0 + *gate * (1.0 - s));
                    *up = of_up;
                }
            },
        );
    });
}

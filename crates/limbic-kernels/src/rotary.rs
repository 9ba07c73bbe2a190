//! Rotary position embedding in the rotate-half layout: dimension `i` of a head pairs with `i + E/2`.

use crate::rows::for_rows;
use crate::vector::widest;

/// Cosines and sines of every position's angles.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// `[positions, E/2]`
    pub cos: &'a [f32],
    /// `[positions, E/2]`
    pub sin: &'a [f32],
}

impl Rotary<'_> {
    /// Turns the heads of every row, `[rows, heads · E]`, to its position; `direction` -1 turns back.
    pub(crate) fn turn(
        &self,
        x: &mut [f32],
        width: usize,
        head: usize,
        positions: &[usize],
        direction: f32,
    ) {
        let half = head / 2;
        for_rows(x, width, |first, x| {
            for (x, position) in x.chunks_exact_mut(width).zip(&positions[first..]) {
                let cos = &self.cos[position * half..][..half];
                let sin = &self.sin[position * half..][..half];
                for head in x.chunks_exact_mut(head) {
                    let (a, b) = head.split_at_mut(half);
                    widest(
                        #[inline(always)]
                        || {
                            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                                let sin = direction * sin;
                                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                            }
                        },
                    );
                }
            }
        });
    }
}

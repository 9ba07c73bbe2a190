//! Memory that is used again: a fresh buffer of some megabytes comes from the system page by page, and touching it for
//! the first time costs more than the arithmetic on it.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers in memory that goes back to the thread's store when they are dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

thread_local! {
    static STORE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps at most; a step of a deep decoder holds ten or so a block.
const MOST: usize = 4096;

impl Buffer {
    /// `length` numbers left over from anywhere: to be written before they are read.
    pub fn stale(length: usize) -> Self {
        let found = STORE.with_borrow_mut(|store| {
            // The smallest that is large enough, and not so large that it would be wasted.
            let fits = |held: &Vec<f32>| held.capacity() >= length && held.capacity() <= 2 * length;
            let fitting = store.iter().enumerate().filter(|(_, held)| fits(held));
            let best = fitting.min_by_key(|(_, held)| held.capacity());
            best.map(|(index, _)| index)
                .map(|index| store.swap_remove(index))
        });
        let mut numbers = found.unwrap_or_default();
        if numbers.len() > length {
            numbers.truncate(length);
        } else {
            numbers.resize(length, 0.0);
        }
        Self(numbers)
    }

    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        let mut buffer = Self::stale(length);
        buffer.fill(0.0);
        buffer
    }

    /// A copy of `numbers`.
    pub fn copy(numbers: &[f32]) -> Self {
        let mut buffer = Self::stale(numbers.len());
        buffer.copy_from_slice(numbers);
        buffer
    }

    /// The numbers for good.
    pub fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.0);
        if numbers.capacity() == 0 {
            return;
        }
        // A thread that ends has no store any more.
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            if store.len() < MOST {
                store.push(numbers);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(numbers: Vec<f32>) -> Self {
        Self(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let first = Buffer::copy(&[1.0; 1000]);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::stale(900).as_ptr(), place);
        assert_ne!(
            Buffer::stale(100).as_ptr(),
            place,
            "not for what is much smaller"
        );
        assert!(Buffer::zeros(1000).iter().all(|number| *number == 0.0));
    }
}

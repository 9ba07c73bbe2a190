//! Memory that is used again: a fresh buffer of some megabytes comes from the system page by page, and touching it for
//! the first time costs more than the arithmetic on it.
//!
//! One store serves all threads, since what one of them made another may drop. It keeps no more than was once in use at
//! the same time.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Forgets how much was once in use, and frees what lies idle: another way of working begins.
pub fn free_idle_buffers() {
    let mut store = Store::lock();
    store.most_in_use = store.size_in_use;
    let surplus = store.count_in(0);
    drop(store);
    drop(surplus);
}

/// Numbers in memory that goes back to the store when they are dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

static STORE: Mutex<Store> = Mutex::new(Store {
    idle: BTreeMap::new(),
    idle_size: 0,
    size_in_use: 0,
    most_in_use: 0,
});

/// Sizes are capacities, in numbers.
struct Store {
    /// By capacity.
    idle: BTreeMap<usize, Vec<Vec<f32>>>,
    idle_size: usize,
    size_in_use: usize,
    most_in_use: usize,
}

impl Store {
    /// No panic leaves it in between: whatever state it is in is a whole one.
    fn lock() -> MutexGuard<'static, Self> {
        STORE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest that is large enough, if none of it would be wasted but half.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let (&capacity, held) = self.idle.range_mut(length..=2 * length).next()?;
        let numbers = held.pop();
        if held.is_empty() {
            self.idle.remove(&capacity);
        }
        self.idle_size -= capacity;
        numbers
    }

    /// Counts a buffer that is used from now on. What is too much then is given back, the largest first, to be freed.
    fn count_in(&mut self, capacity: usize) -> Vec<Vec<f32>> {
        self.size_in_use += capacity;
        self.most_in_use = self.most_in_use.max(self.size_in_use);
        let mut surplus = Vec::new();
        while self.idle_size + self.size_in_use > self.most_in_use {
            let Some((capacity, held)) = self.idle.pop_last() else {
                break;
            };
            self.idle_size -= capacity * held.len();
            surplus.extend(held);
        }
        surplus
    }

    fn count_out(&mut self, capacity: usize) {
        self.size_in_use -= capacity;
    }

    /// Keeps `numbers`, or gives them back where enough lies idle.
    fn put(&mut self, numbers: Vec<f32>) -> Option<Vec<f32>> {
        let capacity = numbers.capacity();
        if self.idle_size + self.size_in_use + capacity > self.most_in_use {
            return Some(numbers);
        }
        self.idle_size += capacity;
        self.idle.entry(capacity).or_default().push(numbers);
        None
    }
}

impl Buffer {
    /// `length` numbers left over from anywhere: to be written before they are read.
    pub fn stale(length: usize) -> Self {
        let mut store = Store::lock();
        let found = store.take(length);
        // A new one has just that capacity.
        let surplus = store.count_in(found.as_ref().map_or(length, Vec::capacity));
        drop(store);
        drop(surplus);
        Self(match found {
            Some(mut numbers) => {
                numbers.truncate(length);
                numbers.resize(length, 0.0);
                numbers
            }
            None => vec![0.0; length],
        })
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
        let numbers = std::mem::take(&mut self.0);
        Store::lock().count_out(numbers.capacity());
        numbers
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.0);
        if numbers.capacity() == 0 {
            return;
        }
        let mut store = Store::lock();
        store.count_out(numbers.capacity());
        let surplus = store.put(numbers);
        // Freed after the lock is.
        drop(store);
        drop(surplus);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store {
            idle: BTreeMap::new(),
            idle_size: 0,
            size_in_use: 0,
            most_in_use: 0,
        }
    }

    #[test]
    fn memory_is_used_again_where_little_of_it_is_wasted() {
        let mut store = store();
        assert!(store.count_in(1000).is_empty());
        store.count_out(1000);
        let numbers = Vec::with_capacity(1000);
        let place = numbers.as_ptr();
        assert!(store.put(numbers).is_none());
        assert!(store.take(1001).is_none());
        assert!(store.take(499).is_none(), "more than half would be wasted");
        let again = store.take(500).unwrap();
        assert_eq!(again.as_ptr(), place);
        assert_eq!((store.idle_size, store.idle.len()), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_was_in_use_at_once() {
        let mut store = store();
        store.count_in(100);
        store.count_in(50);
        store.count_out(100);
        // 50 are in use still, so that 100 may lie idle.
        assert!(store.put(Vec::with_capacity(100)).is_none());
        assert!(store.put(Vec::with_capacity(1)).is_some());
        store.count_out(50);
        assert!(store.put(Vec::with_capacity(50)).is_none());
        assert_eq!(store.idle_size, 150);
        // Of other sizes as much as before: what lies idle makes room, the largest first.
        let freed = store.count_in(120);
        assert_eq!(
            freed.iter().map(Vec::capacity).collect::<Vec<_>>(),
            [100, 50]
        );
        assert_eq!((store.idle_size, store.most_in_use), (0, 150));
    }

    #[test]
    fn numbers_outlive_their_way_through_the_store() {
        assert!(Buffer::zeros(1000).iter().all(|number| *number == 0.0));
        let copy = Buffer::copy(&[1.0, 2.0]);
        assert_eq!((copy.len(), copy.into_vec()), (2, vec![1.0, 2.0]));
        assert!(Buffer::zeros(1000).iter().all(|number| *number == 0.0));
    }
}

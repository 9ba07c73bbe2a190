//! What is needed next is made ready on a thread of its own, while the trainer works on what was needed before: samples
//! drawn and compiled, features fetched from the cache, media decoded and encoded where it has lost them.
//!
//! The queue is bounded and in the order of the steps. What is made ready is a function of the step alone, so that
//! nothing depends on which thread was quicker.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use anyhow::Context;

/// Steps that are made ready beyond the one under way. Features of so many more stay in memory.
const STEPS: usize = 2;

/// The steps of a run, made ready a few ahead.
pub(crate) struct Ahead<T> {
    ready: Receiver<anyhow::Result<T>>,
}

impl<T: Send> Ahead<T> {
    /// Calls `prepare` for each of `steps` in their order on a thread of `scope`, which ends when the result is dropped.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        steps: Range<u64>,
        prepare: impl Fn(u64) -> anyhow::Result<T> + Send + 'scope,
    ) -> Self
    where
        T: 'scope,
    {
        // One more is done and waits for its place.
        let (sender, ready) = sync_channel(STEPS - 1);
        scope.spawn(move || {
            for step in steps {
                let prepared = prepare(step);
                let failed = prepared.is_err();
                let nobody_waits = sender.send(prepared).is_err();
                if failed || nobody_waits {
                    break;
                }
            }
        });
        Self { ready }
    }

    /// The next step, once it is ready.
    ///
    /// # Errors
    /// What its preparation failed with.
    pub(crate) fn next(&self) -> anyhow::Result<T> {
        self.ready
            .recv()
            .context("no more steps are being prepared")?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn steps_come_in_order_and_only_a_few_ahead() {
        let begun = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let begun = &begun;
            let ahead = Ahead::start(scope, 3..100, move |step| {
                begun.fetch_add(1, Ordering::Relaxed);
                Ok(step)
            });
            for step in 3..8 {
                assert_eq!(ahead.next().unwrap(), step);
            }
            sleep(Duration::from_millis(50));
            // Five were taken.
            assert_eq!(begun.load(Ordering::Relaxed), 5 + STEPS as u64);
        });
        assert_eq!(begun.into_inner(), 5 + STEPS as u64, "it ends unasked");
    }

    #[test]
    fn a_failure_comes_in_its_turn() {
        std::thread::scope(|scope| {
            let ahead = Ahead::start(scope, 0..9, |step| {
                anyhow::ensure!(step < 2, "step {step} cannot be");
                Ok(step)
            });
            assert_eq!([0, 1].map(|_| ahead.next().unwrap()), [0, 1]);
            assert_eq!(ahead.next().unwrap_err().to_string(), "step 2 cannot be");
            assert!(ahead.next().is_err());
        });
    }
}

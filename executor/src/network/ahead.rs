//! Things that take long to make, made on a thread while something else is done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// At most one is made that nobody waits for.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    ready: Vec<T>,
    under_way: usize,
    waiting: usize,
}

impl<T> State<T> {
    /// Whether there is one that nobody waits for yet.
    fn has_spare(&self) -> bool {
        self.ready.len() + self.under_way > self.waiting
    }
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        let state = State { ready: Vec::new(), under_way: 0, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T: Send + 'static> Ahead<T> {
    /// Begins to make one, unless there is one to spare.
    pub(super) fn begin(self: &Arc<Self>, make: impl FnOnce() -> T + Send + 'static) {
        let mut state = self.lock();
        if state.has_spare() {
            return;
        }
        state.under_way += 1;
        drop(state);
        let ahead = Arc::clone(self);
        let work = move || {
            // Who waits must not wait for ever.
            let made = catch_unwind(AssertUnwindSafe(make)).ok();
            ahead.finish(made);
        };
        if thread::Builder::new().name("ahead".to_owned()).spawn(work).is_err() {
            self.finish(None);
        }
    }

    fn finish(&self, made: Option<T>) {
        let mut state = self.lock();
        state.under_way -= 1;
        state.ready.extend(made);
        self.changed.notify_all();
    }

    /// The one to spare, waited for if it is not ready; `None` when there is none.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        if !state.has_spare() {
            return None;
        }
        state.waiting += 1;
        while state.ready.is_empty() && state.under_way > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.ready.pop()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_is_made_ahead_and_taken_once() {
        let ahead = Arc::new(Ahead::default());
        assert_eq!(ahead.take(), None);
        let (go, wait) = channel::<()>();
        ahead.begin(move || {
            wait.recv().unwrap();
            1
        });
        ahead.begin(|| panic!("there is one to spare"));
        let taker = {
            let ahead = Arc::clone(&ahead);
            thread::spawn(move || ahead.take())
        };
        go.send(()).unwrap();
        let taken = [taker.join().unwrap(), ahead.take()];
        assert_eq!(taken, [Some(1), None]);
    }

    #[test]
    fn one_that_cannot_be_made_keeps_nobody_waiting() {
        let ahead = Arc::new(Ahead::<u8>::default());
        ahead.begin(|| std::panic::resume_unwind(Box::new(())));
        assert_eq!(ahead.take(), None);
    }
}

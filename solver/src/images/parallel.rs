//! The same work on several things, a few at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Does `work` on each item, at most `threads` at a time. The results are in the order of the items. After a failure nothing new
/// is begun, and the first failure is the result.
pub(crate) fn in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (failure, stop) = (Mutex::new(None), AtomicBool::new(false));
    let done: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let queue = Mutex::new(items.iter().enumerate());
    let next = || lock(&queue).next().filter(|_| !stop.load(Ordering::Relaxed));
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) = next() {
                    match work(item) {
                        Ok(result) => lock(&done)[index] = Some(result),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            lock(&failure).get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => Ok(std::mem::take(&mut *lock(&done)).into_iter().flatten().collect()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_the_first_failure_ends_it() {
        let items: Vec<usize> = (0..100).collect();
        let doubled = in_parallel(&items, 4, |item| Ok::<_, ()>(item * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        let failed = in_parallel(&items, 1, |item| if *item < 7 { Ok(()) } else { Err(*item) });
        assert_eq!(failed, Err(7));
    }
}

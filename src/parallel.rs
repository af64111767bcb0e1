//! Work on many items, spread over threads.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::error::Result;

/// As many threads as a disk and a few cores keep busy.
pub fn usual_threads() -> NonZeroUsize {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    cores.clamp(NonZeroUsize::MIN, const { NonZeroUsize::new(8).unwrap() })
}

/// Maps each item by `work` on several threads. Items start in order, and results are in order.
pub fn map<T: Sync, R: Send>(
    threads: NonZeroUsize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        items.get(index).map(|item| (index, work(item)))
    };
    let worker = || std::iter::from_fn(take).collect::<Vec<_>>();
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let count = threads.get().min(items.len());
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .flat_map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Does `work` on each item. After a failure nothing more is begun.
pub fn try_each<T: Sync>(
    threads: NonZeroUsize,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let failed = AtomicBool::new(false);
    let results = map(threads, items, |item| {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let result = work(item);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    });
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        assert_eq!(
            map(THREE, &items, |item| item * 2),
            (0..100).map(|i| i * 2).collect::<Vec<_>>()
        );
        assert!(map(THREE, &[], |item: &u64| *item).is_empty());
    }

    #[test]
    fn one_failure_fails_all_and_begins_nothing_more() {
        let begun = AtomicUsize::new(0);
        let result = try_each(NonZeroUsize::MIN, &[1, 2, 3], |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            match item {
                2 => Err(Error::Mapping("two".to_owned())),
                _ => Ok(()),
            }
        });
        assert_eq!(result.unwrap_err().to_string(), "two");
        assert_eq!(begun.into_inner(), 2);
    }
}

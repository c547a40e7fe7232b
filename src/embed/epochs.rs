//! What every training has: tasks that threads take in turn, a learning rate that falls, a loss for each epoch.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::embed::options::Options;

/// Sum and number of the losses measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loss {
    pub(super) sum: f64,
    pub(super) n: u64,
}

impl Loss {
    /// The mean, if there is one.
    fn mean(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    pub(super) fn add(&mut self, other: Loss) {
        self.sum += other.sum;
        self.n += other.n;
    }
}

/// The mean loss of each epoch, from what the threads measured.
pub(super) fn means(
    epochs: usize,
    threads: impl IntoIterator<Item = Vec<Loss>>,
) -> Vec<Option<f64>> {
    let mut losses = vec![Loss::default(); epochs];
    for measured in threads {
        for (all, one) in losses.iter_mut().zip(measured) {
            all.add(one);
        }
    }
    losses.into_iter().map(Loss::mean).collect()
}

/// Runs `work` on so many threads; each asks for the next task until there is none. After an error no task is given out.
pub(super) fn on_threads<T: Send>(
    threads: usize,
    n_tasks: u64,
    work: impl Fn(&mut dyn FnMut() -> Option<u64>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicU64::new(0);
    let run = || {
        let outcome = work(&mut || {
            let task = next.fetch_add(1, Ordering::Relaxed);
            (task < n_tasks).then_some(task)
        });
        if outcome.is_err() {
            next.store(n_tasks, Ordering::Relaxed);
        }
        outcome
    };
    if threads == 1 {
        return Ok(vec![run()?]);
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .with_context(|| format!("can't start {threads} threads: lower the option threads"))?;
    pool.broadcast(|_| run()).into_iter().collect()
}

/// The learning rate when `done` of `total` is behind.
pub(super) fn alpha_at(options: &Options, done: f64, total: f64) -> f32 {
    let fallen = (done / total.max(1.0)).min(1.0);
    (options.alpha - (options.alpha - options.min_alpha) * fallen) as f32
}

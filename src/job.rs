//! How long work reports its progress and is stopped.
//!
//! A [`Job`] is shared by the thread that waits (it owns the database handle, asks SQLite whether somebody pressed
//! Ctrl-C, and draws the progress bar) and the threads that work (they never touch SQLite). Workers call
//! [`Job::check`] at least every few milliseconds and [`Job::advance`] as they go; the waiting thread reads
//! [`Job::progress`] and calls [`Job::stop`].

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The error of work that was stopped from outside. Travels inside [`anyhow::Error`]; SQL turns it into
/// `SQLITE_INTERRUPT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// What a job is doing now: `done` of `total` units of the named phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Name of the phase, e.g. `"train"`.
    pub phase: &'static str,
    /// Units finished in this phase.
    pub done: u64,
    /// Units in this phase; 0 when unknown.
    pub total: u64,
}

/// One long computation, seen from both sides. See the module page.
#[derive(Debug)]
pub struct Job {
    stopped: AtomicBool,
    done: AtomicU64,
    phase: Mutex<(&'static str, u64)>,
}

impl Default for Job {
    fn default() -> Self {
        Self::new()
    }
}

impl Job {
    /// A job that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Job {
            stopped: AtomicBool::new(false),
            done: AtomicU64::new(0),
            phase: Mutex::new(("", 0)),
        }
    }

    /// Begins a phase of `total` units (0: unknown).
    pub fn phase(&self, name: &'static str, total: u64) {
        *self.lock() = (name, total);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Counts `units` of the current phase as done.
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// What the job is doing now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (phase, total) = *self.lock();
        Progress {
            phase,
            done: self.done.load(Ordering::Relaxed),
            total,
        }
    }

    /// Asks the workers to stop.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked the workers to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// An error once somebody has called [`Job::stop`].
    ///
    /// # Errors
    /// [`Interrupted`], and nothing else.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_stopped() {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (&'static str, u64)> {
        // A panic while the lock is held can't leave two plain words half written in any way that matters.
        self.phase.lock().unwrap_or_else(|e| e.into_inner())
    }
}

//! What the functions and tables of one connection share.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use super::index::files::{Ledger, Opened};
use super::knn::LastSearch;
use super::scan::TableScan;
use super::work::Display;

/// Per connection. Behind mutexes because rusqlite's functions must be `Send`; SQLite's own mutex means that nobody
/// ever waits for them.
#[derive(Default)]
pub(crate) struct Session {
    /// Where long work shows its progress.
    display: Mutex<Display>,
    /// What the last search did.
    last: Mutex<Option<LastSearch>>,
    /// Scans of tables under way, the innermost last.
    pub(crate) scans: Mutex<Vec<TableScan>>,
    /// The files of indexes, as the open transaction leaves them.
    pub(crate) files: Mutex<Ledger>,
    /// The forests of indexes that are open: readers share them.
    pub(crate) opened: Opened,
    /// How many indexes have got a name: a bare name may mean another one since.
    pub(crate) named: AtomicU64,
}

impl Session {
    /// What the last search did; `None` before the first.
    pub(crate) fn last_search(&self) -> Option<LastSearch> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes what a search did.
    pub(crate) fn note_search(&self, search: LastSearch) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(search);
    }

    /// Where long work shows its progress.
    pub(crate) fn display(&self) -> Display {
        *self.display.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses where long work shows its progress; returns the choice before.
    pub(crate) fn set_display(&self, display: Display) -> Display {
        std::mem::replace(
            &mut *self.display.lock().unwrap_or_else(PoisonError::into_inner),
            display,
        )
    }
}

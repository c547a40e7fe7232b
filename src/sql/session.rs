//! What the functions and tables of one connection share.

use std::sync::Mutex;

use super::work::Display;

/// Per connection. Behind mutexes because rusqlite's functions must be `Send`; SQLite's own mutex means that nobody
/// ever waits for them.
#[derive(Default)]
pub(crate) struct Session {
    /// Where long work shows its progress.
    pub(crate) display: Mutex<Display>,
}

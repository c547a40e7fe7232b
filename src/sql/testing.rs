//! What tests within the crate share: connections, and a host that wants work to end.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

/// Gives a loadable build an SQLite to call. To be called before the first connection is opened.
pub(crate) fn install() {
    #[cfg(feature = "loadable")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| private_sqlite::install(crate::entry::sqlite3_extension_init));
    }
}

/// A database in memory.
pub(crate) fn in_memory() -> Connection {
    install();
    Connection::open_in_memory().unwrap()
}

/// Runs `body` under a progress handler that is asked after every so many steps of SQLite's machine, and says after so many
/// calls that whatever runs shall end.
pub(crate) fn with_handler<T>(
    conn: &Connection,
    every: c_int,
    calls: i32,
    body: impl FnOnce() -> T,
) -> T {
    extern "C" fn no_more(left: *mut c_void) -> c_int {
        // SAFETY: the counter below, which outlives the handler.
        let left = unsafe { &mut *left.cast::<i32>() };
        *left -= 1;
        c_int::from(*left < 0)
    }
    let mut left = calls;
    let counter: *mut i32 = &raw mut left;
    // SAFETY: an open connection, and a counter that stays where it is until the handler is taken away.
    unsafe { ffi::sqlite3_progress_handler(conn.handle(), every, Some(no_more), counter.cast()) };
    let outcome = body();
    // SAFETY: as above.
    unsafe { ffi::sqlite3_progress_handler(conn.handle(), 0, None, std::ptr::null_mut()) };
    outcome
}

//! The connection that a scalar function was called on.

#![allow(unsafe_code)]

use rusqlite::functions::{ConnectionRef, Context};

/// The caller's connection, for the time of the call.
pub(crate) fn connection<'a>(ctx: &'a Context<'_>) -> rusqlite::Result<ConnectionRef<'a>> {
    // SAFETY: SQLite calls a function on the thread that holds the connection, and nothing here takes it elsewhere.
    unsafe { ctx.get_connection() }
}

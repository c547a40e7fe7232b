//! What SQLite sees: functions, table functions and the virtual table `annoy`.
//!
//! One file for a family. [`register`] is the list of everything that is registered; what the connection's functions
//! and tables share is in [`Session`]. Long work goes through [`work::run`], so that it can be interrupted and shows
//! progress. Functions that write or touch files are DIRECTONLY: no view, trigger or schema of a database that somebody
//! else wrote can call them.

mod annoy_file;
mod index;
mod info;
mod knn;
mod measure;
mod memory;
mod plot;
mod scan;
mod schema;
mod session;
mod shape;
mod source;
#[cfg(test)]
mod testing;
mod text_lines;
mod time;
mod train;
mod values;
mod vector;
mod version;
pub(crate) mod vtab;
pub(crate) mod work;

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

pub(crate) use session::Session;

/// Flags of a function that depends on its arguments alone and harms nobody.
pub(crate) const PURE: FunctionFlags = FunctionFlags::SQLITE_UTF8
    .union(FunctionFlags::SQLITE_DETERMINISTIC)
    .union(FunctionFlags::SQLITE_INNOCUOUS);

/// Flags of a function that writes, reads files or takes long.
pub(crate) const DIRECT: FunctionFlags =
    FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);

/// Registers everything for one connection.
pub(crate) fn register(conn: &Connection) -> rusqlite::Result<()> {
    let session = Arc::new(Session::default());
    version::register(conn)?;
    work::register(conn, &session)?;
    plot::register(conn)?;
    vtab::function::register::<memory::Memory>(conn, &session)?;
    vtab::function::register::<text_lines::TextLines>(conn, &session)?;
    vtab::function::register::<time::Time>(conn, &session)?;
    index::register(conn, &session)?;
    annoy_file::register(conn, &session)?;
    scan::register(conn, &session)?;
    knn::register(conn, &session)?;
    vtab::function::register::<knn::LastStats>(conn, &session)?;
    vtab::function::register::<info::Info>(conn, &session)?;
    vtab::function::register::<info::Indexes>(conn, &session)?;
    measure::register(conn, &session)?;
    shape::register(conn, &session)?;
    vector::register(conn, &session)?;
    train::register(conn, &session)?;
    Ok(())
}

/// An error of ours as rusqlite wants it from a function: SQLite's own codes (interrupt, busy, full) survive, all else
/// is a message.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(crate) fn function_error(error: anyhow::Error) -> rusqlite::Error {
    let (code, message) = vtab::code_and_message(&error);
    match (code & 0xff, message) {
        (rusqlite::ffi::SQLITE_ERROR, Some(message)) => {
            rusqlite::Error::UserFunctionError(message.into())
        }
        // A message would reset the code to SQLITE_ERROR.
        (_, _) => rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None),
    }
}

/// The name in double quotes that a text begins with.
pub(crate) fn unquote(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('"')?;
    let mut name = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some(name),
        }
    }
}

/// A name as SQL needs it: in double quotes, inner ones doubled.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

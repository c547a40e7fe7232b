//! The ceremony of virtual tables, once: a safe trait on top of SQLite's C interface.
//!
//! rusqlite's own virtual tables lack what an index needs (xRename, xShadowName, savepoints, xIntegrity) and let a
//! panic unwind into C. Here every callback runs under [`guard`]: an error becomes SQLite's code and message, a panic
//! an error. A table implements [`Table`], its scan [`Cursor`]; `plan` and `value` wrap what the callbacks are given.
//!
//! SQLite may call a table again from inside one of its own callbacks (an xUpdate that runs SQL), so tables are only
//! ever borrowed shared; what changes in them sits in cells.

#![allow(unsafe_code)]

mod callbacks;
pub(crate) mod function;
mod plan;
mod value;

pub(crate) use plan::{Constraint, Op, Plan};
pub(crate) use value::{Args, Output};

use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;

use anyhow::{Result, bail};
use rusqlite::{Connection, ffi};

use super::Session;

/// What a table is told when SQLite connects it.
pub(crate) struct Origin<'a> {
    /// The database handle, to be kept by tables that run SQL (its statement cache is freed with the table).
    pub(crate) db: Db,
    /// What all tables and functions of the connection share.
    pub(crate) session: Arc<Session>,
    /// The schema the table is in: `main`, `temp`, or an attached database.
    pub(crate) schema: &'a str,
    /// The name of the virtual table.
    pub(crate) name: &'a str,
    /// The arguments between the parentheses of CREATE VIRTUAL TABLE.
    pub(crate) args: Vec<&'a str>,
    /// True for CREATE VIRTUAL TABLE, false when an existing table is opened.
    pub(crate) create: bool,
}

/// A database handle that a virtual table was given. Copies are cheap; the host owns it and outlives the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Db(pub(crate) *mut ffi::sqlite3);

impl Db {
    /// The handle behind a connection that a table of ours holds.
    pub(crate) fn of(conn: &Connection) -> Db {
        // SAFETY: the handle is only kept while `conn`'s owner, SQLite, calls us.
        Db(unsafe { conn.handle() })
    }

    /// A rusqlite view of the handle, with a statement cache of its own. Dropping it does not close the handle.
    pub(crate) fn connection(self) -> rusqlite::Result<Connection> {
        // SAFETY: SQLite gave the handle to a callback of a virtual table, which SQLite disconnects before it closes.
        unsafe { Connection::from_handle(self.0) }
    }
}

/// What a row-changing statement asks of a table.
pub(crate) enum Change<'a> {
    /// INSERT of a row with these columns.
    Insert(Args<'a>),
    /// UPDATE of the row with this rowid.
    Update,
    /// DELETE of the row with this rowid.
    Delete,
}

/// A virtual table, connected.
pub(crate) trait Table: Sized + 'static {
    /// One scan of the table.
    type Cursor: Cursor<Table = Self>;

    /// Whether CREATE VIRTUAL TABLE may make one. `false`: the table exists in every database under its module's name.
    const STORED: bool = false;
    /// Whether INSERT, UPDATE and DELETE reach [`Table::update`].
    const WRITABLE: bool = false;
    /// Keeps the table out of views, triggers and schemas of a database that somebody else wrote. For what has side
    /// effects or touches files.
    const DIRECT_ONLY: bool = false;

    /// Connects (or creates), and returns the table with its declaration `CREATE TABLE x(...)`.
    fn connect(origin: Origin<'_>) -> Result<(Self, String)>;

    /// Chooses a plan. `Ok(false)`: these constraints can't be used, SQLite must find another plan.
    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool>;

    /// Starts a scan.
    fn open(&self) -> Result<Self::Cursor>;

    /// Changes a row, or takes a command; returns the rowid of an insert.
    fn update(&self, _change: Change<'_>) -> Result<i64> {
        bail!("the table is read-only")
    }

    /// DROP TABLE. The table object goes when this succeeds.
    fn destroy(&self) -> Result<()> {
        Ok(())
    }

    /// ALTER TABLE ... RENAME TO.
    fn rename(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    /// What PRAGMA integrity_check asks (SQLite 3.44 and later): None when all is well.
    fn integrity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// A transaction in which this table is written begins.
    fn begin(&self) -> Result<()> {
        Ok(())
    }

    /// The transaction is durable.
    fn commit(&self) {}

    /// The transaction is undone.
    fn rollback(&self) {}

    /// Savepoint number `n` begins.
    fn savepoint(&self, _n: i32) {}

    /// Savepoint `n` and those above are merged into what lies below.
    fn release(&self, _n: i32) {}

    /// Everything since savepoint `n` is undone.
    fn rollback_to(&self, _n: i32) {}

    /// Whether `table_suffix` names a shadow table of such a table.
    fn is_shadow(_suffix: &str) -> bool {
        false
    }
}

/// One scan of a [`Table`].
pub(crate) trait Cursor {
    /// The table that is scanned.
    type Table;

    /// Begins the scan with what the plan said and the values it asked for.
    fn filter(
        &mut self,
        table: &Self::Table,
        number: i32,
        text: &str,
        args: &Args<'_>,
    ) -> Result<()>;
    /// Moves to the next row.
    fn next(&mut self, table: &Self::Table) -> Result<()>;
    /// Whether the rows are exhausted.
    fn eof(&self) -> bool;
    /// Writes column `i` of the current row.
    fn column(&self, table: &Self::Table, i: usize, out: &mut Output<'_>) -> Result<()>;
    /// The rowid of the current row.
    fn rowid(&self) -> i64;
}

/// Registers the module of `T` under `name` for this connection.
pub(crate) fn register<T: Table>(
    conn: &Connection,
    name: &CStr,
    session: &Arc<Session>,
) -> rusqlite::Result<()> {
    let session = Arc::into_raw(Arc::clone(session));
    // SAFETY: the handle is used on the thread that holds the connection. The module is static (a constant of the
    // type), the session is released by `forget_session` when the module goes, also when this call fails.
    let code = unsafe {
        ffi::sqlite3_create_module_v2(
            conn.handle(),
            name.as_ptr(),
            callbacks::Callbacks::<T>::MODULE,
            session.cast_mut().cast(),
            Some(callbacks::forget_session),
        )
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// SQLite's code for an error, and the text to go with it.
pub(crate) fn code_and_message(error: &anyhow::Error) -> (c_int, Option<String>) {
    if error.is::<crate::job::Interrupted>() {
        // SQLite's own word for it; without one, CREATE VIRTUAL TABLE would say that a constructor failed.
        return (ffi::SQLITE_INTERRUPT, Some("interrupted".to_owned()));
    }
    match error.downcast_ref::<rusqlite::Error>() {
        Some(rusqlite::Error::SqliteFailure(e, message)) => {
            let code = if e.extended_code == 0 {
                ffi::SQLITE_ERROR
            } else {
                e.extended_code
            };
            (code, Some(message.clone().unwrap_or_else(|| e.to_string())))
        }
        _ => (ffi::SQLITE_ERROR, Some(format!("{error:#}"))),
    }
}

/// Runs a callback; returns SQLite's code. A panic is an error like any other.
fn guard(place: *mut *mut std::ffi::c_char, body: impl FnOnce() -> Result<()>) -> c_int {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let error = match outcome {
        Ok(Ok(())) => return ffi::SQLITE_OK,
        Ok(Err(error)) => error,
        Err(panic) => anyhow::anyhow!(
            "sqlite-annoy: internal error: {}",
            panic_text(panic.as_ref())
        ),
    };
    let (code, message) = code_and_message(&error);
    if let Some(message) = message
        && !place.is_null()
    {
        // SAFETY: `place` is SQLite's zErrMsg, null or a string of sqlite3_malloc.
        unsafe {
            ffi::sqlite3_free((*place).cast());
            *place = sqlite_string(&message);
        }
    }
    code
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

/// A copy of `text` that SQLite may free; null when memory is short.
fn sqlite_string(text: &str) -> *mut std::ffi::c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    let bytes = text.as_bytes_with_nul();
    // SAFETY: the copy stays within what malloc gave.
    unsafe {
        let copy = ffi::sqlite3_malloc64(bytes.len() as u64).cast::<u8>();
        if !copy.is_null() {
            copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        copy.cast()
    }
}

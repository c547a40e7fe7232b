//! The doors: what a host's `load_extension` calls, and what a Rust app calls.
//!
//! The loadable library must live in hosts much older than the SQLite that rusqlite's bindings know (3.45.3). Their
//! stock start refuses such a host, and on its way out calls a function pointer that it has not filled: the host dies.
//! So [`sqlite3_extension_init`] hands them a table of its own instead: the host's table copied up to the length that
//! this host's version has (the table only ever grows at its end), zeros behind it, and a version number of at least
//! 3.45.3. What an old host lacks stays a null pointer, and nothing here may call it: `sqlite3_is_interrupted` (3.41),
//! `sqlite3_stmt_explain` (3.43), `sqlite3_get_clientdata` and `sqlite3_set_clientdata` (3.44).
//!
//! The functions of the host are process-wide statics, so one process can have one SQLite: a second one that loads the
//! same library (Python's `sqlite3` beside `apsw`) gets an error.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};

use rusqlite::{Connection, ffi};

/// The oldest SQLite that is supported, as `sqlite3_libversion_number` gives it.
pub const MIN_SQLITE_VERSION: c_int = 3_038_000;

/// Adds everything this crate offers to one connection.
///
/// With feature `bundled` this is the one call an app makes. In a loadable library the host's `load_extension` does it.
///
/// # Errors
/// What SQLite says when it cannot register a function or a module.
pub fn register(conn: &Connection) -> rusqlite::Result<()> {
    crate::sql::register(conn)
}

/// Puts `message` where the host looks for it.
///
/// # Safety
/// `place` is null or valid for a write, and `malloc` is the host's `sqlite3_malloc`.
unsafe fn say(
    place: *mut *mut c_char,
    malloc: Option<unsafe extern "C" fn(c_int) -> *mut std::ffi::c_void>,
    message: &str,
) {
    let (Ok(text), Some(malloc)) = (CString::new(message), malloc) else {
        return;
    };
    let bytes = text.as_bytes_with_nul();
    if place.is_null() {
        return;
    }
    // SAFETY: the caller's; the copy stays within what malloc gave.
    unsafe {
        let copy = malloc(bytes.len() as c_int).cast::<u8>();
        if !copy.is_null() {
            copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            *place = copy.cast();
        }
    }
}

/// Opens the crate to the connection `db`; what both entry points do.
///
/// # Safety
/// `db` is an open connection of the SQLite in use.
unsafe fn open(db: *mut ffi::sqlite3, message: *mut *mut c_char) -> c_int {
    let outcome = std::panic::catch_unwind(|| {
        // SAFETY: the caller's. The connection is the host's: dropping this handle does not close it.
        let conn = unsafe { Connection::from_handle(db) }?;
        register(&conn)
    });
    match outcome {
        // Threads and maps outlive a connection, so the library must stay.
        Ok(Ok(())) => ffi::SQLITE_OK_LOAD_PERMANENTLY,
        Ok(Err(error)) => {
            // SAFETY: the API is initialised, `message` is the host's.
            unsafe { say(message, Some(malloc), &format!("sqlite-annoy: {error}")) };
            ffi::SQLITE_ERROR
        }
        Err(_) => ffi::SQLITE_ERROR,
    }
}

/// The host's allocator, once the API is initialised.
///
/// # Safety
/// The API is initialised.
unsafe extern "C" fn malloc(bytes: c_int) -> *mut std::ffi::c_void {
    // SAFETY: the caller's.
    unsafe { ffi::sqlite3_malloc(bytes) }
}

#[cfg(feature = "loadable")]
mod loadable {
    use std::mem::{MaybeUninit, offset_of, size_of};
    use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
    use std::sync::{Mutex, PoisonError};

    use super::{MIN_SQLITE_VERSION, ffi, open, say};
    use std::ffi::{c_char, c_int};

    // The lengths below are those of these very bindings.
    const _: () = assert!(ffi::SQLITE_VERSION_NUMBER == 3_045_003);

    /// `sqlite3_libversion_number` of the one SQLite this process uses; its address identifies that SQLite.
    static HOST: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
    /// What `pretended_version` answers.
    static VERSION: AtomicI32 = AtomicI32::new(ffi::SQLITE_VERSION_NUMBER);
    /// One initialisation at a time.
    static STARTING: Mutex<()> = Mutex::new(());

    unsafe extern "C" fn pretended_version() -> c_int {
        VERSION.load(Ordering::Relaxed)
    }

    /// How much of the API table a host of this version has, in bytes.
    fn table_length(version: c_int) -> usize {
        type Table = ffi::sqlite3_api_routines;
        match version {
            ..=3_038_999 => offset_of!(Table, deserialize),
            3_039_000..=3_039_999 => offset_of!(Table, value_encoding),
            3_040_000..=3_040_999 => offset_of!(Table, is_interrupted),
            3_041_000..=3_042_999 => offset_of!(Table, stmt_explain),
            3_043_000..=3_043_999 => offset_of!(Table, get_clientdata),
            _ => size_of::<Table>(),
        }
    }

    /// What SQLite calls after it has loaded the library (`.load`, `load_extension()`, `sqlite3_load_extension()`).
    ///
    /// # Safety
    /// As SQLite promises: an open connection, a place for a message, its table of functions.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn sqlite3_extension_init(
        db: *mut ffi::sqlite3,
        message: *mut *mut c_char,
        api: *mut ffi::sqlite3_api_routines,
    ) -> c_int {
        if api.is_null() {
            return ffi::SQLITE_ERROR;
        }
        // SAFETY: `api` is SQLite's table, and these three entries are as old as extensions are.
        let (Some(version_function), host_malloc) =
            (unsafe { ((*api).libversion_number, (*api).malloc) })
        else {
            return ffi::SQLITE_ERROR;
        };
        // SAFETY: a function of the host without arguments.
        let version = unsafe { version_function() };
        if version < MIN_SQLITE_VERSION {
            let text = format!(
                "sqlite-annoy needs SQLite 3.38.0 or later, this is {}.{}.{}",
                version / 1_000_000,
                version / 1_000 % 1_000,
                version % 1_000
            );
            // SAFETY: the host's own allocator and place.
            unsafe { say(message, host_malloc, &text) };
            return ffi::SQLITE_ERROR;
        }

        let started = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = version_function as *mut ();
        let known = HOST.load(Ordering::Acquire);
        if known.is_null() {
            let mut table = MaybeUninit::<ffi::sqlite3_api_routines>::zeroed();
            // SAFETY: the host's table is at least this long, ours longer. All entries are `Option` of function
            // pointers, for which zero is `None`.
            let table = unsafe {
                table
                    .as_mut_ptr()
                    .cast::<u8>()
                    .copy_from_nonoverlapping(api.cast::<u8>().cast_const(), table_length(version));
                table.assume_init_mut()
            };
            VERSION.store(version.max(ffi::SQLITE_VERSION_NUMBER), Ordering::Relaxed);
            table.libversion_number = Some(pretended_version);
            // SAFETY: a complete table, whose entries are null where the host has none.
            if unsafe { ffi::rusqlite_extension_init2(table) }.is_err() {
                return ffi::SQLITE_ERROR;
            }
            super::HOST_VERSION.store(version, Ordering::Relaxed);
            HOST.store(identity, Ordering::Release);
        } else if known != identity {
            // SAFETY: the host's own allocator and place.
            unsafe {
                say(
                    message,
                    host_malloc,
                    "sqlite-annoy is already in use by another SQLite library in this process; one process can use \
                     it with one SQLite only (load it through one module, or copy the library to a second file)",
                );
            }
            return ffi::SQLITE_ERROR;
        }
        drop(started);
        // SAFETY: `db` is open, the API is initialised.
        unsafe { open(db, message) }
    }

    /// The entry point that SQLite derives from the file name `libsqlite_annoy`.
    ///
    /// # Safety
    /// As [`sqlite3_extension_init`].
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn sqlite3_sqliteannoy_init(
        db: *mut ffi::sqlite3,
        message: *mut *mut c_char,
        api: *mut ffi::sqlite3_api_routines,
    ) -> c_int {
        // SAFETY: the caller's.
        unsafe { sqlite3_extension_init(db, message, api) }
    }
}

#[cfg(feature = "loadable")]
pub use loadable::{sqlite3_extension_init, sqlite3_sqliteannoy_init};

/// An entry point for `sqlite3_auto_extension` in a program that links the crate statically.
///
/// # Safety
/// As SQLite promises for entry points.
#[cfg(not(feature = "loadable"))]
pub unsafe extern "C" fn sqlite3_sqliteannoy_init(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    _api: *mut ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { open(db, message) }
}

/// The host's true version, which `sqlite3_libversion_number` no longer tells inside a loadable library.
static HOST_VERSION: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

/// The version of the SQLite in use, e.g. 3040001. Ask this, not rusqlite, before calling what older hosts lack.
#[must_use]
pub fn host_version() -> c_int {
    match HOST_VERSION.load(std::sync::atomic::Ordering::Relaxed) {
        0 => rusqlite::version_number(),
        version => version,
    }
}

//! A SQLite of its own for sqlite-annoy's tests, examples and benches.
//!
//! The library under test is a loadable extension: it calls SQLite through the table of functions that a host hands
//! it. This crate is such a host in small: libsqlite3-sys' own `sqlite3.c`, compiled with all symbols private, its
//! table given to the extension's entry point. From then on every rusqlite connection of the process goes the same
//! way as in a real host, and `cargo test` needs no SQLite on the machine.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn private_sqlite_api() -> *const c_void;
    fn private_sqlite_open(name: *const c_char, db: *mut *mut c_void) -> c_int;
    fn private_sqlite_auto_extension(entry: unsafe extern "C" fn()) -> c_int;
    fn private_sqlite_load(
        db: *mut c_void,
        file: *const c_char,
        message: *mut *mut c_char,
    ) -> c_int;
    fn private_sqlite_config_log(
        log: unsafe extern "C" fn(*mut c_void, c_int, *const c_char),
    ) -> c_int;
}

/// The signature of an extension's entry point: connection, place for a message, table of functions.
pub type Entry<Db, Api> = unsafe extern "C" fn(*mut Db, *mut *mut c_char, *mut Api) -> c_int;

/// Starts `entry` on a connection of the private SQLite (which fills the process-wide table of the extension) and makes
/// every connection opened later call it. The first call counts.
///
/// # Panics
/// When the entry point refuses.
pub fn install<Db, Api>(entry: Entry<Db, Api>) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| start_with(entry));
}

fn start_with<Db, Api>(entry: Entry<Db, Api>) {
    let mut db = std::ptr::null_mut();
    let mut message = std::ptr::null_mut();
    // SAFETY: a private connection in memory and the table that belongs to it. The connection is left open: it costs a
    // few kilobytes once per process (and KEPT tells a leak sanitizer that this is meant).
    unsafe {
        assert_eq!(private_sqlite_open(c":memory:".as_ptr(), &mut db), 0);
        let code = entry(
            db.cast(),
            &mut message,
            private_sqlite_api().cast_mut().cast(),
        );
        assert!(
            code == 0 || code == 256,
            "entry point: {code} {}",
            text(message)
        );
        KEPT.store(db, Ordering::Release);
        ENTRY.store(entry as *mut (), Ordering::Release);
        let start: unsafe extern "C" fn() = std::mem::transmute(
            start as unsafe extern "C" fn(*mut c_void, *mut *mut c_char, *mut c_void) -> c_int,
        );
        assert_eq!(private_sqlite_auto_extension(start), 0);
    }
}

/// The connection of `install`.
static KEPT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// The entry point that `start` calls.
static ENTRY: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// An automatic extension must say OK, where a loaded one may say "OK, load permanently" (256).
unsafe extern "C" fn start(db: *mut c_void, message: *mut *mut c_char, api: *mut c_void) -> c_int {
    // SAFETY: `install` stored an entry point before it registered this function.
    let code = unsafe {
        let entry: Entry<c_void, c_void> = std::mem::transmute(ENTRY.load(Ordering::Acquire));
        entry(db, message, api)
    };
    if code == 256 { 0 } else { code }
}

/// A connection handle of the private SQLite with the library in `file` loaded by `sqlite3_load_extension`, as any
/// host would.
///
/// # Errors
/// SQLite's message.
pub fn load(database: &str, file: &Path) -> Result<*mut c_void, String> {
    let name = CString::new(database).map_err(|e| e.to_string())?;
    let file = CString::new(file.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
    let mut db = std::ptr::null_mut();
    let mut message = std::ptr::null_mut();
    // SAFETY: valid strings and places; the connection is open when it is used.
    unsafe {
        if private_sqlite_open(name.as_ptr(), &mut db) != 0 {
            return Err(format!("cannot open {database}"));
        }
        match private_sqlite_load(db, file.as_ptr(), &mut message) {
            0 => Ok(db),
            code => Err(format!("{code}: {}", text(message))),
        }
    }
}

/// Sends SQLite's log (`sqlite3_log`) to `log`. Must come before anything else: SQLite takes it only before it starts.
///
/// # Panics
/// When SQLite has started already.
pub fn set_log(log: unsafe extern "C" fn(*mut c_void, c_int, *const c_char)) {
    // SAFETY: a function with SQLite's signature for logs.
    assert_eq!(unsafe { private_sqlite_config_log(log) }, 0);
}

/// # Safety
/// Null or a C string.
unsafe fn text(message: *const c_char) -> String {
    if message.is_null() {
        String::new()
    } else {
        // SAFETY: the caller's.
        unsafe { CStr::from_ptr(message) }
            .to_string_lossy()
            .into_owned()
    }
}

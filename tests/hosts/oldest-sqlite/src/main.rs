//! `oldest-sqlite LIBRARY`: loads the library, runs `smoke.sql`, prints its rows as the sqlite3 shell would.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use libsqlite3_sys as ffi;

unsafe extern "C" fn print(
    _: *mut c_void,
    n: c_int,
    values: *mut *mut c_char,
    _: *mut *mut c_char,
) -> c_int {
    let cells: Vec<String> = (0..n as usize)
        // SAFETY: SQLite gives n values, null or C strings.
        .map(|i| unsafe { text(*values.add(i)) })
        .collect();
    println!("{}", cells.join("|"));
    0
}

/// # Safety
/// Null or a C string.
unsafe fn text(value: *const c_char) -> String {
    if value.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(value) }
        .to_string_lossy()
        .into_owned()
}

fn main() {
    let library = CString::new(std::env::args().nth(1).expect("the library to load")).unwrap();
    let script = CString::new(include_str!("../../smoke.sql")).unwrap();
    let (mut db, mut message) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: SQLite's own functions on a connection that is open, with valid strings and places.
    unsafe {
        assert!(
            ffi::sqlite3_libversion_number() / 1000 == 3038,
            "not SQLite 3.38"
        );
        assert_eq!(ffi::sqlite3_open(c":memory:".as_ptr(), &mut db), 0);
        ffi::sqlite3_enable_load_extension(db, 1);
        let code =
            ffi::sqlite3_load_extension(db, library.as_ptr(), std::ptr::null(), &mut message);
        assert_eq!(code, 0, "load_extension: {}", text(message));
        let code = ffi::sqlite3_exec(
            db,
            script.as_ptr(),
            Some(print),
            std::ptr::null_mut(),
            &mut message,
        );
        assert_eq!(code, 0, "smoke.sql: {}", text(message));
        assert_eq!(ffi::sqlite3_close(db), 0);
    }
}

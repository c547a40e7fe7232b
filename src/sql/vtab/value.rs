//! The values a callback is given, and the place for the one it returns.

use std::ffi::c_int;
use std::marker::PhantomData;

use anyhow::Result;
use rusqlite::ffi;
use rusqlite::types::{Type, ValueRef};

use crate::sql::values::whole;

/// Values from SQL, valid during one callback.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    values: &'a [*mut ffi::sqlite3_value],
}

impl<'a> Args<'a> {
    /// # Safety
    /// `argc` values of SQLite, valid as long as `'a`.
    pub(super) unsafe fn new(argc: c_int, argv: *mut *mut ffi::sqlite3_value) -> Self {
        let n = usize::try_from(argc).unwrap_or(0);
        let values = if n == 0 {
            &[]
        } else {
            // SAFETY: the caller's.
            unsafe { std::slice::from_raw_parts(argv, n) }
        };
        Args { values }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Those from number `start` on.
    pub(crate) fn from(&self, start: usize) -> Args<'a> {
        Args {
            values: self.values.get(start..).unwrap_or_default(),
        }
    }

    /// Value `i`; NULL beyond the end.
    pub(crate) fn get(&self, i: usize) -> ValueRef<'a> {
        let Some(&value) = self.values.get(i) else {
            return ValueRef::Null;
        };
        // SAFETY: SQLite's value, valid as long as `'a`; the pointer is asked for before the length, as SQLite wants.
        unsafe {
            match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_value_text(value);
                    let length = ffi::sqlite3_value_bytes(value);
                    ValueRef::Text(bytes(text, length))
                }
                ffi::SQLITE_BLOB => {
                    let blob = ffi::sqlite3_value_blob(value).cast::<u8>();
                    let length = ffi::sqlite3_value_bytes(value);
                    ValueRef::Blob(bytes(blob, length))
                }
                _ => ValueRef::Null,
            }
        }
    }

    /// Whether value `i` is NULL.
    pub(crate) fn is_null(&self, i: usize) -> bool {
        self.get(i).data_type() == Type::Null
    }

    /// The integers among the values of an IN that was asked for all at once, in argument `i`; of a plain value, itself. As
    /// SQLite compares them with a rowid: 7.0 is one, and so is the text '7', which a column of texts may give in a join.
    pub(crate) fn set(&self, i: usize) -> Result<Vec<i64>> {
        let mut integers = Vec::new();
        let mut push = |value: *mut ffi::sqlite3_value| {
            // SAFETY: a value of the running xFilter. A text that is a number becomes that.
            unsafe { ffi::sqlite3_value_numeric_type(value) };
            if let ValueRef::Integer(n) = whole(Args { values: &[value] }.get(0)) {
                integers.push(n);
            }
        };
        let Some(&list) = self.values.get(i) else {
            return Ok(integers);
        };
        let mut value = std::ptr::null_mut();
        // SAFETY: a value of the running xFilter. What is no list is answered with an error code and no value.
        let mut code = unsafe { ffi::sqlite3_vtab_in_first(list, &raw mut value) };
        if !matches!(code, ffi::SQLITE_OK | ffi::SQLITE_DONE) && self.len() > i {
            push(list);
            return Ok(integers);
        }
        while code == ffi::SQLITE_OK && !value.is_null() {
            // Valid until the next one is asked for.
            push(value);
            // SAFETY: as above.
            code = unsafe { ffi::sqlite3_vtab_in_next(list, &raw mut value) };
        }
        match code {
            ffi::SQLITE_OK | ffi::SQLITE_DONE => Ok(integers),
            code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()),
        }
    }

    /// The subtype of value `i`; 0 for none.
    pub(crate) fn subtype(&self, i: usize) -> u32 {
        self.values
            .get(i)
            // SAFETY: SQLite's value, valid as long as `'a`.
            .map_or(0, |&value| unsafe { ffi::sqlite3_value_subtype(value) })
    }
}

/// # Safety
/// `length` bytes at `start`, valid as long as `'a`; null for none.
unsafe fn bytes<'a>(start: *const u8, length: c_int) -> &'a [u8] {
    match usize::try_from(length) {
        // SAFETY: the caller's.
        Ok(n) if !start.is_null() && n > 0 => unsafe { std::slice::from_raw_parts(start, n) },
        _ => &[],
    }
}

/// Where a callback puts the value of a column.
pub(crate) struct Output<'a> {
    context: *mut ffi::sqlite3_context,
    lifetime: PhantomData<&'a mut ()>,
}

impl Output<'_> {
    /// # Safety
    /// A context of SQLite, during one callback.
    pub(super) unsafe fn new(context: *mut ffi::sqlite3_context) -> Self {
        Output {
            context,
            lifetime: PhantomData,
        }
    }

    /// An integer.
    pub(crate) fn integer(&mut self, value: i64) {
        // SAFETY: a live context.
        unsafe { ffi::sqlite3_result_int64(self.context, value) }
    }

    /// A real number.
    pub(crate) fn real(&mut self, value: f64) {
        // SAFETY: a live context.
        unsafe { ffi::sqlite3_result_double(self.context, value) }
    }

    /// A text, copied.
    pub(crate) fn text(&mut self, value: &str) {
        // SAFETY: a live context; SQLite copies (SQLITE_TRANSIENT) and is told the length.
        unsafe {
            ffi::sqlite3_result_text64(
                self.context,
                value.as_ptr().cast(),
                value.len() as u64,
                ffi::SQLITE_TRANSIENT(),
                ffi::SQLITE_UTF8 as u8,
            );
        }
    }

    /// A blob, copied.
    pub(crate) fn blob(&mut self, value: &[u8]) {
        // SAFETY: a live context; SQLite copies (SQLITE_TRANSIENT) and is told the length.
        unsafe {
            ffi::sqlite3_result_blob64(
                self.context,
                value.as_ptr().cast(),
                value.len() as u64,
                ffi::SQLITE_TRANSIENT(),
            );
        }
    }

    /// Any value.
    pub(crate) fn value(&mut self, value: ValueRef<'_>) {
        match value {
            // SAFETY: a live context.
            ValueRef::Null => unsafe { ffi::sqlite3_result_null(self.context) },
            ValueRef::Integer(n) => self.integer(n),
            ValueRef::Real(x) => self.real(x),
            ValueRef::Text(t) => self.text(&String::from_utf8_lossy(t)),
            ValueRef::Blob(b) => self.blob(b),
        }
    }

    /// Marks the value with a subtype.
    pub(crate) fn subtype(&mut self, subtype: u32) {
        // SAFETY: a live context.
        unsafe { ffi::sqlite3_result_subtype(self.context, subtype) }
    }
}

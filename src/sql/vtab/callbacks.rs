//! The C callbacks of a virtual table, generated for each [`Table`].
//!
//! Guarantor of every pointer here: SQLite. It passes back the `sqlite3_vtab` and `sqlite3_vtab_cursor` that xConnect
//! and xOpen gave it, calls no callback after xDisconnect, xDestroy or xClose, and calls all under the connection's
//! mutex.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use rusqlite::ffi;

use super::{Args, Change, Cursor, Db, Origin, Output, Plan, Table, guard, sqlite_string};
use crate::sql::Session;

#[repr(C)]
struct TableBox<T> {
    base: ffi::sqlite3_vtab,
    table: T,
}

#[repr(C)]
struct CursorBox<C> {
    base: ffi::sqlite3_vtab_cursor,
    cursor: C,
}

/// Releases the session that a module held.
pub(super) unsafe extern "C" fn forget_session(session: *mut c_void) {
    // SAFETY: made by `Arc::into_raw` in `register`, given back once.
    drop(unsafe { Arc::from_raw(session.cast::<Session>().cast_const()) });
}

/// # Safety
/// A C string of SQLite that lives as long as `'a`.
unsafe fn utf8<'a>(text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| anyhow!("an argument is not UTF-8"))
}

pub(super) struct Callbacks<T>(PhantomData<T>);

impl<T: Table> Callbacks<T> {
    pub(super) const MODULE: &'static ffi::sqlite3_module = &ffi::sqlite3_module {
        iVersion: 4,
        xCreate: if T::STORED { Some(Self::create) } else { None },
        xConnect: Some(Self::connect),
        xBestIndex: Some(Self::best_index),
        xDisconnect: Some(Self::disconnect),
        xDestroy: if T::STORED {
            Some(Self::destroy)
        } else {
            Some(Self::disconnect)
        },
        xOpen: Some(Self::open),
        xClose: Some(Self::close),
        xFilter: Some(Self::filter),
        xNext: Some(Self::next),
        xEof: Some(Self::eof),
        xColumn: Some(Self::column),
        xRowid: Some(Self::rowid),
        xUpdate: if T::WRITABLE {
            Some(Self::update)
        } else {
            None
        },
        xBegin: if T::WRITABLE { Some(Self::begin) } else { None },
        xSync: if T::WRITABLE { Some(Self::sync) } else { None },
        xCommit: if T::WRITABLE {
            Some(Self::commit)
        } else {
            None
        },
        xRollback: if T::WRITABLE {
            Some(Self::rollback)
        } else {
            None
        },
        xFindFunction: None,
        xRename: if T::STORED { Some(Self::rename) } else { None },
        xSavepoint: if T::WRITABLE {
            Some(Self::savepoint)
        } else {
            None
        },
        xRelease: if T::WRITABLE {
            Some(Self::release)
        } else {
            None
        },
        xRollbackTo: if T::WRITABLE {
            Some(Self::rollback_to)
        } else {
            None
        },
        xShadowName: if T::STORED {
            Some(Self::shadow_name)
        } else {
            None
        },
        xIntegrity: if T::STORED {
            Some(Self::integrity)
        } else {
            None
        },
    };

    /// # Safety
    /// `vtab` came from `connect` of this very type.
    unsafe fn table<'a>(vtab: *mut ffi::sqlite3_vtab) -> &'a T {
        // SAFETY: the caller's; only shared borrows are ever made.
        unsafe { &(*vtab.cast::<TableBox<T>>()).table }
    }

    /// # Safety
    /// `cursor` came from `open` of this very type, and no other borrow of it is alive: SQLite runs one callback of a
    /// cursor at a time.
    unsafe fn cursor<'a>(
        cursor: *mut ffi::sqlite3_vtab_cursor,
    ) -> (&'a mut T::Cursor, &'a T, *mut *mut c_char) {
        // SAFETY: the caller's.
        unsafe {
            let vtab = (*cursor).pVtab;
            (
                &mut (*cursor.cast::<CursorBox<T::Cursor>>()).cursor,
                Self::table(vtab),
                &raw mut (*vtab).zErrMsg,
            )
        }
    }

    /// # Safety
    /// The arguments of xCreate and xConnect.
    unsafe fn make(
        (db, aux, argc, argv): (*mut ffi::sqlite3, *mut c_void, c_int, *const *const c_char),
        place: *mut *mut ffi::sqlite3_vtab,
        message: *mut *mut c_char,
        create: bool,
    ) -> c_int {
        guard(message, || {
            // SAFETY: SQLite gives module, schema, table and arguments; `aux` is the session `register` gave.
            let (session, argv) = unsafe {
                let session = aux.cast::<Session>().cast_const();
                Arc::increment_strong_count(session);
                (
                    Arc::from_raw(session),
                    std::slice::from_raw_parts(argv, usize::try_from(argc)?),
                )
            };
            // SAFETY: as above.
            let argv = argv
                .iter()
                .map(|&text| unsafe { utf8(text) })
                .collect::<Result<Vec<_>>>()?;
            let (table, declaration) = T::connect(Origin {
                db: Db(db),
                session,
                schema: argv.get(1).copied().unwrap_or("main"),
                name: argv.get(2).copied().unwrap_or_default(),
                args: argv.get(3..).unwrap_or_default().to_vec(),
                create,
            })?;
            let declaration = std::ffi::CString::new(declaration)?;
            // SAFETY: the handle SQLite gave; the declaration is a C string.
            unsafe {
                check(ffi::sqlite3_declare_vtab(db, declaration.as_ptr()))?;
                let risk = if T::DIRECT_ONLY {
                    ffi::SQLITE_VTAB_DIRECTONLY
                } else {
                    ffi::SQLITE_VTAB_INNOCUOUS
                };
                if !T::STORED {
                    check(ffi::sqlite3_vtab_config(db, risk))?;
                }
                *place = Box::into_raw(Box::new(TableBox {
                    base: std::mem::zeroed(),
                    table,
                }))
                .cast();
            }
            Ok(())
        })
    }

    unsafe extern "C" fn create(
        db: *mut ffi::sqlite3,
        aux: *mut c_void,
        argc: c_int,
        argv: *const *const c_char,
        place: *mut *mut ffi::sqlite3_vtab,
        message: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: SQLite's.
        unsafe { Self::make((db, aux, argc, argv), place, message, true) }
    }

    unsafe extern "C" fn connect(
        db: *mut ffi::sqlite3,
        aux: *mut c_void,
        argc: c_int,
        argv: *const *const c_char,
        place: *mut *mut ffi::sqlite3_vtab,
        message: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: SQLite's.
        unsafe { Self::make((db, aux, argc, argv), place, message, false) }
    }

    unsafe extern "C" fn best_index(
        vtab: *mut ffi::sqlite3_vtab,
        info: *mut ffi::sqlite3_index_info,
    ) -> c_int {
        let mut usable = true;
        // SAFETY: SQLite's pointers.
        let code = unsafe {
            guard(&raw mut (*vtab).zErrMsg, || {
                usable = Self::table(vtab).best_index(&mut Plan::new(&mut *info))?;
                Ok(())
            })
        };
        if code == ffi::SQLITE_OK && !usable {
            ffi::SQLITE_CONSTRAINT
        } else {
            code
        }
    }

    unsafe extern "C" fn disconnect(vtab: *mut ffi::sqlite3_vtab) -> c_int {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `make`, given back once.
            drop(unsafe { Box::from_raw(vtab.cast::<TableBox<T>>()) });
            Ok(())
        })
    }

    unsafe extern "C" fn destroy(vtab: *mut ffi::sqlite3_vtab) -> c_int {
        // SAFETY: SQLite's pointer.
        let code = unsafe { guard(&raw mut (*vtab).zErrMsg, || Self::table(vtab).destroy()) };
        match code {
            // SAFETY: SQLite's pointer, not used again.
            ffi::SQLITE_OK => unsafe { Self::disconnect(vtab) },
            code => code,
        }
    }

    unsafe extern "C" fn open(
        vtab: *mut ffi::sqlite3_vtab,
        place: *mut *mut ffi::sqlite3_vtab_cursor,
    ) -> c_int {
        // SAFETY: SQLite's pointers.
        unsafe {
            guard(&raw mut (*vtab).zErrMsg, || {
                let cursor = Self::table(vtab).open()?;
                *place = Box::into_raw(Box::new(CursorBox {
                    base: std::mem::zeroed(),
                    cursor,
                }))
                .cast();
                Ok(())
            })
        }
    }

    unsafe extern "C" fn close(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
        guard(std::ptr::null_mut(), || {
            // SAFETY: made by `open`, given back once.
            drop(unsafe { Box::from_raw(cursor.cast::<CursorBox<T::Cursor>>()) });
            Ok(())
        })
    }

    unsafe extern "C" fn filter(
        cursor: *mut ffi::sqlite3_vtab_cursor,
        number: c_int,
        text: *const c_char,
        argc: c_int,
        argv: *mut *mut ffi::sqlite3_value,
    ) -> c_int {
        // SAFETY: SQLite's pointers, valid during the call.
        unsafe {
            let (cursor, table, message) = Self::cursor(cursor);
            guard(message, || {
                cursor.filter(table, number, utf8(text)?, &Args::new(argc, argv))
            })
        }
    }

    unsafe extern "C" fn next(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
        // SAFETY: SQLite's pointer.
        let (cursor, table, message) = unsafe { Self::cursor(cursor) };
        guard(message, || cursor.next(table))
    }

    unsafe extern "C" fn eof(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
        // SAFETY: SQLite's pointer.
        let (cursor, ..) = unsafe { Self::cursor(cursor) };
        let mut eof = true;
        guard(std::ptr::null_mut(), || {
            eof = cursor.eof();
            Ok(())
        });
        c_int::from(eof)
    }

    unsafe extern "C" fn column(
        cursor: *mut ffi::sqlite3_vtab_cursor,
        context: *mut ffi::sqlite3_context,
        i: c_int,
    ) -> c_int {
        // SAFETY: SQLite's pointers.
        let (cursor, table, message) = unsafe { Self::cursor(cursor) };
        guard(message, || {
            // SAFETY: SQLite's context, valid during the call.
            let mut out = unsafe { Output::new(context) };
            cursor.column(table, usize::try_from(i)?, &mut out)
        })
    }

    unsafe extern "C" fn rowid(
        cursor: *mut ffi::sqlite3_vtab_cursor,
        place: *mut ffi::sqlite3_int64,
    ) -> c_int {
        // SAFETY: SQLite's pointers.
        unsafe {
            let (cursor, _, message) = Self::cursor(cursor);
            guard(message, || {
                *place = cursor.rowid();
                Ok(())
            })
        }
    }

    unsafe extern "C" fn update(
        vtab: *mut ffi::sqlite3_vtab,
        argc: c_int,
        argv: *mut *mut ffi::sqlite3_value,
        rowid: *mut ffi::sqlite3_int64,
    ) -> c_int {
        // SAFETY: SQLite's pointers. argv is [old rowid, new rowid, columns ...], or the old rowid alone for DELETE.
        unsafe {
            guard(&raw mut (*vtab).zErrMsg, || {
                let args = Args::new(argc, argv);
                let change = if args.len() <= 1 {
                    Change::Delete
                } else if args.is_null(0) {
                    Change::Insert(args.from(2))
                } else {
                    Change::Update
                };
                *rowid = Self::table(vtab).update(change)?;
                Ok(())
            })
        }
    }

    unsafe extern "C" fn begin(vtab: *mut ffi::sqlite3_vtab) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { guard(&raw mut (*vtab).zErrMsg, || Self::table(vtab).begin()) }
    }

    unsafe extern "C" fn sync(_vtab: *mut ffi::sqlite3_vtab) -> c_int {
        ffi::SQLITE_OK
    }

    /// Runs a callback that can't fail.
    ///
    /// # Safety
    /// `vtab` is SQLite's, of this very type.
    unsafe fn tell(vtab: *mut ffi::sqlite3_vtab, body: impl FnOnce(&T)) -> c_int {
        // SAFETY: the caller's.
        let table = unsafe { Self::table(vtab) };
        guard(std::ptr::null_mut(), || {
            body(table);
            Ok(())
        })
    }

    unsafe extern "C" fn commit(vtab: *mut ffi::sqlite3_vtab) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { Self::tell(vtab, T::commit) }
    }

    unsafe extern "C" fn rollback(vtab: *mut ffi::sqlite3_vtab) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { Self::tell(vtab, T::rollback) }
    }

    unsafe extern "C" fn savepoint(vtab: *mut ffi::sqlite3_vtab, n: c_int) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { Self::tell(vtab, |t| t.savepoint(n)) }
    }

    unsafe extern "C" fn release(vtab: *mut ffi::sqlite3_vtab, n: c_int) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { Self::tell(vtab, |t| t.release(n)) }
    }

    unsafe extern "C" fn rollback_to(vtab: *mut ffi::sqlite3_vtab, n: c_int) -> c_int {
        // SAFETY: SQLite's pointer.
        unsafe { Self::tell(vtab, |t| t.rollback_to(n)) }
    }

    unsafe extern "C" fn rename(vtab: *mut ffi::sqlite3_vtab, name: *const c_char) -> c_int {
        // SAFETY: SQLite's pointers.
        unsafe {
            guard(&raw mut (*vtab).zErrMsg, || {
                Self::table(vtab).rename(utf8(name)?)
            })
        }
    }

    unsafe extern "C" fn shadow_name(suffix: *const c_char) -> c_int {
        // SAFETY: SQLite's string.
        c_int::from(unsafe { utf8(suffix) }.is_ok_and(T::is_shadow))
    }

    unsafe extern "C" fn integrity(
        vtab: *mut ffi::sqlite3_vtab,
        _schema: *const c_char,
        _name: *const c_char,
        _flags: c_int,
        message: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: SQLite's pointers.
        unsafe {
            guard(&raw mut (*vtab).zErrMsg, || {
                if let Some(fault) = Self::table(vtab).integrity()? {
                    *message = sqlite_string(&fault);
                }
                Ok(())
            })
        }
    }
}

/// An error for any code but OK.
fn check(code: c_int) -> Result<()> {
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into()),
    }
}

//! Table functions: `name(argument, ...)` in a FROM clause gives rows.
//!
//! To SQLite they are virtual tables whose last columns are hidden and hold the arguments. A [`Function`] says which
//! arguments it takes and turns their values into an iterator of rows; [`FunctionTable`] does the rest.

use std::ffi::CString;
use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{Args, Cursor, Db, Origin, Output, Plan, Table};
use crate::sql::Session;
use crate::sql::values::whole;

/// A function that gives rows.
pub(crate) trait Function: 'static {
    /// Its name, for messages.
    const NAME: &'static str;
    /// Its columns with their types, as in CREATE TABLE.
    const COLUMNS: &'static [&'static str];
    /// The names of its arguments, required ones first.
    const ARGUMENTS: &'static [&'static str];
    /// How many arguments are required.
    const REQUIRED: usize;
    /// As [`Table::DIRECT_ONLY`].
    const DIRECT_ONLY: bool = false;
    /// The column that is the rowid as well; `None`: rows are numbered.
    const ROWID: Option<usize> = None;
    /// How many rows the planner should expect.
    const ROWS: i64;
    /// The rows, one after the other.
    type Rows: Iterator<Item = Result<Vec<Value>>>;

    /// Starts the function. `args` has one value for each of [`Function::ARGUMENTS`], NULL where one is missing.
    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows>;
}

/// Where a function runs.
pub(crate) struct Scope {
    /// A handle of the connection.
    pub(crate) conn: Connection,
    /// What all functions of the connection share.
    pub(crate) session: Arc<Session>,
}

/// Registers a function for this connection.
pub(crate) fn register<F: Function>(
    conn: &Connection,
    session: &Arc<Session>,
) -> rusqlite::Result<()> {
    let name = CString::new(F::NAME)?;
    super::register::<FunctionTable<F>>(conn, &name, session)
}

/// The virtual table of a [`Function`].
pub(crate) struct FunctionTable<F> {
    db: Db,
    session: Arc<Session>,
    function: PhantomData<F>,
}

impl<F: Function> Table for FunctionTable<F> {
    type Cursor = FunctionCursor<F>;
    const DIRECT_ONLY: bool = F::DIRECT_ONLY;

    fn connect(origin: Origin<'_>) -> Result<(Self, String)> {
        let hidden = F::ARGUMENTS.iter().map(|name| format!("\"{name}\" HIDDEN"));
        let columns: Vec<String> = F::COLUMNS
            .iter()
            .map(ToString::to_string)
            .chain(hidden)
            .collect();
        let table = FunctionTable {
            db: origin.db,
            session: origin.session,
            function: PhantomData,
        };
        Ok((table, format!("CREATE TABLE x({})", columns.join(", "))))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        let (first, n) = (F::COLUMNS.len(), F::ARGUMENTS.len());
        let Some(given) = plan.take_arguments(i32::try_from(first)?, i32::try_from(n)?) else {
            return Ok(false);
        };
        plan.number(given);
        plan.cost(F::ROWS as f64, F::ROWS);
        Ok(true)
    }

    fn open(&self) -> Result<Self::Cursor> {
        Ok(FunctionCursor {
            args: Vec::new(),
            rows: None,
            row: None,
            number: 0,
        })
    }
}

/// One call of a [`Function`].
pub(crate) struct FunctionCursor<F: Function> {
    args: Vec<Value>,
    rows: Option<F::Rows>,
    row: Option<Vec<Value>>,
    number: i64,
}

impl<F: Function> Cursor for FunctionCursor<F> {
    type Table = FunctionTable<F>;

    fn filter(
        &mut self,
        table: &Self::Table,
        number: i32,
        _text: &str,
        args: &Args<'_>,
    ) -> Result<()> {
        let mut next = 0;
        self.args.clear();
        for (i, name) in F::ARGUMENTS.iter().enumerate() {
            if number & (1 << i) != 0 {
                self.args.push(whole(args.get(next)).try_into()?);
                next += 1;
            } else if i < F::REQUIRED {
                bail!(
                    "{}: argument {name} is missing; expected {}({})",
                    F::NAME,
                    F::NAME,
                    F::ARGUMENTS.join(", ")
                );
            } else {
                self.args.push(Value::Null);
            }
        }
        let scope = Scope {
            conn: table.db.connection()?,
            session: Arc::clone(&table.session),
        };
        self.rows = Some(F::call(&scope, &self.args)?);
        self.number = 0;
        self.next(table)
    }

    fn next(&mut self, _table: &Self::Table) -> Result<()> {
        self.row = self.rows.as_mut().and_then(Iterator::next).transpose()?;
        self.number += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.row.is_none()
    }

    fn column(&self, _table: &Self::Table, i: usize, out: &mut Output<'_>) -> Result<()> {
        let value = match i.checked_sub(F::COLUMNS.len()) {
            Some(argument) => self.args.get(argument),
            None => self.row.as_ref().and_then(|row| row.get(i)),
        };
        out.value(value.unwrap_or(&Value::Null).into());
        Ok(())
    }

    fn rowid(&self) -> i64 {
        let column = F::ROWID.and_then(|i| self.row.as_ref()?.get(i));
        match column {
            Some(&Value::Integer(rowid)) => rowid,
            _ => self.number,
        }
    }
}

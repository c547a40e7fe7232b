//! What xBestIndex is asked, and answers.

use std::ffi::c_int;

use rusqlite::ffi;

/// The operators a virtual table may be given. `Other` covers those no table here uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `=`
    Eq,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `MATCH`
    Match,
    /// LIMIT n (SQLite 3.38 and later)
    Limit,
    /// OFFSET n (SQLite 3.38 and later)
    Offset,
    /// Any other operator.
    Other,
}

/// One term of the WHERE clause that concerns the table: `column op value`. Column -1 is the rowid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constraint {
    /// Its place in SQLite's list.
    pub(crate) at: usize,
    /// The column on its left side.
    pub(crate) column: i32,
    /// The operator.
    pub(crate) op: Op,
    /// Whether its value is known when this plan runs.
    pub(crate) usable: bool,
}

/// A question of the planner, and the answer as it is put together.
pub(crate) struct Plan<'a> {
    info: &'a mut ffi::sqlite3_index_info,
    next_argument: c_int,
}

impl<'a> Plan<'a> {
    /// # Safety
    /// `info` is what SQLite gave to xBestIndex, during that call.
    pub(super) unsafe fn new(info: &'a mut ffi::sqlite3_index_info) -> Self {
        Plan {
            info,
            next_argument: 1,
        }
    }

    /// All constraints, usable or not.
    pub(crate) fn constraints(&self) -> Vec<Constraint> {
        let n = usize::try_from(self.info.nConstraint).unwrap_or(0);
        if n == 0 {
            return Vec::new();
        }
        // SAFETY: SQLite gives nConstraint of them.
        let all = unsafe { std::slice::from_raw_parts(self.info.aConstraint, n) };
        all.iter()
            .enumerate()
            .map(|(at, c)| Constraint {
                at,
                column: c.iColumn,
                op: match c_int::from(c.op) {
                    ffi::SQLITE_INDEX_CONSTRAINT_EQ => Op::Eq,
                    ffi::SQLITE_INDEX_CONSTRAINT_LT => Op::Lt,
                    ffi::SQLITE_INDEX_CONSTRAINT_LE => Op::Le,
                    ffi::SQLITE_INDEX_CONSTRAINT_GT => Op::Gt,
                    ffi::SQLITE_INDEX_CONSTRAINT_GE => Op::Ge,
                    ffi::SQLITE_INDEX_CONSTRAINT_MATCH => Op::Match,
                    73 => Op::Limit,
                    74 => Op::Offset,
                    _ => Op::Other,
                },
                usable: c.usable != 0,
            })
            .collect()
    }

    /// Asks for the value of a constraint as the next argument of the scan. `omit`: SQLite need not check it again.
    pub(crate) fn take(&mut self, constraint: Constraint, omit: bool) {
        // SAFETY: aConstraintUsage is as long as aConstraint, and `at` came from there.
        let usage = unsafe { &mut *self.info.aConstraintUsage.add(constraint.at) };
        usage.argvIndex = self.next_argument;
        usage.omit = u8::from(omit);
        self.next_argument += 1;
    }

    /// Takes the arguments of a table function: `n` hidden columns from `first` on, each by an equality. Returns which of them
    /// there are, as bits; `None` when one is not known yet: its value comes from a table that this plan visits later.
    pub(crate) fn take_arguments(&mut self, first: i32, n: i32) -> Option<i32> {
        let constraints = self.constraints();
        let mut given = 0;
        for i in 0..n {
            let mut equal = constraints
                .iter()
                .filter(|c| c.column == first + i && c.op == Op::Eq);
            match equal.clone().find(|c| c.usable) {
                Some(&constraint) => {
                    self.take(constraint, true);
                    given |= 1 << i;
                }
                None if equal.next().is_some() => return None,
                None => {}
            }
        }
        Some(given)
    }

    /// Whether a constraint `column = value` is `column IN (...)`, whose values can come all at once.
    pub(crate) fn is_in(&mut self, constraint: Constraint) -> bool {
        self.vtab_in(constraint, -1)
    }

    /// Asks for the values of an IN as the next argument, all at once ([`super::Args::set`]). SQLite checks them again.
    pub(crate) fn take_all(&mut self, constraint: Constraint) {
        self.vtab_in(constraint, 1);
        self.take(constraint, false);
    }

    fn vtab_in(&mut self, constraint: Constraint, handle: c_int) -> bool {
        // SAFETY: `info` is that of the running xBestIndex, `at` a place in it; SQLite has the function since 3.38.
        unsafe { ffi::sqlite3_vtab_in(self.info, constraint.at as c_int, handle) != 0 }
    }

    /// Whether the value of a constraint is a constant, written in the statement.
    pub(crate) fn is_constant(&mut self, constraint: Constraint) -> bool {
        self.constant(constraint).is_some()
    }

    /// The value of a constraint, if it is an integer written in the statement.
    pub(crate) fn integer(&mut self, constraint: Constraint) -> Option<i64> {
        let value = self.constant(constraint)?;
        // SAFETY: a value that SQLite has just given, and keeps while xBestIndex runs.
        unsafe {
            (ffi::sqlite3_value_type(value) == ffi::SQLITE_INTEGER)
                .then(|| ffi::sqlite3_value_int64(value))
        }
    }

    fn constant(&mut self, constraint: Constraint) -> Option<*mut ffi::sqlite3_value> {
        let mut value = std::ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe {
            ffi::sqlite3_vtab_rhs_value(self.info, constraint.at as c_int, &raw mut value)
        };
        (code == ffi::SQLITE_OK && !value.is_null()).then_some(value)
    }

    /// The ORDER BY terms: (column, descending).
    pub(crate) fn order_by(&self) -> Vec<(i32, bool)> {
        let n = usize::try_from(self.info.nOrderBy).unwrap_or(0);
        if n == 0 {
            return Vec::new();
        }
        // SAFETY: SQLite gives nOrderBy of them.
        unsafe { std::slice::from_raw_parts(self.info.aOrderBy, n) }
            .iter()
            .map(|o| (o.iColumn, o.desc != 0))
            .collect()
    }

    /// Says that rows come in the order asked for.
    pub(crate) fn ordered(&mut self) {
        self.info.orderByConsumed = 1;
    }

    /// The number the scan will be given.
    pub(crate) fn number(&mut self, number: i32) {
        self.info.idxNum = number;
    }

    /// The estimated cost of the scan (in rows of an ordinary table) and the number of rows it gives.
    pub(crate) fn cost(&mut self, cost: f64, rows: i64) {
        self.info.estimatedCost = cost;
        self.info.estimatedRows = rows;
    }
}

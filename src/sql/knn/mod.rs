//! `knn_exact(table, column, query, k, options)` and `knn_annoy(index, query, k, options)`: table functions that give
//! (rowid, distance), nearest first, ties by rowid.
//!
//! * [`batch`]: many queries at once.
//! * [`fuse`]: `rrf` and `mmr`.
//! * [`groups`]: answers that are groups of rows.
//! * [`stats`]: what the last search did.
//! * [`request`]: the arguments, from SQL values to a [`stream::Request`].
//! * [`targets`]: what a name means: an index, or a bare table.
//! * [`stream`]: the rows, as many as the statement takes.
//!
//! The arguments are hidden columns. A plan in which one of them is not known yet is refused (SQLITE_CONSTRAINT), so in
//! a join with a table of queries the search runs inside, and a plain search is the outer loop of a join with its table.

mod batch;
mod fuse;
mod groups;
mod request;
mod stats;
pub(crate) mod stream;
pub(crate) mod targets;

use std::sync::Arc;

use anyhow::Result;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::Session;
use super::vtab::{self, Args, Constraint, Cursor, Op, Origin, Output, Plan, Table};
use stream::Stream;
use targets::Targets;

pub(crate) use request::{QueryArgs, budget};
pub(crate) use stats::{LastSearch, LastStats};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    fuse::register(conn)?;
    vtab::function::register::<fuse::Mmr>(conn, session)?;
    vtab::register::<Knn<EXACT>>(conn, c"knn_exact", session)?;
    vtab::register::<Knn<ANNOY>>(conn, c"knn_annoy", session)?;
    vtab::register::<batch::KnnBatch<EXACT>>(conn, c"knn_exact_batch", session)?;
    vtab::register::<batch::KnnBatch<ANNOY>>(conn, c"knn_annoy_batch", session)
}

const EXACT: bool = false;
const ANNOY: bool = true;

/// `knn_exact` and `knn_annoy`.
pub(crate) struct Knn<const INDEX: bool> {
    targets: Targets,
}

/// Rows that a search is taken to give when `k` is a parameter.
const A_FEW: i64 = 20;

/// The column `distance`, visible in both.
const DISTANCE: i32 = 0;

impl<const INDEX: bool> Knn<INDEX> {
    /// Columns that name what is searched: the index, or table and column.
    const NAMES: usize = if INDEX { 1 } else { 2 };
    /// How it is called.
    const USAGE: &str = if INDEX {
        "knn_annoy(index, query, k, options)"
    } else {
        "knn_exact(table, column, query, k, options)"
    };
}

/// What the scan is told of the plan, as bits of its number: bit `i` for argument `i`, and these. The values come in the
/// order of the bits.
pub(crate) mod bits {
    pub(crate) const LIMIT: i32 = 1 << 16;
    pub(crate) const OFFSET: i32 = 1 << 17;
    pub(crate) const BOUND: i32 = 1 << 18;
    pub(crate) const FLOOR: i32 = 1 << 19;
    /// Sets of rowids, this bit and those above it.
    pub(crate) const SET: i32 = 1 << 20;
    pub(crate) const SETS: usize = 4;
    /// From here on there are no values.
    pub(crate) const ORDERED: i32 = 1 << 24;
    /// The rows at the floor itself are out.
    pub(crate) const ABOVE: i32 = 1 << 25;
}

/// The plan that `knn_*` and the MATCH form share: takes the constraints that are `arguments` (column and operator; `k`
/// is argument number `k`), bounds on column `distance`, sets of rowids, LIMIT and OFFSET, and the order. `false` when
/// something is not known yet that the answer depends on.
///
/// `k` counts the rows that qualify. A lower bound and a set are met before rows are counted; `rowid = value` too when the
/// value stands in the statement (SQLite makes it of an IN with one value), but not when it comes from elsewhere: in a join
/// `k` rows are the k nearest. Without `k` it is all the same, and `rowid = ...` leads straight to the row.
pub(crate) fn plan_search(
    plan: &mut Plan<'_>,
    distance: i32,
    arguments: &[(i32, Op)],
    k: usize,
) -> bool {
    let constraints = plan.constraints();
    let argument = |c: &Constraint| arguments.iter().position(|&a| a == (c.column, c.op));
    if constraints
        .iter()
        .any(|c| !c.usable && argument(c).is_some())
    {
        return false;
    }
    let has_k = constraints.iter().any(|c| argument(c) == Some(k));
    let (mut number, mut taken) = (0, Vec::new());
    for i in 0..arguments.len() {
        if let Some(&c) = constraints.iter().find(|c| argument(c) == Some(i)) {
            plan.take(c, true);
            number |= 1 << i;
            taken.push(c.at);
        }
    }
    let mut sets = Vec::new();
    for &c in &constraints {
        if c.column != -1 || c.op != Op::Eq {
            continue;
        }
        let many = plan.is_in(c);
        if !c.usable {
            // What comes later can't be met before rows are counted.
            if many && has_k {
                return false;
            }
        } else if (many || !has_k || plan.is_constant(c)) && sets.len() < bits::SETS {
            sets.push((c, many));
        }
    }
    let bound = |ops: [Op; 2]| {
        let mut of_distance = constraints
            .iter()
            .filter(|c| c.usable && c.column == distance);
        of_distance.find(|c| ops.contains(&c.op)).copied()
    };
    let bounds = [
        (bound([Op::Lt, Op::Le]), bits::BOUND),
        (bound([Op::Gt, Op::Ge]), bits::FLOOR),
    ];
    taken.extend(bounds.iter().filter_map(|(c, _)| c.map(|c| c.at)));
    taken.extend(sets.iter().map(|(c, _)| c.at));
    let order = plan.order_by();
    let ordered = matches!(order[..], [(d, false)] | [(d, false), (-1, false)] if d == distance);
    // LIMIT tells how many rows are wanted only if every other condition is one of those taken, and none are sorted.
    let foreign = constraints
        .iter()
        .any(|c| !matches!(c.op, Op::Limit | Op::Offset) && !taken.contains(&c.at));
    if !foreign && (ordered || order.is_empty()) {
        for (op, bit) in [(Op::Limit, bits::LIMIT), (Op::Offset, bits::OFFSET)] {
            if let Some(&c) = constraints.iter().find(|c| c.usable && c.op == op) {
                plan.take(c, false);
                number |= bit;
            }
        }
    }
    for (c, bit) in bounds {
        if let Some(c) = c {
            plan.take(c, false);
            number |= bit;
            if c.op == Op::Gt {
                number |= bits::ABOVE;
            }
        }
    }
    for (i, &(c, many)) in sets.iter().enumerate() {
        if many {
            plan.take_all(c);
        } else {
            plan.take(c, false);
        }
        number |= bits::SET << i;
    }
    if ordered {
        plan.ordered();
        number |= bits::ORDERED;
    }
    plan.number(number);
    // How many rows come at most: what `k` and LIMIT say, if it stands in the statement.
    let most = constraints
        .iter()
        .filter(|c| c.usable && (argument(c) == Some(k) || (!foreign && c.op == Op::Limit)))
        .filter_map(|&c| plan.integer(c))
        .map(|n| n.max(1))
        .min();
    // A search costs about as much as reading a few hundred rows of a table, and then its rows. Without k nothing tells how
    // many the statement will take. The whole table would be the safe guess, and it would turn joins around: then SQLite
    // would search once for each row of the other table, where the rows that come first are those that are wanted.
    let one = sets.iter().any(|(_, many)| !many);
    let (cost, rows) = if one && !has_k {
        // Inside of a join rows would come in the order of the other table. Only a statement that sorts them may have that,
        // and there it is as dear as a search of all: else a join with an equality on another column of its table would
        // search once for each row that SQLite expects there, which without ANALYZE are ten and may be all.
        (if order.is_empty() { 1e6 } else { 5_000.0 }, 1)
    } else if has_k || number & bits::LIMIT != 0 {
        let rows = most.unwrap_or(A_FEW);
        (500.0 + rows as f64, rows)
    } else if !sets.is_empty() {
        // No less than a search of all: SQLite asks so for each side of an OR, and would then search for one side after the
        // other, where the nearest of both are wanted first.
        (5_000.0, 100)
    } else {
        (5_000.0, 1_000)
    };
    plan.cost(cost, rows);
    true
}

impl<const INDEX: bool> Table for Knn<INDEX> {
    type Cursor = KnnCursor<INDEX>;

    fn connect(origin: Origin<'_>) -> Result<(Self, String)> {
        let names = if INDEX {
            "index_name HIDDEN"
        } else {
            "table_name HIDDEN, column_name HIDDEN"
        };
        Ok((
            Knn {
                targets: Targets::new(origin.db, origin.session)?,
            },
            format!(
                "CREATE TABLE x(distance REAL, {names}, query HIDDEN, k HIDDEN, options HIDDEN)"
            ),
        ))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        // The hidden columns in their order: names, query, k, options.
        let arguments: Vec<_> = (1..=Self::NAMES as i32 + 3)
            .map(|column| (column, Op::Eq))
            .collect();
        Ok(plan_search(plan, DISTANCE, &arguments, arguments.len() - 2))
    }

    fn open(&self) -> Result<Self::Cursor> {
        Ok(KnnCursor {
            stream: Stream::default(),
            arguments: Vec::new(),
        })
    }
}

/// A scan of [`Knn`].
pub(crate) struct KnnCursor<const INDEX: bool> {
    stream: Stream,
    arguments: Vec<Value>,
}

impl<const INDEX: bool> Cursor for KnnCursor<INDEX> {
    type Table = Knn<INDEX>;

    fn filter(&mut self, table: &Knn<INDEX>, number: i32, _: &str, args: &Args<'_>) -> Result<()> {
        self.stream.stop();
        let args = QueryArgs::new(number, args, Knn::<INDEX>::NAMES, Knn::<INDEX>::USAGE);
        self.arguments = args.copies()?;
        let request = if INDEX {
            args.annoy(&table.targets)?
        } else {
            args.exact(&table.targets)?
        };
        match request {
            Some(request) => self.stream.start(&table.targets, request),
            None => Ok(()),
        }
    }

    fn next(&mut self, table: &Knn<INDEX>) -> Result<()> {
        self.stream.advance(&table.targets)
    }

    fn eof(&self) -> bool {
        self.stream.current().is_none()
    }

    fn column(&self, _: &Knn<INDEX>, i: usize, out: &mut Output<'_>) -> Result<()> {
        if i != DISTANCE as usize {
            let argument = i.checked_sub(1).and_then(|i| self.arguments.get(i));
            out.value(argument.unwrap_or(&Value::Null).into());
        } else if let Some(hit) = self.stream.current() {
            out.real(hit.distance);
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        self.stream.current().map_or(0, |h| h.rowid)
    }
}

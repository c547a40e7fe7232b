//! `knn_exact_batch(table, column, queries, k, options)` and `knn_annoy_batch(index, queries, k, options)`: many queries in
//! one pass, rows (query, rowid, distance), query 0 first, its nearest row first.
//!
//! The whole answer is computed when the scan begins: `k` rows for each query are held until it ends.

use anyhow::Result;
use rusqlite::types::Value;

use super::ANNOY;
use super::request::QueryArgs;
use super::targets::Targets;
use crate::forest::Hit;
use crate::sql::index::reader::Wanted;
use crate::sql::vtab::{Args, Cursor, Origin, Output, Plan, Table};

/// `knn_exact_batch` and `knn_annoy_batch`.
pub(crate) struct KnnBatch<const INDEX: bool> {
    targets: Targets,
}

/// The visible columns: query, rowid, distance.
const VISIBLE: i32 = 3;

impl<const INDEX: bool> KnnBatch<INDEX> {
    const NAMES: usize = if INDEX { 1 } else { 2 };
    const USAGE: &str = if INDEX {
        "knn_annoy_batch(index, queries, k, options)"
    } else {
        "knn_exact_batch(table, column, queries, k, options)"
    };
}

impl<const INDEX: bool> Table for KnnBatch<INDEX> {
    type Cursor = BatchCursor<INDEX>;

    fn connect(origin: Origin<'_>) -> Result<(Self, String)> {
        let names = if INDEX == ANNOY {
            "index_name HIDDEN"
        } else {
            "table_name HIDDEN, column_name HIDDEN"
        };
        Ok((
            KnnBatch {
                targets: Targets::new(origin.db, origin.session)?,
            },
            format!(
                "CREATE TABLE x(query INTEGER, rowid INTEGER, distance REAL, {names}, queries HIDDEN, k HIDDEN, \
                 options HIDDEN)"
            ),
        ))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        let Some(number) = plan.take_arguments(VISIBLE, Self::NAMES as i32 + 3) else {
            return Ok(false);
        };
        if matches!(plan.order_by()[..], [(0, false)] | [(0, false), (2, false)]) {
            plan.ordered();
        }
        plan.cost(10_000.0, 1_000);
        plan.number(number);
        Ok(true)
    }

    fn open(&self) -> Result<Self::Cursor> {
        Ok(BatchCursor {
            found: Vec::new(),
            query: 0,
            at: 0,
            number: 0,
            arguments: Vec::new(),
        })
    }
}

/// A scan of [`KnnBatch`].
pub(crate) struct BatchCursor<const INDEX: bool> {
    found: Vec<Vec<Hit>>,
    query: usize,
    at: usize,
    number: i64,
    arguments: Vec<Value>,
}

impl<const INDEX: bool> BatchCursor<INDEX> {
    fn current(&self) -> Option<Hit> {
        self.found.get(self.query)?.get(self.at).copied()
    }

    /// Leaves queries behind that have no more rows.
    fn settle(&mut self) {
        while let Some(hits) = self.found.get(self.query)
            && self.at >= hits.len()
        {
            self.query += 1;
            self.at = 0;
        }
    }
}

impl<const INDEX: bool> Cursor for BatchCursor<INDEX> {
    type Table = KnnBatch<INDEX>;

    fn filter(&mut self, table: &Self::Table, number: i32, _: &str, args: &Args<'_>) -> Result<()> {
        self.found = Vec::new();
        (self.query, self.at, self.number) = (0, 0, 0);
        let targets = &table.targets;
        let args = QueryArgs::new(number, args, Self::Table::NAMES, Self::Table::USAGE);
        self.arguments = args.copies()?;
        let batch = if INDEX {
            args.annoy_batch(targets)?
        } else {
            args.exact_batch(targets)?
        };
        if batch.dim > 0 && batch.k > 0 {
            let queries: Vec<&[f32]> = batch.components.chunks_exact(batch.dim).collect();
            let wanted = Wanted {
                k: batch.k,
                within: f64::INFINITY,
                among: None,
                scan_lists: false,
                threads: batch.threads,
            };
            self.found = targets.search(&batch.target, batch.way, &queries, &wanted)?;
        }
        self.settle();
        Ok(())
    }

    fn next(&mut self, _: &Self::Table) -> Result<()> {
        self.at += 1;
        self.number += 1;
        self.settle();
        Ok(())
    }

    fn eof(&self) -> bool {
        self.current().is_none()
    }

    fn column(&self, _: &Self::Table, i: usize, out: &mut Output<'_>) -> Result<()> {
        if let Some(hit) = self.current() {
            match i {
                0 => out.integer(self.query as i64),
                1 => out.integer(hit.rowid),
                2 => out.real(hit.distance),
                _ => out.value(self.arguments.get(i - 3).unwrap_or(&Value::Null).into()),
            }
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        self.number
    }
}

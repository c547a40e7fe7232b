//! A table that no index helps with, searched in one pass: no copy, and no row leaves SQLite's own loop.
//!
//! Stepping through a statement costs more than scoring a row of a hundred dimensions: leaving SQLite's interpreter,
//! entering it again, asking for each column. So the statement is `SELECT annoy_scan(id, v) FROM t`: an aggregate that
//! scores each row, and the one step that is taken ends when the table does. (As a WHERE it might be moved into a view; an
//! aggregate sees each row once. A scalar function within `count` took 10 ns a row longer.) What is scored against lies in
//! the session, the innermost scan last (a view may search while it is searched), until the aggregate takes it. Called by
//! anyone else the function is an error; views and triggers can't call it at all.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard, PoisonError};

use anyhow::{Result, anyhow, bail};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context};
use rusqlite::types::Null;

use super::index::reader::{Wanted, check_dim};
use super::source::Source;
use super::{DIRECT, Session, function_error};
use crate::forest::{Hit, RowScan, RowSet, Stats, TopK};
use crate::vector::Metric;

const FUNCTION: &str = "annoy_scan";

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    let scan = Scan(Arc::clone(session));
    conn.create_aggregate_function(FUNCTION, 2, DIRECT, scan)
}

/// The function, whose rows go to the innermost scan of the session.
struct Scan(Arc<Session>);

/// The aggregate has the scan while it runs: to lock the session for each row would take as long as a row of fifty
/// dimensions.
impl Aggregate<AssertUnwindSafe<TableScan>, Null> for Scan {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<AssertUnwindSafe<TableScan>> {
        let scan = scans(&self.0).pop().ok_or_else(|| {
            function_error(anyhow!(
                "annoy_scan works inside knn_exact only: SELECT rowid, distance FROM knn_exact(table, column, query, k)"
            ))
        })?;
        Ok(AssertUnwindSafe(scan))
    }

    fn step(
        &self,
        ctx: &mut Context<'_>,
        scan: &mut AssertUnwindSafe<TableScan>,
    ) -> rusqlite::Result<()> {
        scan.take(ctx).map_err(|error| {
            // SQLite would make a text of it; the search wants it whole.
            let message = function_error(anyhow!("{error:#}"));
            scan.error = Some(error);
            message
        })
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        scan: Option<AssertUnwindSafe<TableScan>>,
    ) -> rusqlite::Result<Null> {
        scans(&self.0).extend(scan.map(|scan| scan.0));
        Ok(Null)
    }
}

fn scans(session: &Session) -> MutexGuard<'_, Vec<TableScan>> {
    session.scans.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A scan of a table for some queries.
pub(crate) struct TableScan {
    source: Source,
    /// 0 before the first row.
    dim: usize,
    rows: u64,
    buffer: Vec<f32>,
    queries: Vec<Vec<f32>>,
    scans: Vec<(RowScan<'static>, TopK)>,
    /// Rowids of which the answer must be.
    among: Option<Arc<RowSet>>,
    error: Option<anyhow::Error>,
}

impl TableScan {
    /// Scores a row (rowid, vector).
    fn take(&mut self, ctx: &Context<'_>) -> Result<()> {
        let TableScan {
            source,
            dim,
            buffer,
            queries,
            scans,
            among,
            ..
        } = self;
        // Most rows are out before anybody asks for their rowid. That of a table's row is always an integer.
        let rowid = || source.key_of(ctx.get_raw(0));
        if source.is_view {
            rowid()?;
        }
        if let Some(among) = among
            && !among.contains(rowid()?)
        {
            return Ok(());
        }
        let Some(row) = source.vector(rowid, ctx.get_raw(1), buffer)? else {
            return Ok(());
        };
        if *dim == 0 {
            // A later row of another length is the row's fault, not the query's.
            for query in queries.iter() {
                check_dim(query, row.len(), &source.column)?;
            }
            *dim = row.len();
        } else {
            source.check_dim(rowid, row, *dim)?;
        }
        self.rows += 1;
        for (scan, best) in scans {
            if !scan.is_out(row, best) && !scan.score(rowid()?, row, best) {
                source.check_finite(rowid, row)?;
            }
        }
        Ok(())
    }
}

/// The nearest rows of a table that no index helps with, for each query: one pass.
pub(crate) fn scan_table(
    conn: &Connection,
    session: &Session,
    source: &Source,
    metric: Metric,
    queries: &[&[f32]],
    wanted: &Wanted,
    stats: &mut Stats,
) -> Result<Vec<Vec<Hit>>> {
    let start = |query: &&[f32]| {
        let best = TopK::within(wanted.k, wanted.within);
        (RowScan::new(metric, query.to_vec()), best)
    };
    scans(session).push(TableScan {
        source: source.clone(),
        dim: 0,
        rows: 0,
        buffer: Vec::new(),
        queries: queries.iter().map(|q| q.to_vec()).collect(),
        scans: queries.iter().map(start).collect(),
        among: wanted.among.clone(),
        error: None,
    });
    let mut one_by_one = false;
    let mut run = || -> Result<()> {
        match &wanted.among {
            Some(among) if source.finds_sooner(conn, among)? => {
                let this = format!("{} = ?1", source.quoted_key());
                let mut statement = conn.prepare_cached(&source.rows_to(FUNCTION, Some(&this)))?;
                for id in among.ids() {
                    statement.query([id])?.next()?;
                }
                one_by_one = true;
            }
            _ => {
                let sql = source.rows_to(FUNCTION, None);
                source.with_statement(conn, &sql, |statement| {
                    statement.query([])?.next()?;
                    Ok(())
                })?;
            }
        }
        Ok(())
    };
    let outcome = run();
    let Some(scan) = scans(session).pop() else {
        bail!("the scan of {} has gone while it ran", source.table);
    };
    if let Some(error) = scan.error {
        return Err(error);
    }
    outcome?;
    stats.bytes_read += scan.rows * scan.dim as u64 * 4;
    if one_by_one {
        stats.by_position += scan.rows;
    }
    for (one, _) in &scan.scans {
        stats.rows += scan.rows;
        stats.reranked += one.scored();
        stats.left_out_by_floats += scan.rows - one.scored();
    }
    Ok(scan
        .scans
        .into_iter()
        .map(|(_, best)| best.into_sorted())
        .collect())
}

//! From the rows of the table to a published file: what CREATE and 'rebuild' do.

use std::time::Instant;

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::catalog::{self, Built};
use super::files;
use super::names::IndexName;
use super::options::IndexOptions;
use crate::forest::{self, BuildOptions, Vectors};
use crate::sql::source::{Read, Source};
use crate::sql::{Session, work};

/// The vectors of a column, in the order of their rowids.
pub(crate) struct Rows {
    pub(crate) dim: usize,
    pub(crate) ids: Vec<i64>,
    pub(crate) rows: Vec<f32>,
    pub(crate) read: Read,
}

impl Rows {
    /// Reads them all.
    pub(crate) fn gather(conn: &Connection, source: &Source) -> Result<Rows> {
        let n: usize = conn.query_row(
            &format!("SELECT count(*) FROM {}", source.quoted_table()),
            [],
            |row| row.get::<_, i64>(0),
        )? as usize;
        let (mut dim, mut ids, mut rows) = (0, Vec::new(), Vec::new());
        let sql = format!("{} ORDER BY 1", source.all_rows());
        let read = source.read(conn, &sql, 0, |id, row| {
            if ids.is_empty() {
                // Reserved exactly: growing by doubling would hold the vectors up to three times.
                dim = row.len();
                ids.try_reserve_exact(n)?;
                rows.try_reserve_exact(n.saturating_mul(dim))
                    .context("not enough memory for the vectors of the table")?;
            }
            ids.push(id);
            rows.extend_from_slice(row);
            Ok(())
        })?;
        Ok(Rows {
            dim,
            ids,
            rows,
            read,
        })
    }

    /// As the forest takes them.
    pub(crate) fn vectors(&self) -> Vectors<'_> {
        Vectors {
            dim: self.dim,
            ids: &self.ids,
            rows: &self.rows,
        }
    }
}

/// Builds a new generation from the table, publishes it, and forgets the changes it contains. The caller's transaction
/// (a statement is one) makes it all or nothing.
pub(crate) fn rebuild(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    source: &Source,
    options: &IndexOptions,
) -> Result<Built> {
    // Writing first takes the write lock: in WAL mode a reader that becomes a writer late may find that it can't.
    let generation: i64 = catalog::get(conn, index, "generation")?.unwrap_or(0) + 1;
    catalog::put(conn, index, "generation", generation)?;
    let old: Option<String> = catalog::get(conn, index, "current")?;

    let began = Instant::now();
    let rows = Rows::gather(conn, source)?;
    let mut built = Built {
        items: rows.read.vectors,
        nulls: rows.read.nulls,
        read_seconds: began.elapsed().as_secs_f64(),
        ..Built::default()
    };
    let current = if rows.ids.is_empty() {
        // No row, no dimension, no file: what comes is found in the table.
        None
    } else {
        let build_options = BuildOptions {
            metric: options.metric()?,
            trees: options.trees,
            seed: options.seed,
            threads: work::threads(options.threads),
        };
        let vectors = rows.vectors();
        let began = Instant::now();
        let image = work::run(conn, session.display(), |job| {
            forest::build(&vectors, &build_options, job)
        })?;
        built.build_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let (current, bytes) =
            files::publish(conn, session, index, generation, old.as_deref(), &image)?;
        built.write_seconds = began.elapsed().as_secs_f64();
        built.bytes = bytes;
        Some(current)
    };
    files::retire(conn, session, index, old.as_deref())?;
    catalog::put(conn, index, "current", current)?;
    catalog::put(conn, index, "built", serde_json::to_string(&built)?)?;
    conn.execute_batch(&format!("DELETE FROM {}", index.changes()))?;
    Ok(built)
}

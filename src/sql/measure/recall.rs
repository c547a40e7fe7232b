//! `annoy_recall`: how good and how fast an index is, and when it has paid for itself.

use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{Judged, judge, median, neighbours, sample, text};
use crate::forest::{Budget, DEFAULT_RECALL, Scratch, Stats};
use crate::job::Job;
use crate::sql::index::originals::TableRows;
use crate::sql::index::reader::Wanted;
use crate::sql::index::{self, Reader};
use crate::sql::vtab::function::{Function, Scope};
use crate::sql::{knn, work};

/// Sample of `annoy_recall` unless given.
const DEFAULT_SAMPLE: usize = 100;
/// `annoy_recall(index [, k [, sample [, options]]])`: one row that says how good and how fast an index is.
///
/// `recall` over a sample of random rows (100 unless given), `exact_qps` and `annoy_qps` searches per second of both
/// kinds, `build_seconds` what the index cost (reading, building, writing), `break_even` after how many queries that
/// was worth it; NULL when the approximate search is not faster. Options as in `knn_annoy`: `search_k` or `recall`.
pub(super) struct Recall;

impl Function for Recall {
    const NAME: &'static str = "annoy_recall";
    const COLUMNS: &'static [&'static str] = &[
        "recall REAL",
        "exact_qps REAL",
        "annoy_qps REAL",
        "build_seconds REAL",
        "break_even INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &["index_name", "k", "sample", "options"];
    const REQUIRED: usize = 1;
    const ROWS: i64 = 1;
    type Rows = std::iter::Once<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let name = text(&args[0], "annoy_recall: index_name")?;
        let k = neighbours(&args[1], "annoy_recall")?;
        let size = match args[2] {
            Value::Null => DEFAULT_SAMPLE,
            Value::Integer(n @ 1..) => n as usize,
            _ => bail!("annoy_recall: sample: expected a number of rows from 1 up"),
        };
        let budget = match knn::budget((&args[3]).into())? {
            // A small part would be searched exactly.
            Budget::Default => Budget::Recall(DEFAULT_RECALL),
            budget => budget,
        };

        let conn = &scope.conn;
        let index = index::find(conn, name)?.ok_or_else(|| index::no_index(conn, name))?;
        let built = index::built(conn, &index);
        let mut reader = Reader::open(conn, conn, &scope.session, index)?;
        if !reader.look(conn, conn)? {
            bail!("the schema changes while the index is judged");
        }
        let Some(dim) = reader.forest().map(|main| main.dim()) else {
            bail!(
                "annoy_recall: index {name} has no file to judge: {}",
                reader.fault().unwrap_or("its table has no vectors")
            );
        };
        let vectors = some_rows(conn, &reader, dim, size)?;
        let queries: Vec<&[f32]> = vectors.chunks_exact(dim).collect();
        if queries.is_empty() {
            bail!("annoy_recall: the table of index {name} has no vectors");
        }
        let wanted = Wanted {
            k,
            within: f64::INFINITY,
            among: None,
            scan_lists: false,
            threads: Some(1),
        };
        let reader = &reader;
        let measure = |job: &Job, rows: Option<&TableRows<'_>>| -> Result<(f64, Judged)> {
            let (mut scratch, mut stats) = (Scratch::default(), Stats::default());
            let mut truth = Vec::with_capacity(queries.len());
            job.phase("exact", queries.len() as u64);
            let mut times = Vec::with_capacity(queries.len());
            for &query in &queries {
                job.check()?;
                let began = Instant::now();
                truth.extend(TableRows::hear(rows, |rows| {
                    reader.exact_in_parts(&[query], &wanted, rows, &mut scratch, &mut stats)
                })?);
                times.push(began.elapsed().as_secs_f64());
                job.advance(1);
            }
            let exact_seconds = median(&mut times);
            let judged = judge(&queries, &truth, job, |query, scratch| {
                let found = TableRows::hear(rows, |rows| {
                    reader.approximate_in_parts(
                        &[query],
                        &wanted,
                        budget,
                        rows,
                        scratch,
                        &mut stats,
                    )
                })?;
                Ok(found.into_iter().flatten().collect())
            })?;
            Ok((exact_seconds, judged))
        };
        let (exact_seconds, judged) = match reader.originals(conn)? {
            // Rows are read on this thread, where an interrupt stops the statement that reads one.
            Some(rows) => measure(&Job::new(), Some(&rows))?,
            None => work::run(conn, scope.session.display(), |job| measure(job, None))?,
        };
        let build_seconds = built.read_seconds + built.build_seconds + built.write_seconds;
        let gain = exact_seconds - judged.seconds;
        let break_even = if gain > 0.0 {
            Value::Integer((build_seconds / gain).ceil() as i64)
        } else {
            Value::Null
        };
        Ok(std::iter::once(Ok(vec![
            judged.recall.into(),
            exact_seconds.recip().into(),
            judged.seconds.recip().into(),
            build_seconds.into(),
            break_even,
        ])))
    }
}

/// The vectors of `size` random rows of an index, one after the other.
fn some_rows(conn: &Connection, reader: &Reader, dim: usize, size: usize) -> Result<Vec<f32>> {
    let ids = reader.rowids();
    let mut one_row = conn.prepare(reader.one_row())?;
    let mut vectors = Vec::new();
    for i in sample(ids.len(), size, 1) {
        let source = reader.source();
        source.read_one(&mut one_row, ids[i], dim, |row| {
            vectors.extend_from_slice(row);
        })?;
    }
    Ok(vectors)
}

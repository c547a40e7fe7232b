//! `annoy_recall`: how good and how fast an index is, and when it has paid for itself.

use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::types::Value;
use rustc_hash::FxHashSet;

use super::{judge, median, neighbours, sample, text};
use crate::forest::Scratch;
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
        let budget = knn::budget((&args[3]).into())?;

        let conn = &scope.conn;
        let index = index::find(conn, name)?.ok_or_else(|| index::no_index(conn, name))?;
        let built = index::built(conn, &index)?;
        let reader = Reader::open(conn, &scope.session, index)?;
        let Some(forest) = reader.forest().cloned() else {
            bail!(
                "annoy_recall: index {name} has no file to judge: {}",
                reader.fault().unwrap_or("its table has no vectors")
            );
        };
        let judged = work::run(conn, scope.session.display(), |job| {
            let ids = forest.ids();
            let queries: Vec<&[f32]> = sample(ids.len(), size, 1)
                .into_iter()
                .filter_map(|i| forest.vector_of(ids[i]))
                .collect();
            let none = FxHashSet::default();
            let mut scratch = Scratch::default();
            let mut truth = Vec::with_capacity(queries.len());
            job.phase("exact", queries.len() as u64);
            let mut times = Vec::with_capacity(queries.len());
            for query in &queries {
                job.check()?;
                let began = Instant::now();
                truth.push(forest.exact(query, k, &none, &mut scratch));
                times.push(began.elapsed().as_secs_f64());
                job.advance(1);
            }
            let exact_seconds = median(&mut times);
            let judged = judge(&queries, &truth, job, |query, scratch| {
                forest.search(query, k, budget, &none, scratch)
            })?;
            Ok((exact_seconds, judged))
        })?;
        let (exact_seconds, judged) = judged;
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

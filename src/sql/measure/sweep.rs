//! `annoy_sweep`: numbers of trees, and what each costs and finds.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use rusqlite::types::Value;
use rustc_hash::FxHashSet;
use serde::Deserialize;

use super::{judge, neighbours, sample, text};
use crate::forest::{
    self, Budget, BuildOptions, Forest, Hit, MAX_TREES, TopK, VectorStore, Vectors,
};
use crate::job::Job;
use crate::sql::index::{METRICS, Rows};
use crate::sql::source::Source;
use crate::sql::values::options_error;
use crate::sql::vtab::function::{Function, Scope};
use crate::sql::work;
use crate::vector::{Metric, exact};

/// `annoy_sweep(table, column, trees [, k [, options]])`: builds a forest in memory for each number of trees.
///
/// `trees` is a list of numbers and ranges, `'1..5,10,20'` or `'[1,2,3]'`. Options: `metric` (cosine), `seed` (1),
/// `threads` (all), `sample` (query with that many random rows; without it with the row of the lowest rowid),
/// `search_k` (k * trees, Annoy's default). Rows: trees, seconds to build, bytes of the file, recall, and the median
/// time of a search in microseconds.
pub(super) struct Sweep;

impl Function for Sweep {
    const NAME: &'static str = "annoy_sweep";
    const COLUMNS: &'static [&'static str] = &[
        "trees INTEGER",
        "build_seconds REAL",
        "bytes INTEGER",
        "recall REAL",
        "query_us REAL",
    ];
    const ARGUMENTS: &'static [&'static str] =
        &["table_name", "column_name", "tree_list", "k", "options"];
    const REQUIRED: usize = 3;
    const ROWS: i64 = 30;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let table = text(&args[0], "annoy_sweep: table_name")?;
        let column = text(&args[1], "annoy_sweep: column_name")?;
        let trees = match &args[2] {
            Value::Integer(n) => tree_list(&n.to_string()),
            other => tree_list(text(other, "annoy_sweep: tree_list")?),
        }?;
        let k = neighbours(&args[3], "annoy_sweep")?;
        let options = SweepOptions::read(&args[4])?;

        let source = Source::find(&scope.conn, table, column)?;
        let rows = Rows::gather(&scope.conn, &source)?;
        ensure!(
            !rows.ids.is_empty(),
            "annoy_sweep: {table}.{column} has no vectors"
        );
        let vectors = rows.vectors();
        let found = work::run(&scope.conn, scope.session.display(), |job| {
            sweep(&vectors, &trees, k, &options, job)
        })?;
        Ok(found.into_iter().map(Ok).collect::<Vec<_>>().into_iter())
    }
}

/// The options of a sweep.
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a JSON object such as {\"metric\":\"l2\", \"sample\":100}"
)]
struct SweepOptions {
    metric: String,
    seed: u64,
    threads: usize,
    sample: Option<usize>,
    search_k: Option<usize>,
}

impl Default for SweepOptions {
    fn default() -> Self {
        SweepOptions {
            metric: Metric::Cosine.name().to_owned(),
            seed: 1,
            threads: 0,
            sample: None,
            search_k: None,
        }
    }
}

impl SweepOptions {
    fn read(value: &Value) -> Result<Self> {
        let options: Self = match value {
            Value::Null => Self::default(),
            other => serde_json::from_str(text(other, "annoy_sweep: options")?)
                .map_err(|e| options_error("annoy_sweep", &e))?,
        };
        ensure!(
            options.threads <= 1024,
            "annoy_sweep: option threads: expected 0 (all there are) to 1024, got {}",
            options.threads
        );
        ensure!(
            options.sample != Some(0),
            "annoy_sweep: option sample: expected a number of rows from 1 up, got 0"
        );
        Ok(options)
    }
}

fn sweep(
    vectors: &Vectors<'_>,
    trees: &[u32],
    k: usize,
    options: &SweepOptions,
    job: &Job,
) -> Result<Vec<Vec<Value>>> {
    let metric = Metric::parse(&options.metric, &METRICS)?;
    let positions = match options.sample {
        None => vec![0],
        Some(n) => sample(vectors.ids.len(), n, options.seed),
    };
    let queries: Vec<&[f32]> = positions
        .iter()
        .map(|&i| &vectors.rows[i * vectors.dim..][..vectors.dim])
        .collect();
    let truth = truth(vectors, metric, &queries, k, job)?;
    let mut rows = Vec::new();
    for &trees in trees {
        let build = BuildOptions {
            metric,
            trees,
            seed: options.seed,
            threads: work::threads(options.threads),
            store: VectorStore::F32,
        };
        let began = Instant::now();
        let image = forest::build(vectors, &build, job)?;
        let build_seconds = began.elapsed().as_secs_f64();
        let bytes = image.len();
        let forest = Forest::open(image.to_bytes())?;
        let search_k = options
            .search_k
            .unwrap_or_else(|| k.saturating_mul(trees as usize));
        let judged = judge(&queries, &truth, job, |query, scratch| {
            Ok(forest.search(
                query,
                k,
                Budget::SearchK(search_k),
                &FxHashSet::default(),
                scratch,
            ))
        })?;
        rows.push(vec![
            trees.into(),
            build_seconds.into(),
            (bytes as i64).into(),
            judged.recall.into(),
            (judged.seconds * 1e6).into(),
        ]);
    }
    Ok(rows)
}

/// The `k` nearest rows of each query, by definition.
fn truth(
    vectors: &Vectors<'_>,
    metric: Metric,
    queries: &[&[f32]],
    k: usize,
    job: &Job,
) -> Result<Vec<Vec<Hit>>> {
    job.phase("exact", queries.len() as u64);
    queries
        .iter()
        .map(|query| {
            let mut best = TopK::new(k);
            let rows = vectors.rows.chunks_exact(vectors.dim);
            let rows = vectors.ids.iter().copied().zip(rows);
            for (i, (rowid, row)) in rows.enumerate() {
                if i % 4096 == 0 {
                    job.check()?;
                }
                let distance = exact::distance(metric, query, row);
                best.push(Hit { rowid, distance });
            }
            job.advance(1);
            Ok(best.into_sorted())
        })
        .collect()
}

/// Numbers of trees: `1..5,10` or `[1, 2, 3]`.
fn tree_list(list: &str) -> Result<Vec<u32>> {
    let wrong = || {
        anyhow!(
            "annoy_sweep: tree_list: expected numbers from 1 to {MAX_TREES} and ranges, such as '1..5,10,20', got '{list}'"
        )
    };
    let number = |text: &str| match text.trim().parse::<u32>() {
        Ok(n) if (1..=MAX_TREES).contains(&n) => Ok(n),
        _ => Err(wrong()),
    };
    let bare = list.trim();
    let bare = bare
        .strip_prefix('[')
        .and_then(|b| b.strip_suffix(']'))
        .unwrap_or(bare);
    let mut trees = Vec::new();
    for part in bare.split(',') {
        match part.split_once("..") {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong());
                }
                trees.extend(first..=last);
            }
            None => trees.push(number(part)?),
        }
    }
    Ok(trees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_listed_by_numbers_and_ranges() {
        assert_eq!(tree_list("1..4, 10").unwrap(), [1, 2, 3, 4, 10]);
        assert_eq!(tree_list(" [3, 1]").unwrap(), [3, 1]);
        for wrong in ["", "0", "-5", "1..", "4..1", "1;2", "10001", "a"] {
            let message = tree_list(wrong).unwrap_err().to_string();
            assert!(message.contains(&format!("got '{wrong}'")), "{message}");
        }
    }
}

//! What a forest costs and what it finds: `annoy_sweep` tries numbers of trees, `annoy_recall` judges an index.
//!
//! ```sql
//! SELECT * FROM annoy_sweep('words', 'vector', '1..29', 100);
//! SELECT * FROM annoy_recall('words_index', 10, 1000);
//! ```
//!
//! Both measure the trees themselves, on one thread, without SQL around them: never the exact answer that
//! `knn_annoy` may give instead, nor rows that have changed since the build. The truth is a plain pass over all rows.
//! Queries are vectors of the table, so each of them is its own nearest neighbour, and counts. Recall is the part of
//! the true k nearest that was found; a row as near as the k-th counts, since ties have no right order.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::types::Value;
use rustc_hash::FxHashSet;
use serde::Deserialize;

use super::index::{self, METRICS, Reader, Rows};
use super::source::Source;
use super::vtab::function::{Function, Scope};
use super::{knn, work};
use crate::forest::{self, Budget, BuildOptions, Forest, Hit, MAX_TREES, Scratch, TopK, Vectors};
use crate::job::Job;
use crate::vector::{Metric, exact};

/// Neighbours unless given.
const DEFAULT_K: i64 = 100;
/// Sample of `annoy_recall` unless given.
const DEFAULT_SAMPLE: usize = 100;
/// Searches that a time is the median of, at least.
const TIMINGS: usize = 64;

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
                .map_err(|e| anyhow!("annoy_sweep options: {e}"))?,
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
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
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
            threads,
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
            forest.search(
                query,
                k,
                Budget::SearchK(search_k),
                &FxHashSet::default(),
                scratch,
            )
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
        let index = index::find(conn, name)?.with_context(|| format!("no such index: {name}"))?;
        let built = index::built(conn, &index)?;
        let mut reader = Reader::open(conn, &scope.session, index)?;
        reader.look(conn)?;
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

/// How good and how fast a search is.
struct Judged {
    /// Mean over all queries.
    recall: f64,
    /// Median of one search.
    seconds: f64,
}

fn judge(
    queries: &[&[f32]],
    truth: &[Vec<Hit>],
    job: &Job,
    mut search: impl FnMut(&[f32], &mut Scratch) -> Vec<Hit>,
) -> Result<Judged> {
    let rounds = TIMINGS.div_ceil(queries.len()).max(2);
    job.phase("search", (rounds * queries.len()) as u64);
    let mut scratch = Scratch::default();
    let mut times = Vec::new();
    let mut recall = 0.0;
    for round in 0..rounds {
        for (query, truth) in queries.iter().zip(truth) {
            job.check()?;
            let began = Instant::now();
            let hits = search(query, &mut scratch);
            let took = began.elapsed().as_secs_f64();
            // The first round fills caches.
            if round == 0 {
                recall += recall_of(&hits, truth);
            } else {
                times.push(took);
            }
            job.advance(1);
        }
    }
    Ok(Judged {
        recall: recall / queries.len() as f64,
        seconds: median(&mut times),
    })
}

/// The part of the true neighbours that is among the hits.
fn recall_of(hits: &[Hit], truth: &[Hit]) -> f64 {
    let Some(last) = truth.last() else {
        return 1.0;
    };
    let found = hits.iter().filter(|h| h.distance <= last.distance).count();
    found.min(truth.len()) as f64 / truth.len() as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// `size` different numbers below `n`, or all of them, in random order.
fn sample(n: usize, size: usize, seed: u64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    rand::seq::index::sample(&mut rng, n, size.min(n)).into_vec()
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str> {
    match value {
        Value::Text(text) => Ok(text),
        other => bail!("{what}: expected a text, got {}", other.data_type()),
    }
}

fn neighbours(value: &Value, function: &str) -> Result<usize> {
    match *value {
        Value::Null => Ok(DEFAULT_K as usize),
        Value::Integer(k @ 1..) => Ok(usize::try_from(k)?),
        _ => bail!("{function}: k: expected an integer from 1 up"),
    }
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

    #[test]
    fn recall_counts_ties_as_found_and_never_exceeds_one() {
        let hit = |rowid, distance| Hit { rowid, distance };
        let truth = [hit(1, 0.0), hit(2, 0.5)];
        assert_eq!(recall_of(&[hit(1, 0.0), hit(7, 0.5)], &truth), 1.0);
        assert_eq!(recall_of(&[hit(7, 0.5), hit(8, 0.6)], &truth), 0.5);
        assert_eq!(
            recall_of(&[hit(1, 0.0), hit(2, 0.5), hit(7, 0.5)], &truth),
            1.0
        );
        assert_eq!(recall_of(&[], &[]), 1.0);
    }
}

//! What a forest costs and what it finds: `annoy_sweep` tries numbers of trees, `annoy_recall` judges an index.
//!
//! ```sql
//! SELECT * FROM annoy_sweep('words', 'vector', '1..29', 100);
//! SELECT * FROM annoy_recall('words_index', 10, 1000);
//! ```
//!
//! Both measure the trees themselves, on one thread, without SQL around them: never the exact answer that
//! `knn_annoy` may give instead. An index is judged as it is now, with all its parts and the rows that have changed since.
//! The truth of a sweep is a plain pass over all rows, that of an index its own exact search. Queries are vectors of the
//! table, so each of them is its own nearest neighbour, and counts. Recall is the part of the true k nearest that was
//! found; a row as near as the k-th counts, since ties have no right order.

mod recall;
mod sweep;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::Session;
use super::vtab::function;
use crate::forest::{Hit, Scratch};
use crate::job::Job;

/// Neighbours unless given.
const DEFAULT_K: i64 = 100;
/// Searches that a time is the median of, at least.
const TIMINGS: usize = 64;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    function::register::<sweep::Sweep>(conn, session)?;
    function::register::<recall::Recall>(conn, session)
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
    mut search: impl FnMut(&[f32], &mut Scratch) -> Result<Vec<Hit>>,
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
            let hits = search(query, &mut scratch)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! Filters as people write them, over every metric and element type, against a plain loop: each answer has exactly the rows
//! it must have, in order, and an exact one is the loop's. A search of the index finds at least .95 of it.

mod common;

use common::{ids, memory, rows};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use rusqlite::types::Value;

const ROWS: usize = 4_000;
const DIM: usize = 16;

/// Declaration of the column, the function that makes a vector of JSON, the metric, and the largest component.
const KINDS: [(&str, &str, &str, f64); 7] = [
    ("v BLOB", "vec_f32", "cosine", 4.0),
    ("v BLOB", "vec_f32", "l2", 4.0),
    ("v BLOB", "vec_f32", "dot", 4.0),
    ("v float16[16]", "vec_f16", "l2", 4.0),
    ("v int8[16]", "vec_int8", "cosine", 120.0),
    ("v int8[16]", "vec_int8", "dot", 120.0),
    ("v bit[16]", "vec_bit", "hamming", 1.0),
];

/// A row: what filters ask for, and its components, which are exact in its element type.
struct Row {
    price: i64,
    colour: Option<&'static str>,
    /// Its place in the order of distances from where all queries are.
    rank: i64,
    v: Vec<f64>,
}

fn components(rng: &mut StdRng, centre: u64, kind: &(&str, &str, &str, f64)) -> Vec<f64> {
    let mut at = StdRng::seed_from_u64(centre);
    (0..DIM)
        .map(|_| {
            let x = at.random_range(-0.6..0.6) + rng.random_range(-0.4..0.4f64);
            match kind.1 {
                "vec_bit" => f64::from(u8::from(x > 0.0)),
                "vec_int8" => (x * kind.3).round(),
                // Few enough digits for float16.
                _ => (x * kind.3 * 64.0).round() / 64.0,
            }
        })
        .collect()
}

fn json(v: &[f64]) -> String {
    // No -0, which is no integer.
    let numbers: Vec<_> = v.iter().map(|x| (x + 0.0).to_string()).collect();
    format!("[{}]", numbers.join(","))
}

fn distance(metric: &str, a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    match metric {
        "cosine" => {
            let norms = (dot(a, a) * dot(b, b)).sqrt();
            if norms == 0.0 {
                1.0
            } else {
                1.0 - dot(a, b) / norms
            }
        }
        "l2" => a
            .iter()
            .zip(b)
            .map(|(x, y)| (x - y).powi(2))
            .sum::<f64>()
            .sqrt(),
        "dot" => -dot(a, b),
        _ => a.iter().zip(b).filter(|(x, y)| x != y).count() as f64,
    }
}

/// A condition on the columns of `t`, in SQL and in Rust; NULL in SQL is false.
type Condition = (String, Box<dyn Fn(i64, &Row) -> bool>);

fn condition(rng: &mut StdRng, depth: usize) -> Condition {
    let n = ROWS as i64;
    let part = [0.5, 0.1, 0.01, 0.002][rng.random_range(0..4)];
    let some = (n as f64 * part) as i64;
    match rng.random_range(0..if depth > 0 { 11 } else { 8 }) {
        0 | 1 => (
            format!("t.price < {some}"),
            Box::new(move |_, r| r.price < some),
        ),
        2 => (
            format!("t.rank < {some}"),
            Box::new(move |_, r| r.rank < some),
        ),
        3 => (
            format!("t.rank >= {n} - {some}"),
            Box::new(move |_, r| r.rank >= n - some),
        ),
        4 => (
            "t.colour IS NULL".into(),
            Box::new(|_, r| r.colour.is_none()),
        ),
        5 => (
            "t.colour = 'red'".into(),
            Box::new(|_, r| r.colour == Some("red")),
        ),
        6 => (
            "t.price % 97 + length(t.colour) > 90".into(),
            Box::new(|_, r| r.colour.is_some_and(|c| r.price % 97 + c.len() as i64 > 90)),
        ),
        7 => (
            format!("t.id IN (SELECT o.id FROM t o WHERE o.price BETWEEN 7 AND {some})"),
            Box::new(move |_, r| (7..=some).contains(&r.price)),
        ),
        8 => {
            let ((a, x), (b, y)) = (condition(rng, depth - 1), condition(rng, depth - 1));
            (
                format!("({a} OR {b})"),
                Box::new(move |id, r| x(id, r) || y(id, r)),
            )
        }
        9 => {
            let ((a, x), (b, y)) = (condition(rng, depth - 1), condition(rng, depth - 1));
            (
                format!("({a} AND {b})"),
                Box::new(move |id, r| x(id, r) && y(id, r)),
            )
        }
        _ => {
            let (a, x) = condition(rng, depth - 1);
            (
                format!("NOT ifnull({a}, 0)"),
                Box::new(move |id, r| !x(id, r)),
            )
        }
    }
}

struct Case {
    conn: Connection,
    rows: Vec<Row>,
    metric: &'static str,
    /// Recall: found of wanted.
    found: usize,
    wanted: usize,
}

impl Case {
    fn new(rng: &mut StdRng, kind: &(&'static str, &'static str, &'static str, f64)) -> Case {
        let conn = memory();
        conn.execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, price INTEGER, colour TEXT, rank INTEGER, {});
             CREATE TABLE bare(id INTEGER PRIMARY KEY, price INTEGER, colour TEXT, rank INTEGER, {}); BEGIN",
            kind.0, kind.0
        ))
        .unwrap();
        let pivot = components(rng, 3, kind);
        let mut made: Vec<Row> = (0..ROWS)
            .map(|_| {
                let centre = rng.random_range(0..9);
                Row {
                    price: rng.random_range(0..ROWS as i64),
                    colour: [None, Some("red"), Some("blue")][rng.random_range(0..3)],
                    rank: 0,
                    v: components(rng, centre, kind),
                }
            })
            .collect();
        made.sort_by(|a, b| {
            distance(kind.2, &pivot, &a.v).total_cmp(&distance(kind.2, &pivot, &b.v))
        });
        made.iter_mut()
            .zip(0..)
            .for_each(|(row, rank)| row.rank = rank);
        // In an order that says nothing; row i has rowid i + 1.
        for i in (1..made.len()).rev() {
            made.swap(i, rng.random_range(0..=i));
        }
        {
            let sql = format!(
                "INSERT INTO t(price, colour, rank, v) VALUES(?1, ?2, ?3, {}(?4))",
                kind.1
            );
            let mut insert = conn.prepare(&sql).unwrap();
            for row in &made {
                insert
                    .execute((row.price, row.colour, row.rank, json(&row.v)))
                    .unwrap();
            }
        }
        conn.execute_batch(&format!(
            "COMMIT; CREATE INDEX by_price ON t(price); CREATE INDEX by_rank ON t(rank); INSERT INTO bare SELECT * FROM t;
             CREATE VIRTUAL TABLE ix USING annoy(t, v, metric={});",
            kind.2
        ))
        .unwrap();
        Case {
            conn,
            rows: made,
            metric: kind.2,
            found: 0,
            wanted: 0,
        }
    }

    /// `sql` gives (rowid, distance), `exact` says whether it must be the loop's answer, `in_order` whether it is nearest first.
    fn check(
        &mut self,
        sql: &str,
        query: &[f64],
        truth: &[(f64, i64)],
        exact: bool,
        in_order: bool,
        passes: &dyn Fn(i64) -> bool,
    ) {
        let got: Vec<(i64, f64)> = rows(&self.conn, sql)
            .into_iter()
            .map(|row| match row[..] {
                [Value::Integer(id), Value::Real(distance)] => (id, distance),
                _ => panic!("{sql}: {row:?}"),
            })
            .collect();
        assert_eq!(got.len(), truth.len(), "{sql}");
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
        let mut seen = std::collections::HashSet::new();
        for &(id, said) in &got {
            assert!(passes(id), "{sql}: row {id} does not satisfy it");
            assert!(seen.insert(id), "{sql}: row {id} comes twice");
            let true_one = distance(self.metric, query, &self.rows[id as usize - 1].v);
            assert!(close(said, true_one), "{sql}: row {id}: {said}, {true_one}");
        }
        if in_order {
            assert!(got.is_sorted_by(|a, b| (a.1, a.0) <= (b.1, b.0)), "{sql}");
        }
        if exact {
            for (got, truth) in got.iter().zip(truth) {
                assert!(close(got.1, truth.0), "{sql}: {got:?}, {truth:?}");
            }
        } else if let Some(last) = truth.last() {
            self.wanted += truth.len();
            self.found += got.iter().filter(|got| got.1 <= last.0 + 1e-9).count();
        }
    }
}

#[test]
fn every_filter_is_met_under_every_metric_and_type_however_it_is_written() {
    let seed: u64 = std::env::var("QUERIES_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("QUERIES_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for kind in &KINDS {
        let mut case = Case::new(&mut rng, kind);
        for _ in 0..12 {
            let (sql, passes) = condition(&mut rng, 2);
            let query = components(&mut rng, 3, kind);
            let k = [1, 7, 50][rng.random_range(0..3)];
            let allowed = ids(
                &case.conn,
                &format!("SELECT id FROM t WHERE {sql} ORDER BY id"),
            );
            let ours: Vec<i64> = (1..=ROWS as i64)
                .filter(|&id| passes(id, &case.rows[id as usize - 1]))
                .collect();
            assert_eq!(allowed, ours, "{sql}");
            let mut all: Vec<(f64, i64)> = allowed
                .iter()
                .map(|&id| {
                    (
                        distance(case.metric, &query, &case.rows[id as usize - 1].v),
                        id,
                    )
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let first = &all[..all.len().min(k)];
            let next = &all[all.len().min(5)..all.len().min(5 + k)];
            let q = format!("{}('{}')", kind.1, json(&query));
            let options = format!("'{{\"metric\":\"{}\"}}'", kind.2);
            let within = |id: i64| allowed.binary_search(&id).is_ok();
            // (What to search, further arguments, whether it is exact.)
            for (search, options, exact) in [
                (format!("knn_exact('t', 'v', {q}"), options.clone(), true),
                (format!("knn_exact('bare', 'v', {q}"), options, true),
                (format!("knn_annoy('ix', {q}"), "NULL".to_owned(), false),
                (
                    format!("knn_annoy('ix', {q}"),
                    "'{\"recall\":0.95}'".to_owned(),
                    false,
                ),
                (
                    format!("knn_annoy('ix', {q}"),
                    "'{\"recall\":0.95, \"filter\":\"scan\"}'".to_owned(),
                    false,
                ),
            ] {
                let set = format!("rowid IN (SELECT t.id FROM t WHERE {sql})");
                let columns = "SELECT n.rowid, n.distance FROM";
                let join = "JOIN t ON t.id = n.rowid";
                for (form, truth, in_order) in [
                    (
                        format!("{columns} {search}, {k}, {options}) n WHERE n.{set}"),
                        first,
                        true,
                    ),
                    (
                        format!(
                            "{columns} {search}, NULL, {options}) n WHERE n.{set} ORDER BY n.distance LIMIT {k} OFFSET 5"
                        ),
                        next,
                        true,
                    ),
                    (
                        format!(
                            "{columns} {search}, NULL, {options}) n {join} WHERE {sql} LIMIT {k}"
                        ),
                        first,
                        exact,
                    ),
                    (
                        format!(
                            "{columns} {search}, NULL, {options}) n {join} WHERE {sql} ORDER BY n.distance LIMIT {k} OFFSET 5"
                        ),
                        next,
                        true,
                    ),
                    (
                        format!(
                            "{columns} {search}, NULL, {options}) n WHERE EXISTS (SELECT 1 FROM t WHERE t.id = n.rowid AND {sql}) LIMIT {k}"
                        ),
                        first,
                        exact,
                    ),
                    (
                        format!(
                            "{columns} {search}, NULL, {options}) n WHERE n.{set} OR n.rowid IN (SELECT -t.id FROM t) LIMIT {k}"
                        ),
                        first,
                        exact,
                    ),
                ] {
                    case.check(&form, &query, truth, exact, in_order, &within);
                }
            }
            let form = format!(
                "SELECT rowid, distance FROM ix WHERE v MATCH {q} AND k = {k} AND rowid IN (SELECT t.id FROM t WHERE {sql})"
            );
            case.check(&form, &query, first, false, true, &within);
        }
        assert!(
            case.found as f64 >= 0.95 * case.wanted as f64,
            "{kind:?}: {} of {}",
            case.found,
            case.wanted
        );
    }
}

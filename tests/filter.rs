//! Searches confined to a set of rows, bounds from both sides, and what LIMIT tells: the right rows, and exactly as many
//! as qualify.

mod common;

use std::collections::HashSet;

use common::{ids, one, rows, stat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use rusqlite::types::Value;

const ROWS: usize = 20_000;
const DIM: usize = 12;

/// Clustered points, a third of them with a pending change; `t` has no index, `sparse` rowids far apart.
fn points(seed: u64) -> Connection {
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, kind INTEGER, v BLOB);
         CREATE TABLE t(id INTEGER PRIMARY KEY, kind INTEGER, v BLOB);",
    )
    .unwrap();
    {
        let mut insert = conn.prepare("INSERT INTO p VALUES(?1, ?2, ?3)").unwrap();
        let tx = conn.unchecked_transaction().unwrap();
        for i in 0..ROWS as i64 {
            let kind = rng.random_range(0..40i64);
            let v: Vec<f32> = (0..DIM)
                .map(|d| if d as i64 == kind % 12 { 2.0 } else { 0.0 } + rng.random_range(-1.0..1.0f32))
                .collect();
            let id = if i % 2 == 0 { i } else { i * 1_000_003 };
            insert
                .execute((id, kind, bytemuck::cast_slice::<f32, u8>(&v)))
                .unwrap();
        }
        tx.commit().unwrap();
    }
    conn.execute_batch(
        "INSERT INTO t SELECT * FROM p WHERE rowid % 5 = 0;
         CREATE INDEX by_kind ON p(kind);
         CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2);
         DELETE FROM p WHERE id % 1001 = 0;
         UPDATE p SET v = (SELECT v FROM p q WHERE q.id = p.id + 2) WHERE id % 512 = 0;
         CREATE TABLE q(v BLOB)",
    )
    .unwrap();
    conn
}

#[test]
fn a_set_of_rows_gives_its_nearest_and_exactly_k_of_them_whatever_the_path() {
    let conn = points(7);
    let mut rng = StdRng::seed_from_u64(8);
    // One kind is near the query, another far from it, and what depends on no component.
    let sets = [
        "SELECT id FROM p WHERE kind = 3",
        "SELECT id FROM p WHERE kind = 4 LIMIT 50",
        "SELECT id FROM p WHERE kind IN (4, 16, 28) ",
        "SELECT id FROM p WHERE id % 2 = 0",
        "SELECT id FROM p WHERE id % 100 = 0",
        "SELECT id FROM p LIMIT 3",
        "SELECT id FROM p WHERE 0",
        "SELECT id + 1 FROM p",
        "SELECT id FROM p UNION ALL SELECT id FROM p",
        "SELECT '17' UNION SELECT 18.0 UNION SELECT 19.5 UNION SELECT NULL UNION SELECT 1e300",
    ];
    for set in sets {
        let (mut found, mut wanted) = (0, 0);
        for _ in 0..4 {
            let near = rng.random_range(0..2) * 3;
            let q: Vec<f32> = (0..DIM)
                .map(|d| if d == near { 2.0 } else { 0.0 } + rng.random_range(-1.0..1.0f32))
                .collect();
            conn.execute("DELETE FROM q", []).unwrap();
            conn.execute(
                "INSERT INTO q VALUES(?1)",
                [bytemuck::cast_slice::<f32, u8>(&q)],
            )
            .unwrap();
            for k in [1, 10, 400] {
                for (table, l2) in [
                    ("p", "'{\"metric\":\"l2\"}'"),
                    ("t", "'{\"metric\":\"l2\"}'"),
                ] {
                    let truth = format!(
                        "SELECT id FROM {table} WHERE id IN ({set}) \
                         ORDER BY vec_distance_l2(v, (SELECT v FROM q)), id LIMIT {k}"
                    );
                    let truth = ids(&conn, &truth);
                    let got = format!(
                        "SELECT rowid FROM knn_exact('{table}', 'v', (SELECT v FROM q), {k}, {l2}) WHERE rowid IN ({set})"
                    );
                    assert_eq!(ids(&conn, &got), truth, "{got}");
                    let limit = format!(
                        "SELECT rowid FROM knn_exact('{table}', 'v', (SELECT v FROM q)) WHERE options = {l2} \
                         AND rowid IN ({set}) ORDER BY distance LIMIT {k}"
                    );
                    assert_eq!(ids(&conn, &limit), truth, "{limit}");
                    if table == "t" {
                        continue;
                    }
                    for got in [
                        format!(
                            "SELECT rowid FROM knn_annoy('ix', (SELECT v FROM q), {k}) WHERE rowid IN ({set})"
                        ),
                        format!(
                            "SELECT rowid FROM ix WHERE v MATCH (SELECT v FROM q) AND k = {k} AND rowid IN ({set})"
                        ),
                        format!(
                            "SELECT rowid FROM knn_annoy('ix', (SELECT v FROM q), {k}, 500) WHERE rowid IN ({set})"
                        ),
                        format!(
                            "SELECT rowid FROM knn_annoy('ix', (SELECT v FROM q)) WHERE rowid IN ({set}) LIMIT {k}"
                        ),
                    ] {
                        let some = ids(&conn, &got);
                        assert_eq!(some.len(), truth.len(), "{got}");
                        let some: HashSet<_> = some.into_iter().collect();
                        if !got.contains("500") {
                            wanted += truth.len();
                            found += truth.iter().filter(|id| some.contains(id)).count();
                        }
                    }
                }
            }
        }
        assert!(
            found as f64 >= 0.95 * wanted as f64,
            "{set}: {found} of {wanted}"
        );
    }
}

#[test]
fn several_conditions_on_rowid_meet_and_a_single_value_is_a_set_of_one() {
    let conn = points(9);
    let far: i64 = one(
        &conn,
        "SELECT id FROM p ORDER BY vec_distance_l2(v, zeroblob(48)) DESC LIMIT 1",
    );
    for (sql, wanted) in [
        (
            "rowid IN (2, 4, 6, 8) AND rowid IN (8, 6, 100)".to_owned(),
            2,
        ),
        ("rowid IN (2, 4) AND rowid IN (6)".to_owned(), 0),
        (format!("rowid IN ({far})"), 1),
        (format!("rowid = {far}"), 1),
        ("rowid IN (2, 4, 6, 8) AND distance > 1000".to_owned(), 0),
        ("rowid IN (2, 4, 6, 8) AND rowid > 5".to_owned(), 2),
        ("rowid NOT IN (SELECT id FROM p WHERE id > 5)".to_owned(), 2),
        ("rowid IN (2, 4) OR rowid IN (6)".to_owned(), 3),
        (
            "rowid IN (SELECT value FROM json_each('[2, 4, \"x\"]'))".to_owned(),
            2,
        ),
    ] {
        for from in [
            "knn_annoy('ix', zeroblob(48))",
            "knn_exact('p', 'v', zeroblob(48))",
            "p",
        ] {
            if from == "p" && sql.contains("distance") {
                continue;
            }
            let sql = format!("SELECT rowid FROM {from} WHERE {sql}");
            assert_eq!(ids(&conn, &sql).len(), wanted, "{sql}");
        }
    }
    // With k the condition comes first, as long as SQLite says that it is there.
    for k in 1..3 {
        let sql =
            format!("SELECT rowid FROM knn_annoy('ix', zeroblob(48), {k}) WHERE rowid IN ({far})");
        assert_eq!(ids(&conn, &sql), [far]);
    }
}

#[test]
fn numbers_of_any_kind_mean_what_they_mean_to_sqlite() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO t VALUES(1, vec_f32('[1, 0]')), (7, vec_f32('[0, 1]')), (9223372036854774784, vec_f32('[1, 1]'));
         CREATE VIRTUAL TABLE ix USING annoy(t, v);
         CREATE TABLE said(t TEXT, x, b BLOB);
         INSERT INTO said VALUES('7', 7.0, x'37'), (' 1.0 ', '7', 1.5), ('seven', '7x', NULL), ('1e0', 1e300, '0x7')",
    )
    .unwrap();
    let searches = [
        ("knn_annoy('ix', '[1, 0]') n", ""),
        ("knn_exact('t', 'v', '[1, 0]') n", ""),
        ("ix n", "n.v MATCH '[1, 0]' AND "),
        ("ix n", ""),
    ];
    let conditions = [
        "n.rowid = '7'",
        "' 7 ' = n.rowid",
        "n.rowid = 7.0",
        "n.rowid = '7.0'",
        "n.rowid = '7x'",
        "n.rowid = 7.5",
        "n.rowid = x'37'",
        "n.rowid = 9223372036854774784.0",
        "n.rowid = 9223372036854775808.0",
        "n.rowid IN ('7', 1.0, 'x', NULL)",
        "n.rowid IN (SELECT t FROM said)",
        "n.rowid IN (SELECT x FROM said)",
        "n.rowid IN (SELECT b FROM said)",
    ];
    for (search, matches) in searches {
        for condition in conditions {
            let of = |table: &str, matches: &str| {
                common::ids(
                    &conn,
                    &format!("SELECT n.rowid FROM {table} WHERE {matches}{condition} ORDER BY 1"),
                )
            };
            assert_eq!(of(search, matches), of("t n", ""), "{search}, {condition}");
        }
        // The search is the inner loop.
        for column in ["t", "x", "b"] {
            let of = |table: &str, matches: &str| {
                let join = format!(
                    "SELECT n.rowid FROM said CROSS JOIN {table} ON {matches}n.rowid = said.{column} ORDER BY 1"
                );
                common::ids(&conn, &join)
            };
            assert_eq!(of(search, matches), of("t n", ""), "{search}, {column}");
        }
    }
    // JavaScript binds every number as a REAL.
    for sql in [
        "SELECT rowid FROM knn_annoy('ix', '[1, 0]', ?1)",
        "SELECT rowid FROM knn_annoy('ix', '[1, 0]', 2, ?1)",
        "SELECT rowid FROM knn_exact('t', 'v', '[1, 0]', ?1)",
        "SELECT rowid FROM ix WHERE v MATCH '[1, 0]' AND k = ?1",
        "SELECT rowid FROM knn_annoy_batch('ix', '[[1, 0]]', ?1)",
        "SELECT id FROM mmr('ix', '[1, 0]', ?1)",
        "SELECT id FROM vec_cluster('t', 'v', ?1) LIMIT 2",
        "SELECT rows FROM annoy_time('SELECT 1 UNION SELECT 2', ?1), (SELECT 1 UNION SELECT 2)",
    ] {
        let count = |n: &dyn rusqlite::ToSql| {
            let mut statement = conn.prepare(sql).unwrap();
            let mut rows = statement
                .query([n])
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            let mut count = 0;
            while rows
                .next()
                .unwrap_or_else(|e| panic!("{sql}: {e}"))
                .is_some()
            {
                count += 1;
            }
            count
        };
        assert_eq!((count(&2i64), count(&2.0)), (2, 2), "{sql}");
    }
    let slice: String = common::one(
        &conn,
        "SELECT vec_to_json(vec_slice('[1, 2, 3]', 1.0, 3.0))",
    );
    assert_eq!(slice, "[2.000000,3.000000]");
}

#[test]
fn in_a_join_k_rows_are_the_k_nearest_and_an_in_of_another_table_is_met_first() {
    let conn = points(10);
    let nearest = ids(
        &conn,
        "SELECT rowid FROM knn_annoy('ix', zeroblob(48), 5, '{\"recall\":1}')",
    );
    for sql in [
        "SELECT p.id FROM p JOIN knn_annoy('ix', zeroblob(48), 5, '{\"recall\":1}') n ON p.id = n.rowid ORDER BY n.distance",
        "SELECT p.id FROM knn_annoy('ix', zeroblob(48), 5, '{\"recall\":1}') n LEFT JOIN p ON p.id = n.rowid ORDER BY n.distance",
        "SELECT n.rowid FROM p CROSS JOIN knn_annoy('ix', zeroblob(48), 5, '{\"recall\":1}') n WHERE p.id = n.rowid \
         AND p.id IN (SELECT rowid FROM knn_annoy('ix', zeroblob(48), 5, '{\"recall\":1}')) ORDER BY n.distance",
    ] {
        assert_eq!(ids(&conn, sql), nearest, "{sql}");
    }
    conn.execute_batch(
        "CREATE TABLE want(name TEXT, kind INTEGER); INSERT INTO want VALUES('a', 3), ('b', 4)",
    )
    .unwrap();
    let each = rows(
        &conn,
        "SELECT w.name, count(*), min(p.kind = w.kind) FROM want w, knn_annoy('ix', zeroblob(48), 7) n JOIN p ON p.id = n.rowid
          WHERE n.rowid IN (SELECT id FROM p WHERE kind = w.kind) GROUP BY 1",
    );
    let row = |name: &str| {
        vec![
            Value::Text(name.to_owned()),
            Value::Integer(7),
            Value::Integer(1),
        ]
    };
    assert_eq!(each, [row("a"), row("b")]);
}

#[test]
fn bounds_from_both_sides_limit_and_offset_page_through_the_rows() {
    let conn = points(11);
    let all = ids(
        &conn,
        "SELECT id FROM p WHERE v IS NOT NULL ORDER BY vec_distance_l2(v, zeroblob(48)), id",
    );
    let at = |i: usize| -> f64 {
        one(
            &conn,
            &format!(
                "SELECT distance FROM knn_exact('p', 'v', zeroblob(48), 20000, '{{\"metric\":\"l2\"}}') LIMIT 1 OFFSET {i}"
            ),
        )
    };
    let (low, high) = (at(10), at(30));
    let from = "knn_exact('p', 'v', zeroblob(48), NULL, '{\"metric\":\"l2\"}')";
    for (condition, wanted) in [
        (format!("distance < {high:?} LIMIT 5"), &all[..5]),
        (
            format!("distance < {high:?} LIMIT 5 OFFSET 27"),
            &all[27..30],
        ),
        (
            format!("distance <= {high:?} ORDER BY distance"),
            &all[..31],
        ),
        (
            format!("distance BETWEEN {low:?} AND {high:?}"),
            &all[10..31],
        ),
        (
            format!("distance > {low:?} AND distance < {high:?}"),
            &all[11..30],
        ),
        (format!("distance > {low:?} LIMIT 5"), &all[11..16]),
        (
            format!("distance >= {low:?} ORDER BY distance LIMIT 200 OFFSET 3"),
            &all[13..213],
        ),
        ("1 LIMIT 10 OFFSET 5000".to_owned(), &all[5000..5010]),
        (
            "1 ORDER BY distance LIMIT 10 OFFSET 5000".to_owned(),
            &all[5000..5010],
        ),
        ("1 ORDER BY distance, rowid LIMIT 10".to_owned(), &all[..10]),
        ("distance < 0".to_owned(), &[]),
        ("distance < NULL LIMIT 3".to_owned(), &[]),
        ("distance < 'x' LIMIT 3".to_owned(), &all[..3]),
        ("distance > 'x' LIMIT 3".to_owned(), &[]),
    ] {
        let sql = format!("SELECT rowid FROM {from} WHERE {condition}");
        assert_eq!(ids(&conn, &sql), wanted, "{sql}");
    }
    // A page after the last row of the page before, as sqlite-vec does it: k counts the rows beyond.
    let sql = format!(
        "SELECT rowid FROM ix WHERE v MATCH zeroblob(48) AND k = 10 AND distance > {low:?}"
    );
    assert_eq!(ids(&conn, &sql), &all[11..21]);
    let sql = "SELECT rowid FROM knn_annoy('ix', zeroblob(48), 100, '{\"recall\":1}') ORDER BY distance DESC LIMIT 3";
    let last: Vec<_> = all[97..100].iter().rev().copied().collect();
    assert_eq!(ids(&conn, sql), last);
}

#[test]
fn a_filtered_search_says_which_way_it_went() {
    let conn = points(12);
    let path = |sql: &str| -> (String, i64) {
        let n = ids(&conn, sql).len();
        assert_eq!(n, 10, "{sql}");
        (
            stat(&conn, "answered_by"),
            stat(&conn, "rows_of_the_filter"),
        )
    };
    let few = path(
        "SELECT rowid FROM knn_annoy('ix', zeroblob(48), 10) WHERE rowid IN (SELECT id FROM p WHERE kind = 3 LIMIT 99)",
    );
    assert_eq!(few.0, "index, rows of the filter");
    assert!((90..=99).contains(&few.1), "{}", few.1);
    let many = path(
        "SELECT rowid FROM knn_annoy('ix', zeroblob(48), 10) WHERE rowid IN (SELECT id FROM p WHERE id % 2 = 0)",
    );
    // Of 20,000 rows an exact search costs as little as a scan of lists.
    assert!(
        ["index", "index, exactly"].contains(&many.0.as_str()),
        "{}",
        many.0
    );
    assert_eq!(many.1, 0);
    let none = path(
        "SELECT rowid FROM knn_exact('t', 'v', zeroblob(48), 10) WHERE rowid IN (SELECT id FROM t WHERE kind = 3 LIMIT 20)",
    );
    assert_eq!(none.0, "table, rows of the filter");
}

#[test]
fn few_rows_of_a_set_are_scored_exactly_even_where_the_nearest_have_changed() {
    let conn = points(13);
    let set = "WHERE rowid IN (SELECT id FROM p WHERE kind % 20 = 3)";
    conn.execute_batch(&format!(
        "INSERT INTO q SELECT v FROM p WHERE kind = 3 LIMIT 1;
         CREATE TEMP TABLE far AS
         SELECT rowid FROM knn_exact('p', 'v', (SELECT v FROM q), 30, '{{\"metric\":\"l2\"}}') {set};
         UPDATE p SET v = zeroblob(48) WHERE id IN (SELECT rowid FROM far)",
    ))
    .unwrap();
    let found = ids(
        &conn,
        &format!("SELECT rowid FROM knn_annoy('ix', (SELECT v FROM q), 10) {set}"),
    );
    assert!(stat::<i64>(&conn, "rows_of_the_filter") > 800);
    let scored: i64 = stat(&conn, "reranked");
    assert!(scored < 100, "{scored}");
    let true_ones = ids(
        &conn,
        "SELECT id FROM p WHERE kind % 20 = 3 ORDER BY vec_distance_l2(v, (SELECT v FROM q)), id LIMIT 10",
    );
    assert_eq!(found, true_ones);
}

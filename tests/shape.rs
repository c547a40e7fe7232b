//! Groups, pictures, fused and diverse rankings, moving sums.

mod common;

use common::{error, one, rows};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Three groups of twenty points in space, with a table of texts beside them.
fn groups() -> Connection {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, kind INTEGER, v BLOB);
         WITH RECURSIVE c(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM c WHERE i < 59)
         INSERT INTO p SELECT i + 100, i % 3, vec_f32(json_array(
             (i % 3 = 0) * 9 + (i * 37 % 11) / 11.0, (i % 3 = 1) * 9 + (i * 53 % 13) / 13.0,
             (i % 3 = 2) * 9 + (i * 71 % 17) / 17.0)) FROM c;
         INSERT INTO p VALUES (1, NULL, NULL);
         CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2);",
    )
    .unwrap();
    conn
}

#[test]
fn clusters_are_the_groups_that_there_are() {
    let conn = groups();
    for options in ["NULL", "'{\"metric\":\"l2\", \"seed\":4, \"threads\":1}'"] {
        let found = rows(
            &conn,
            &format!(
                "SELECT count(*), count(DISTINCT c.cluster), min(c.rowid = c.id), max(c.distance) < 2
                   FROM vec_cluster('p', 'v', 3, {options}) c JOIN p ON p.id = c.rowid GROUP BY p.kind"
            ),
        );
        let row: Vec<Value> = [20, 1, 1, 1].map(Value::Integer).to_vec();
        assert_eq!(found, [row.clone(), row.clone(), row]);
    }
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT count(DISTINCT cluster) FROM vec_cluster('p', 'v', 3)"
        ),
        3
    );
    assert_eq!(
        one::<i64>(&conn, "SELECT count(*) FROM vec_cluster('p', 'v', 1000)"),
        60
    );
    for (sql, message) in [
        (
            "SELECT * FROM vec_cluster('p', 'v', 0)",
            "vec_cluster: k, the number of clusters, must be an integer from 1 up, got 0",
        ),
        (
            "SELECT * FROM vec_cluster('p', 'v', 'x')",
            "vec_cluster: k, the number of clusters, must be an integer from 1 up, got Text",
        ),
        (
            "SELECT * FROM vec_cluster('p', 'w', 2)",
            "no such column: w in p; its columns are id, kind, v",
        ),
        (
            "SELECT * FROM vec_cluster('p', 'v', 2, '{\"metrik\":\"l2\"}')",
            "vec_cluster options: unknown field `metrik`, expected one of `metric`, `seed`, `rounds`, `threads` at line 1 \
             column 9; did you mean 'metric'?",
        ),
        (
            "SELECT * FROM vec_cluster('p', 'v', 2, '{\"metric\":\"dot\"}')",
            "unknown metric 'dot': expected one of cosine, l2",
        ),
    ] {
        assert_eq!(error(&conn, sql), message, "{sql}");
    }
}

#[test]
fn a_projection_keeps_the_groups_apart() {
    let conn = groups();
    let sql = "SELECT count(*), round(avg(x), 1), round(avg(y), 1), max(abs(x)) FROM vec_project('p', 'v') r JOIN p ON p.id = r.rowid GROUP BY kind";
    let found = rows(&conn, sql);
    assert_eq!(found.len(), 3);
    let real = |v: &Value| match v {
        Value::Real(x) => *x,
        other => panic!("{other:?}"),
    };
    for (i, a) in found.iter().enumerate() {
        for b in &found[..i] {
            let apart = (real(&a[1]) - real(&b[1])).hypot(real(&a[2]) - real(&b[2]));
            assert!((apart - 9.0 * 2f64.sqrt()).abs() < 1.5, "{apart}");
        }
    }
}

#[test]
fn rankings_are_fused_by_their_ranks() {
    let conn = groups();
    let found = rows(
        &conn,
        "WITH a(id, rank) AS (VALUES(1, 1), (2, 2), (3, 3)), b(id, rank) AS (VALUES(3, 1), (4, 2), (2, 3))
         SELECT id, round(rrf(rank), 6), round(rrf(rank, 0), 6), round(rrf(rank, 60, 2), 6)
           FROM (SELECT * FROM a UNION ALL SELECT * FROM b) GROUP BY id ORDER BY 2 DESC",
    );
    let expected = [
        (3, 1.0 / 61.0 + 1.0 / 63.0, 1.0 + 1.0 / 3.0),
        (2, 1.0 / 62.0 + 1.0 / 63.0, 0.5 + 1.0 / 3.0),
        (1, 1.0 / 61.0, 1.0),
        (4, 1.0 / 62.0, 0.5),
    ];
    let six = |x: f64| Value::Real((x * 1e6).round() / 1e6);
    for (row, (id, sixty, none)) in found.iter().zip(expected) {
        assert_eq!(
            *row,
            [Value::Integer(id), six(sixty), six(none), six(2.0 * sixty)]
        );
    }
    assert_eq!(found.len(), 4);
    assert_eq!(one::<f64>(&conn, "SELECT rrf(NULL)"), 0.0);
    assert_eq!(
        error(&conn, "SELECT rrf(0)"),
        "rrf: expected a rank from 1 up and a k from 0 up, got rank 0 and k 60; row_number() gives ranks"
    );
    assert_eq!(
        error(&conn, "SELECT rrf('first')"),
        "rrf: rank must be a number, got TEXT"
    );
}

#[test]
fn a_diverse_ranking_takes_from_every_group() {
    let conn = groups();
    let kinds = |lambda: &str| -> i64 {
        one(
            &conn,
            &format!(
                "SELECT count(DISTINCT p.kind) FROM mmr('ix', '[6, 5, 4]', 3, '{{\"lambda\":{lambda}, \"candidates\":60}}') m
                   JOIN p ON p.id = m.rowid"
            ),
        )
    };
    assert_eq!((kinds("1.0"), kinds("0.3")), (1, 3));
    // The plain search, and the nearest row first whatever lambda is.
    assert_eq!(
        rows(
            &conn,
            "SELECT id, distance FROM mmr('ix', '[6, 5, 4]', 7, '{\"lambda\":1}')"
        ),
        rows(
            &conn,
            "SELECT rowid, distance FROM knn_annoy('ix', '[6, 5, 4]', 7)"
        )
    );
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT id FROM mmr('ix', '[6, 5, 4]', 3, '{\"lambda\":0}') WHERE rank = 1"
        ),
        one::<i64>(&conn, "SELECT rowid FROM knn_annoy('ix', '[6, 5, 4]', 1)")
    );
    for (sql, message) in [
        (
            "SELECT * FROM mmr('iy', '[1,2,3]', 3)",
            "no such index: iy; there is ix; did you mean 'ix'?",
        ),
        (
            "SELECT * FROM mmr('ix', '[1,2]', 3)",
            "Dimension mismatch for query vector for the \"v\" column. Expected 3 dimensions but received 2.",
        ),
        (
            "SELECT * FROM mmr('ix', '[1,2,3]', 3, '{\"lambda\":7}')",
            "mmr: lambda must be from 0 (all different) to 1 (all near), got 7",
        ),
        (
            "SELECT * FROM mmr('ix', '[1,2,3]', NULL)",
            "mmr(index, query, k, options) needs k, the number of rows",
        ),
    ] {
        assert_eq!(error(&conn, sql), message, "{sql}");
    }
}

#[test]
fn sums_and_means_move_with_their_window() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(i INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO t VALUES(1, '[1, 1e30]'), (2, '[2, 1]'), (3, NULL), (4, '[4, 3]'), (5, '[8, 5]')",
    )
    .unwrap();
    let found = rows(
        &conn,
        "SELECT vec_to_json(vec_sum(v) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)) FROM t ORDER BY i",
    );
    let text = |s: &str| vec![Value::Text(s.to_owned())];
    // What has left the window leaves nothing behind: 1 is still there after 1e30 has come and gone.
    assert_eq!(found[1][0], {
        let sum: String = one(&conn, "SELECT vec_to_json(vec_sum(v)) FROM t WHERE i < 3");
        Value::Text(sum)
    });
    assert_eq!(found[2], text("[2.000000,1.000000]"));
    assert_eq!(found[4], text("[12.000000,8.000000]"));
    let means = rows(
        &conn,
        "SELECT vec_to_json(vec_avg(v) OVER (PARTITION BY i > 2)) FROM t ORDER BY i DESC LIMIT 1",
    );
    assert_eq!(means, [text("[6.000000,4.000000]")]);
    let none = rows(
        &conn,
        "SELECT vec_avg(v) OVER (ORDER BY i ROWS BETWEEN CURRENT ROW AND CURRENT ROW) IS NULL FROM t WHERE i = 3",
    );
    assert_eq!(none, [vec![Value::Integer(1)]]);
}

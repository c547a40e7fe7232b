//! Many queries at once, ranges, threads and what a search says it did, through SQL.

mod common;

use common::{error, one, rows, stat};
use rusqlite::Connection;
use rusqlite::types::Value;

/// 4,000 points on a spiral, indexed by l2, and the same without an index.
fn spiral() -> Connection {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, v BLOB);
         WITH RECURSIVE c(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM c WHERE i < 3999)
         INSERT INTO p SELECT i, vec_f32(format('[%!.9f, %!.9f, %!.9f]', (i * 37 % 101) / 7.0, (i * 53 % 211) / 9.0, i / 500.0))
           FROM c;
         CREATE TABLE bare AS SELECT id, v FROM p;
         CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2);
         CREATE TABLE q(name TEXT, v BLOB);
         INSERT INTO q SELECT 'q' || (40 - id), v FROM p WHERE id % 97 = 0;",
    )
    .unwrap();
    conn
}

const L2: &str = "'{\"metric\":\"l2\"}'";

#[test]
fn a_batch_gives_the_rows_of_its_queries_one_by_one() {
    let conn = spiral();
    for table in ["p", "bare"] {
        let batch = rows(
            &conn,
            &format!(
                "SELECT query, rowid, distance FROM knn_exact_batch('{table}', 'v',
                   (SELECT vec_pack(v) FROM (SELECT v FROM q ORDER BY rowid)), 7, {L2})"
            ),
        );
        let single = rows(
            &conn,
            &format!(
                "SELECT q.rowid - 1, n.rowid, n.distance FROM q, knn_exact('{table}', 'v', q.v, 7, {L2}) n
                  ORDER BY q.rowid, n.distance, n.rowid"
            ),
        );
        assert_eq!(batch.len(), 42 * 7);
        assert_eq!(batch, single, "{table}");
    }
    for options in [
        "500",
        "'{\"recall\":0.9}'",
        "'{\"recall\":0.9,\"threads\":2}'",
    ] {
        let batch = rows(
            &conn,
            &format!(
                "SELECT query, rowid, distance FROM knn_annoy_batch('ix',
                   (SELECT vec_pack(v) FROM (SELECT v FROM q ORDER BY rowid)), 5, {options})"
            ),
        );
        let single = rows(
            &conn,
            &format!(
                "SELECT q.rowid - 1, n.rowid, n.distance FROM q, knn_annoy('ix', q.v, 5, {options}) n
                  ORDER BY q.rowid, n.distance, n.rowid"
            ),
        );
        assert_eq!(batch, single, "{options}");
    }
}

#[test]
fn numbers_of_queries_lead_back_to_the_rows_they_came_from() {
    let conn = spiral();
    // Without window functions or ORDER BY in an aggregate, which SQLite has had since 3.25 and 3.44: the same subquery,
    // numbered, finds its rows again.
    let found = rows(
        &conn,
        &format!(
            "WITH numbered AS (SELECT (SELECT count(*) FROM q AS b WHERE b.name < q.name) AS number, name, v FROM q)
             SELECT numbered.name, n.rowid, n.distance
               FROM knn_exact_batch('p', 'v', (SELECT vec_pack(v) FROM (SELECT v FROM q ORDER BY name)), 1, {L2}) n
               JOIN numbered ON numbered.number = n.query ORDER BY numbered.name"
        ),
    );
    let single = rows(
        &conn,
        &format!(
            "SELECT q.name, n.rowid, n.distance FROM q, knn_exact('p', 'v', q.v, 1, {L2}) n ORDER BY q.name"
        ),
    );
    assert_eq!(found.len(), 42);
    assert_eq!(found, single);
    assert!(found.iter().all(|row| row[2] == Value::Real(0.0)));
}

#[test]
fn queries_come_as_json_as_a_blob_or_not_at_all() {
    let conn = spiral();
    let count = |queries: &str, k: i64| -> i64 {
        one(
            &conn,
            &format!("SELECT count(*) FROM knn_exact_batch('p', 'v', {queries}, {k}, {L2})"),
        )
    };
    assert_eq!(count("'[[1,2,3],[4,5,6]]'", 3), 6);
    assert_eq!(count("'[]'", 3), 0);
    assert_eq!(count("NULL", 3), 0);
    assert_eq!(count("x''", 3), 0);
    assert_eq!(count("vec_f32('[1,2,3]')", 3), 3);
    assert_eq!(count("'[[1,2,3]]'", 0), 0);
    assert_eq!(count("(SELECT vec_pack(v) FROM q WHERE 0)", 3), 0);
    for (queries, message) in [
        ("'[1,2,3]'", "expected a JSON array of arrays"),
        (
            "'[[1,2,3],[1,2]]'",
            "query 1 has 2 dimensions, expected 3 as in query 0",
        ),
        ("'[[1,2]]'", "Expected 3 dimensions but received 2"),
        ("'[[1,2,1e99]]'", "query 0"),
        (
            "x'0000803f'",
            "a blob of 4 bytes is no whole number of vectors of 3 dimensions",
        ),
        ("x'0000803f0000803f0000c07f'", "query 0"),
        ("vec_int8('[1,2,3]')", "expected float32, found int8"),
        ("7", "found INTEGER"),
    ] {
        let sql = format!("SELECT * FROM knn_exact_batch('p', 'v', {queries}, 3, {L2})");
        let got = error(&conn, &sql);
        assert!(got.contains(message), "{queries}: {got}");
    }
    let got = error(
        &conn,
        "SELECT * FROM knn_exact_batch('p', 'v', '[[1,2,3]]')",
    );
    assert!(got.contains("needs k"), "{got}");
    for (sql, message) in [
        (
            "SELECT vec_pack(v) FROM (SELECT v FROM q UNION ALL SELECT NULL)",
            "is NULL",
        ),
        (
            "SELECT vec_pack(v) FROM (SELECT v FROM q UNION ALL SELECT '[1]')",
            "expected a vector with 3",
        ),
        (
            "SELECT vec_pack(iif(value, vec_bit(x'01'), vec_int8('[1]'))) FROM json_each('[1,0]')",
            "type bit, as in the rows before, found int8",
        ),
    ] {
        let got = error(&conn, sql);
        assert!(got.contains(message), "{sql}: {got}");
    }
}

#[test]
fn a_range_gives_every_row_within_the_distance_in_one_pass() {
    let conn = spiral();
    for table in ["p", "bare"] {
        for x in ["0.0", "2.5", "9", "1e9", "-1"] {
            for op in ["<", "<="] {
                let range = rows(
                    &conn,
                    &format!(
                        "SELECT rowid, distance FROM knn_exact('{table}', 'v', '[3,7,4]', NULL, {L2}) WHERE distance {op} {x}"
                    ),
                );
                let plain = rows(
                    &conn,
                    &format!(
                        "SELECT rowid, distance FROM knn_exact('{table}', 'v', '[3,7,4]', 4000, {L2})
                          WHERE +distance {op} {x}"
                    ),
                );
                assert_eq!(range, plain, "{table} {op} {x}");
            }
        }
        let _ = rows(
            &conn,
            &format!(
                "SELECT rowid FROM knn_exact('{table}', 'v', '[3,7,4]', NULL, {L2}) WHERE distance < 3"
            ),
        );
        // One pass: every row was met once.
        assert_eq!(stat::<Value>(&conn, "rows"), Value::Integer(4000));
    }
}

#[test]
fn a_search_says_what_it_did_and_its_rows_add_up() {
    let conn = spiral();
    assert_eq!(
        rows(&conn, "SELECT * FROM annoy_stats"),
        Vec::<Vec<Value>>::new()
    );
    for (sql, by, queries, answers) in [
        (
            "SELECT rowid FROM knn_exact('p', 'v', '[3,7,4]', 5, '{\"metric\":\"l2\"}')",
            "index, exactly",
            1,
            5,
        ),
        (
            "SELECT rowid FROM knn_exact('bare', 'v', '[3,7,4]', 5, '{\"metric\":\"l2\"}')",
            "table",
            1,
            5,
        ),
        (
            "SELECT rowid FROM knn_exact_batch('p', 'v', '[[3,7,4],[0,0,0],[9,9,9]]', 4, '{\"metric\":\"l2\"}')",
            "index, exactly",
            3,
            12,
        ),
    ] {
        let _ = rows(&conn, sql);
        assert_eq!(
            stat::<Value>(&conn, "answered_by"),
            Value::Text(by.to_owned())
        );
        assert_eq!(
            (stat::<i64>(&conn, "queries"), stat::<i64>(&conn, "answers")),
            (queries, answers),
            "{sql}"
        );
        let parts = [
            "left_out_by_radius",
            "left_out_by_4_bits",
            "left_out_by_8_bits",
            "left_out_by_floats",
            "reranked",
        ];
        let sum: i64 = parts.iter().map(|key| stat::<i64>(&conn, key)).sum();
        assert_eq!(stat::<i64>(&conn, "rows"), 4000 * queries);
        assert_eq!(sum, 4000 * queries, "{sql}");
        assert!(stat::<i64>(&conn, "bytes_read") > 0 && stat::<i64>(&conn, "reranked") >= answers);
        assert!(matches!(stat(&conn, "microseconds"), Value::Real(us) if us > 0.0));
    }
}

#[test]
fn threads_do_not_change_the_answer_and_are_checked() {
    let conn = spiral();
    let with = |threads: &str| {
        rows(
            &conn,
            &format!(
                "SELECT rowid, distance FROM knn_exact('p', 'v', '[3,7,4]', 100, '{{\"metric\":\"l2\",\"threads\":{threads}}}')"
            ),
        )
    };
    let one = with("1");
    for threads in ["0", "2", "7", "null"] {
        assert_eq!(with(threads), one, "{threads}");
    }
    for bad in ["-1", "1025", "9e9", "\"2\""] {
        let sql =
            format!("SELECT * FROM knn_exact('p', 'v', '[3,7,4]', 1, '{{\"threads\":{bad}}}')");
        let got = error(&conn, &sql);
        assert!(
            got.contains("threads") || got.contains("invalid type"),
            "{bad}: {got}"
        );
    }
}

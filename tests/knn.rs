//! `knn_exact`, `knn_annoy` and the MATCH form: arguments, LIMIT, joins, order, errors.

mod common;

use common::ids;
use rusqlite::Connection;
use rusqlite::types::Value;

/// Points on a line: row i is at (i, 0), so that every distance is known.
fn line(n: i64) -> Connection {
    let conn = common::memory();
    conn.execute_batch("CREATE TABLE p(id INTEGER PRIMARY KEY, colour TEXT, v BLOB)")
        .unwrap();
    conn.execute(
        "WITH RECURSIVE c(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM c WHERE i + 1 < ?1)
         INSERT INTO p SELECT i, CASE i % 100 WHEN 7 THEN 'red' ELSE 'grey' END, vec_f32('[' || i || ', 0]') FROM c",
        [n],
    )
    .unwrap();
    conn.execute_batch("CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2)")
        .unwrap();
    conn
}

#[test]
fn k_comes_as_argument_as_constraint_or_from_limit() {
    let conn = line(1000);
    let nearest = vec![10, 9, 11, 8];
    for sql in [
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]', 4)",
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]') WHERE k = 4",
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]') LIMIT 4",
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]') ORDER BY distance LIMIT 4",
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]', NULL) LIMIT 4",
        "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]', 100) LIMIT 4",
        "SELECT rowid FROM ix WHERE v MATCH '[9.9, 0]' AND k = 4",
        "SELECT rowid FROM ix WHERE v MATCH '[9.9, 0]' ORDER BY distance LIMIT 4",
        "SELECT rowid FROM knn_exact('p', 'v', '[9.9, 0]', 4, '{\"metric\":\"l2\"}')",
        "SELECT rowid FROM knn_exact('p', 'v', '[9.9, 0]') WHERE options = '{\"metric\":\"l2\"}' LIMIT 4",
        "SELECT rowid FROM knn_exact('main.p', 'V', '[9.9, 0]', 4, '{\"metric\":\"l2\"}')",
    ] {
        assert_eq!(ids(&conn, sql), nearest, "{sql}");
    }
    assert_eq!(
        ids(
            &conn,
            "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]') LIMIT 2 OFFSET 2"
        ),
        nearest[2..]
    );
    assert_eq!(
        ids(&conn, "SELECT rowid FROM knn_annoy('ix', '[9.9, 0]', 0)"),
        [0; 0]
    );
    assert_eq!(
        ids(&conn, "SELECT rowid FROM knn_annoy('ix', NULL, 5)"),
        [0; 0]
    );
    for everything in ["1000000", "1099511627776", "NULL"] {
        let sql = format!("SELECT rowid FROM knn_annoy('ix', '[-1, 0]', {everything})");
        assert_eq!(ids(&conn, &sql), (0..1000).collect::<Vec<_>>(), "{sql}");
    }
}

#[test]
fn a_million_may_be_asked_for_and_deep_pages_come_in_order() {
    let n = 30_000;
    let conn = line(n);
    conn.execute_batch("CREATE TABLE bare AS SELECT * FROM p")
        .unwrap();
    let all: Vec<i64> = (0..n).collect();
    let l2 = "'{\"metric\":\"l2\"}'";
    for search in [
        "knn_annoy('ix', '[-1, 0]', $k)".to_owned(),
        "knn_annoy('ix', '[-1, 0]', $k, '{\"recall\":0.9}')".to_owned(),
        format!("knn_exact('p', 'v', '[-1, 0]', $k, {l2})"),
        format!("knn_exact('bare', 'v', '[-1, 0]', $k, {l2})"),
    ] {
        let check = |k: &str, rest: &str, expected: &[i64]| {
            let sql = format!("SELECT n.rowid FROM {} n {rest}", search.replace("$k", k));
            let mut found = ids(&conn, &sql);
            // Rowids of a table without a key of its own begin at 1.
            if search.contains("bare") {
                found.iter_mut().for_each(|id| *id -= 1);
            }
            assert!(
                found == expected,
                "{sql}: {} rows, {:?}",
                found.len(),
                found.get(..9)
            );
        };
        check("1000000", "", &all);
        check("1000000", "LIMIT 5 OFFSET 29000", &all[29_000..29_005]);
        check(
            "NULL",
            "ORDER BY n.distance LIMIT 5 OFFSET 29000",
            &all[29_000..29_005],
        );
        check(
            "NULL",
            "WHERE n.distance > 29000.5 ORDER BY n.distance LIMIT 5",
            &all[29_000..29_005],
        );
        check(
            "NULL",
            "WHERE n.rowid % 7000 = 5 ORDER BY n.distance LIMIT 2 OFFSET 3",
            &{
                let first = if search.contains("bare") { 4 } else { 5 };
                [21_000 + first, 28_000 + first]
            },
        );
        let last: Vec<i64> = all.iter().rev().take(3).copied().collect();
        check("NULL", "ORDER BY n.distance DESC LIMIT 3", &last);
        check(
            "29997",
            "ORDER BY n.distance DESC LIMIT 2 OFFSET 1",
            &[29_995, 29_994],
        );
        // Without k and LIMIT, whatever comes first.
        let sql = format!(
            "SELECT count(*), count(DISTINCT n.rowid) FROM {} n",
            search.replace("$k", "NULL")
        );
        assert_eq!(
            common::rows(&conn, &sql),
            [vec![Value::Integer(n); 2]],
            "{sql}"
        );
    }
}

#[test]
fn a_match_gives_the_vectors_it_found() {
    let conn = line(1000);
    let found = common::rows(
        &conn,
        "SELECT rowid, vec_to_json(v) FROM ix WHERE v MATCH '[9.9, 0]' AND k = 2",
    );
    let row = |id: i64, json: &str| vec![Value::Integer(id), Value::Text(json.to_owned())];
    assert_eq!(
        found,
        [
            row(10, "[10.000000,0.000000]"),
            row(9, "[9.000000,0.000000]")
        ]
    );
}

#[test]
fn a_filter_or_join_gets_its_full_number_of_rows() {
    let conn = line(3000);
    let red: Vec<i64> = (0..10).map(|i| i * 100 + 7).collect();
    for sql in [
        "SELECT p.id FROM knn_annoy('ix', '[0, 0]') n JOIN p ON p.id = n.rowid WHERE p.colour = 'red' LIMIT 10",
        "SELECT p.id FROM p JOIN knn_annoy('ix', '[0, 0]') n ON p.id = n.rowid WHERE p.colour = 'red' ORDER BY n.distance LIMIT 10",
        "SELECT rowid FROM knn_annoy('ix', '[0, 0]') n WHERE (SELECT colour FROM p WHERE id = n.rowid) = 'red' LIMIT 10",
        "SELECT rowid FROM knn_exact('p', 'v', '[0, 0]') n WHERE options = '{\"metric\":\"l2\"}' AND EXISTS(SELECT 1 FROM p WHERE id = n.rowid AND colour = 'red') LIMIT 10",
    ] {
        assert_eq!(ids(&conn, sql), red, "{sql}");
    }
}

#[test]
fn a_bound_on_the_distance_ends_the_search() {
    let conn = line(1000);
    for sql in [
        "SELECT rowid FROM knn_annoy('ix', '[-1, 0]') WHERE distance < 4",
        "SELECT rowid FROM knn_annoy('ix', '[-1, 0]', 500) WHERE distance < 4",
        "SELECT rowid FROM knn_annoy('ix', '[-1, 0]') WHERE distance <= 3.5 ORDER BY distance",
        "SELECT rowid FROM knn_annoy('ix', '[-1, 0]') WHERE distance BETWEEN 0 AND 3",
    ] {
        assert_eq!(ids(&conn, sql), [0, 1, 2], "{sql}");
    }
    assert_eq!(
        ids(
            &conn,
            "SELECT rowid FROM knn_annoy('ix', '[-1, 0]') WHERE distance > 3 ORDER BY distance LIMIT 2"
        ),
        [3, 4]
    );
    assert_eq!(
        ids(
            &conn,
            "SELECT rowid FROM knn_annoy('ix', '[-1, 0]') ORDER BY distance DESC LIMIT 2"
        ),
        [999, 998]
    );
}

#[test]
fn a_table_of_queries_joins_with_the_search_inside() {
    let conn = line(500);
    conn.execute_batch(
        "CREATE TABLE q(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO q VALUES(1, '[3, 0]'), (2, '[40.2, 0]'), (3, NULL)",
    )
    .unwrap();
    for sql in [
        "SELECT q.id * 1000 + n.rowid FROM q, knn_annoy('ix', q.v, 2) n",
        "SELECT q.id * 1000 + n.rowid FROM q CROSS JOIN knn_exact('p', 'v', q.v, 2, '{\"metric\":\"l2\"}') n",
        "SELECT q.id * 1000 + n.rowid FROM knn_annoy('ix', q.v, 2) n, q",
    ] {
        let mut ids = ids(&conn, sql);
        ids.sort_unstable();
        assert_eq!(ids, [1002, 1003, 2040, 2041], "{sql}");
    }
    let left = common::rows(
        &conn,
        "SELECT q.id, n.rowid FROM q LEFT JOIN knn_annoy('ix', q.v, 1) n ORDER BY q.id",
    );
    assert_eq!(left.len(), 3);
    assert_eq!(left[2], [Value::Integer(3), Value::Null]);
    let plan = common::rows(
        &conn,
        "EXPLAIN QUERY PLAN SELECT * FROM p JOIN knn_annoy('ix', '[0,0]', 5) n ON p.id = n.rowid",
    );
    let plan: Vec<_> = plan.iter().map(|row| format!("{:?}", row[3])).collect();
    assert!(plan[0].contains("SCAN n VIRTUAL TABLE"), "{plan:?}");
    assert!(
        plan[1].contains("SEARCH p USING INTEGER PRIMARY KEY"),
        "{plan:?}"
    );
}

#[test]
fn views_are_searched_by_their_id_and_tables_without_rowid_are_refused() {
    let conn = line(50);
    conn.execute_batch(
        "CREATE VIEW near AS SELECT id, v FROM p WHERE id < 10;
         CREATE VIEW nameless AS SELECT v FROM p;
         CREATE TABLE w(name TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID",
    )
    .unwrap();
    assert_eq!(
        ids(
            &conn,
            "SELECT rowid FROM knn_exact('near', 'v', '[100, 0]', 2, '{\"metric\":\"l2\"}')"
        ),
        [9, 8]
    );
    assert_eq!(
        common::error(
            &conn,
            "SELECT * FROM knn_exact('nameless', 'v', '[100, 0]', 2)"
        ),
        "the view nameless needs an integer column named rowid or id, to know its rows by"
    );
    assert!(
        common::error(&conn, "SELECT * FROM knn_exact('w', 'v', '[100, 0]', 2)")
            .starts_with("w is a WITHOUT ROWID table, which has no rowid to answer with")
    );
    assert!(
        common::error(&conn, "CREATE VIRTUAL TABLE wi USING annoy(w, v)")
            .starts_with("w is a WITHOUT ROWID table")
    );
    conn.execute_batch("CREATE TABLE plain(v BLOB)").unwrap();
    assert_eq!(
        common::error(&conn, "CREATE VIRTUAL TABLE pi USING annoy(plain, v)"),
        "plain needs an INTEGER PRIMARY KEY to be indexed: VACUUM may change any other rowid"
    );
}

#[test]
fn a_query_that_makes_no_sense_says_what_would() {
    let conn = line(50);
    for (sql, message) in [
        (
            "SELECT * FROM knn_annoy('iy', '[1,0]', 5)",
            "no such index: iy; there is ix; did you mean 'ix'?",
        ),
        (
            "SELECT * FROM knn_exact('q', 'v', '[1,0]', 5)",
            "no such table: q",
        ),
        (
            "SELECT * FROM knn_exact('p', 'w', '[1,0]', 5)",
            "no such column: w in p; its columns are id, colour, v",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0,0]', 5)",
            "Dimension mismatch for query vector for the \"v\" column. Expected 2 dimensions but received 3.",
        ),
        (
            "SELECT * FROM knn_exact('p', 'v', '[1]', 5)",
            "Dimension mismatch for query vector for the \"v\" column. Expected 2 dimensions but received 1.",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', -1)",
            "k value in knn queries must be greater than or equal to 0, got -1",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', 1.5)",
            "k value in knn queries must be an integer, got 1.5",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', 'ten')",
            "k value in knn queries must be an integer, got the text 'ten'",
        ),
        (
            "SELECT * FROM knn_annoy('ix', x'0000', 5)",
            "Query vector on the \"v\" column is invalid: invalid float32 vector BLOB length. Must be divisible by 4, found 2",
        ),
        (
            "SELECT * FROM knn_annoy('ix', vec_int8('[1,0]'), 5)",
            "Query vector for the \"v\" column is expected to be of type float32, but a int8 vector was provided.",
        ),
        (
            "SELECT * FROM knn_annoy('ix', x'0000c07f00000000', 5)",
            "Query vector on the \"v\" column is invalid: component 0 of the vector is NaN: expected a finite number",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', 5, -3)",
            "search_k must be 0 or more, got -3",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', 5, '{\"recall\":1.5}')",
            "recall must be from 0 to 1, got 1.5",
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[1,0]', 5, '{\"search\":1}')",
            "knn_annoy options: unknown field `search`, expected one of `search_k`, `recall`, `threads`, `filter` at line 1 column 9; did you mean 'search_k'?",
        ),
        (
            "SELECT * FROM knn_exact('p', 'v', '[1,0]', 5, '{\"metric\":\"euclid\"}')",
            "unknown metric 'euclid': expected one of cosine, l2, dot, l1, hamming",
        ),
        (
            "SELECT * FROM knn_annoy('ix')",
            "knn_annoy(index, query, k, options) needs a query vector",
        ),
        (
            "SELECT * FROM knn_exact('p')",
            "knn_exact(table, column, query, k, options) needs the name of a column",
        ),
        (
            "INSERT INTO ix(ix) VALUES('rebild')",
            "unknown command 'rebild': the commands are rebuild, refresh, auto-refresh, integrity-check; did you mean 'rebuild'?",
        ),
        (
            "INSERT INTO ix(v) VALUES('[1,0]')",
            "rows go into the table that ix follows, not into the index; commands are given as INSERT INTO \"ix\"(\"ix\") VALUES('rebuild')",
        ),
        (
            "DELETE FROM ix",
            "rows are changed in the table that ix follows, not in the index",
        ),
    ] {
        assert_eq!(common::error(&conn, sql), message, "{sql}");
    }
    conn.execute_batch("INSERT INTO p VALUES(777, NULL, zeroblob(12))")
        .unwrap();
    let bad =
        "the vector in p.v of row 777 has 3 dimensions, expected 2; correct or remove the row";
    for sql in [
        "SELECT * FROM knn_annoy('ix', '[1,0]', 5)",
        "SELECT * FROM knn_exact('p', 'v', '[1,0]', 5)",
        "INSERT INTO ix(ix) VALUES('rebuild')",
    ] {
        assert_eq!(common::error(&conn, sql), bad, "{sql}");
    }
    conn.execute_batch("DELETE FROM p WHERE id = 777").unwrap();
    assert_eq!(
        ids(&conn, "SELECT rowid FROM knn_annoy('ix', '[1,0]', 1)"),
        [1]
    );
}

#[test]
fn every_metric_scans_and_cosine_is_the_default() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO t VALUES(1, '[1, 0]'), (2, '[10, 1]'), (3, '[-1, 0.5]'), (4, '[0, 0]'), (5, NULL)",
    )
    .unwrap();
    let distances = |options: &str| -> Vec<(i64, f64)> {
        common::rows(
            &conn,
            &format!("SELECT rowid, distance FROM knn_exact('t', 'v', '[1, 0]', 9, {options})"),
        )
        .into_iter()
        .map(|row| match row[..] {
            [Value::Integer(i), Value::Real(d)] => (i, d),
            _ => panic!("{row:?}"),
        })
        .collect()
    };
    assert_eq!(distances("NULL"), distances("'{\"metric\":\"cosine\"}'"));
    let ids = |rows: Vec<(i64, f64)>| rows.into_iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(ids(distances("NULL")), [1, 2, 4, 3]);
    assert_eq!(distances("NULL")[2], (4, 1.0));
    assert_eq!(
        distances("'{\"metric\":\"dot\"}'"),
        [(2, -10.0), (1, -1.0), (4, 0.0), (3, 1.0)]
    );
    assert_eq!(
        distances("'{\"metric\":\"l1\"}'"),
        [(1, 0.0), (4, 1.0), (3, 2.5), (2, 10.0)]
    );
    assert_eq!(distances("'{\"metric\":\"l2\"}'")[1], (4, 1.0));
    assert_eq!(
        distances("'{\"metric\":\"hamming\"}'"),
        [(1, 0.0), (2, 1.0), (4, 1.0), (3, 2.0)]
    );
}

#[test]
fn tables_of_every_element_type_are_searched_exactly() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, i int8[8], b BIT[8], h float16[8], plain BLOB, f float[8]);
         WITH RECURSIVE c(n) AS (VALUES(0) UNION ALL SELECT n + 1 FROM c WHERE n < 199)
         INSERT INTO a SELECT n, j, vec_quantize_binary(vec_f32(j)), vec_f16(vec_f32(j)), vec_int8(j), vec_f32(j)
           FROM (SELECT n, vec_to_json(vec_int8('[' || (n % 100) || ',' || (n * 7 % 50) || ',1,-2,' || (n % 3) || ',0,5,-128]')) AS j
                   FROM c);
         UPDATE a SET i = plain;
         INSERT INTO a(id) VALUES(1000);
         CREATE VIEW w AS SELECT id, vec_int8(vec_slice(vec_int8(i), 0, 4)) AS part FROM a WHERE i IS NOT NULL;",
    )
    .unwrap();
    let q = "'[3, 4, 1, -2, 0, 0, 5, -128]'";
    for (metric, function) in [
        ("l2", "vec_distance_l2"),
        ("cosine", "vec_distance_cosine"),
        ("l1", "vec_distance_l1"),
    ] {
        let o = format!("'{{\"metric\":\"{metric}\"}}'");
        let floats = common::rows(
            &conn,
            &format!("SELECT rowid, distance FROM knn_exact('a', 'f', {q}, 30, {o})"),
        );
        assert_eq!(floats.len(), 30);
        for search in [
            // By the declared type, by the query's type, and both.
            format!("knn_exact('a', 'i', {q}, 30, {o})"),
            format!("knn_exact('a', 'i', vec_int8({q}), 30, {o})"),
            format!("knn_exact('a', 'plain', vec_int8({q}), 30, {o})"),
            format!("knn_exact('a', 'h', {q}, 30, {o})"),
            format!("knn_exact('a', 'h', vec_f16(vec_f32({q})), 30, {o})"),
        ] {
            let got = common::rows(&conn, &format!("SELECT rowid, distance FROM {search}"));
            assert_eq!(got, floats, "{search}");
        }
        let by_function: Vec<i64> = ids(
            &conn,
            &format!(
                "SELECT id FROM a WHERE i IS NOT NULL ORDER BY {function}(vec_int8(i), vec_int8({q})), id LIMIT 1"
            ),
        );
        assert_eq!(floats[0][0], Value::Integer(by_function[0]), "{metric}");
    }
    // Bits have one distance, which needs no saying.
    let bits = common::rows(
        &conn,
        "SELECT rowid, distance FROM knn_exact('a', 'b', '[1,1,0,0,0,0,0,0]', 20)",
    );
    let plain = common::rows(
        &conn,
        "SELECT id, CAST(vec_distance_hamming(vec_bit(b), vec_bit(x'03')) AS REAL) AS d FROM a WHERE b IS NOT NULL
          ORDER BY d, id LIMIT 20",
    );
    assert_eq!(bits, plain);
    // Any expression, through a view.
    let part = ids(
        &conn,
        "SELECT rowid FROM knn_exact('w', 'part', vec_int8('[3,21,1,-2]'), 1, '{\"metric\":\"l2\"}')",
    );
    assert_eq!(part, [3]);
    for (sql, message) in [
        (
            "SELECT * FROM knn_exact('a', 'i', vec_bit(x'01'), 1)",
            "expected to be of type int8, but a bit vector was provided",
        ),
        (
            "SELECT * FROM knn_exact('a', 'i', vec_int8('[1,2]'), 1)",
            "Expected 8 dimensions but received 2",
        ),
        (
            "SELECT * FROM knn_exact('a', 'i', '[1,2,3,4,5,6,7,300]', 1)",
            "\"i\" column is invalid",
        ),
        (
            "SELECT * FROM knn_exact('a', 'b', vec_bit(x'01'), 1, '{\"metric\":\"l2\"}')",
            "l2 distance between two bitvectors",
        ),
        (
            "SELECT * FROM knn_exact_batch('a', 'i', '[[1,2,3,4,5,6,7,800]]', 1)",
            "value out of range for int8",
        ),
    ] {
        let got = common::error(&conn, sql);
        assert!(got.contains(message), "{sql}: {got}");
    }
}

#[test]
fn a_scan_within_a_scan_and_views_of_any_kind_meet_each_row_once() {
    let conn = line(300);
    conn.execute_batch(
        "CREATE TABLE twice AS SELECT id, v FROM p UNION ALL SELECT id, v FROM p;
         CREATE VIEW once AS SELECT DISTINCT id, v FROM twice;
         CREATE VIEW grouped AS SELECT id, v FROM twice GROUP BY id;
         CREATE VIEW few AS SELECT id, v FROM p WHERE id < 50 ORDER BY id DESC LIMIT 7;
         CREATE VIEW both AS SELECT id, v FROM p WHERE id < 5 UNION ALL SELECT id + 1000, v FROM p WHERE id < 5;
         CREATE VIEW nested AS
           SELECT id, v FROM p WHERE id IN (SELECT rowid FROM knn_exact('twice', 'v', '[20, 0]', 3, '{\"metric\":\"l2\"}'))
                                     OR id = 7;",
    )
    .unwrap();
    let nearest = |view: &str, k: usize| {
        let sql = format!(
            "SELECT rowid FROM knn_exact('{view}', 'v', '[2, 0]', {k}, '{{\"metric\":\"l2\"}}')"
        );
        ids(&conn, &sql)
    };
    for view in ["p", "once", "grouped"] {
        assert_eq!(nearest(view, 4), [2, 1, 3, 0], "{view}");
        assert_eq!(nearest(view, 1000).len(), 300, "{view}");
    }
    assert_eq!(nearest("few", 100), [43, 44, 45, 46, 47, 48, 49]);
    assert_eq!(nearest("both", 4), [2, 1002, 1, 3]);
    // Inside, rows 21 and 321 lie at distance 0, row 20 is the first at distance 1.
    assert_eq!(nearest("nested", 10), [7, 20, 21]);
    let message = common::error(&conn, "SELECT annoy_scan(1, '[1, 0]')");
    assert!(message.contains("inside knn_exact only"), "{message}");
    conn.execute_batch("CREATE VIEW bad AS SELECT id, v, annoy_scan(5, v) AS x FROM p")
        .unwrap();
    let message = common::error(&conn, "SELECT * FROM bad");
    assert!(message.contains("unsafe use of annoy_scan"), "{message}");
    // No statement over the view that searches is left open.
    conn.close().map_err(|(_, error)| error).unwrap();
}

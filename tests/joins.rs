//! Searches inside of other statements, and what the planner makes of them. The plans must be those of any SQLite from 3.38
//! on, so only what matters is compared: which table is the outer loop, and whether rows are sorted.

mod common;

use common::{one, rows, stat};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Row i is at (i, 0); `q` has three queries, one of them NULL.
fn line() -> Connection {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, colour TEXT, v BLOB, note TEXT);
         WITH RECURSIVE c(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM c WHERE i < 1999)
         INSERT INTO p(id, colour, v) SELECT i, CASE i % 100 WHEN 7 THEN 'red' END, vec_f32(json_array(i, 0)) FROM c;
         CREATE INDEX by_colour ON p(colour);
         CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2);
         CREATE TABLE q(id INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO q VALUES(1, '[3, 0]'), (2, '[40.2, 0]'), (3, NULL);",
    )
    .unwrap();
    conn
}

fn text(conn: &Connection, sql: &str) -> String {
    let show = |value: Value| match value {
        Value::Null => "-".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(text) => text,
        Value::Blob(_) => "blob".to_owned(),
    };
    let rows = rows(conn, sql).into_iter();
    rows.map(|row| row.into_iter().map(show).collect::<Vec<_>>().join("|"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_search_stands_wherever_a_table_may() {
    let conn = line();
    conn.execute_batch(
        "CREATE VIEW near_ten AS SELECT rowid AS id, distance FROM knn_annoy('ix', '[10.2, 0]', 3);
         CREATE TABLE kept(query, id, distance)",
    )
    .unwrap();
    for (sql, expected) in [
        // Both directions, LEFT JOIN.
        (
            "SELECT q.id, n.rowid FROM q, knn_annoy('ix', q.v, 2) n ORDER BY 1, n.distance, 2",
            "1|3 1|2 2|40 2|41",
        ),
        (
            "SELECT q.id, n.rowid FROM knn_annoy('ix', q.v, 2) n JOIN q ORDER BY 1, n.distance, 2",
            "1|3 1|2 2|40 2|41",
        ),
        (
            "SELECT q.id, n.rowid FROM q LEFT JOIN knn_annoy('ix', q.v, 1) n ORDER BY 1",
            "1|3 2|40 3|-",
        ),
        (
            "SELECT p.id FROM p JOIN knn_exact('p', 'v', '[10.2, 0]', 2, '{\"metric\":\"l2\"}') n ON n.rowid = p.id ORDER BY n.distance",
            "10 11",
        ),
        // CTE, UNION, view, subquery, EXISTS, OR, NULL.
        (
            "WITH n AS (SELECT rowid AS id, distance FROM knn_annoy('ix', '[10.2, 0]', 3)) SELECT id FROM n ORDER BY distance",
            "10 11 9",
        ),
        (
            "SELECT rowid FROM (SELECT rowid FROM knn_annoy('ix', '[10.2, 0]', 2)) UNION SELECT rowid FROM knn_annoy('ix', '[11.2, 0]', 2)",
            "10 11 12",
        ),
        ("SELECT id FROM near_ten ORDER BY distance", "10 11 9"),
        (
            "SELECT (SELECT rowid FROM knn_annoy('ix', q.v, 1)) FROM q",
            "3 40 -",
        ),
        (
            "SELECT count(*) FROM p WHERE id IN (SELECT rowid FROM knn_annoy('ix', '[10.2, 0]', 5))",
            "5",
        ),
        (
            "SELECT rowid FROM knn_annoy('ix', '[0, 0]') n WHERE EXISTS(SELECT 1 FROM p WHERE p.id = n.rowid AND colour = 'red') LIMIT 3",
            "7 107 207",
        ),
        (
            "SELECT n.rowid FROM knn_annoy('ix', '[0, 0]') n JOIN p ON p.id = n.rowid WHERE p.colour IS NOT NULL OR p.id = 3 LIMIT 3",
            "3 7 107",
        ),
        (
            "SELECT n.rowid FROM knn_annoy('ix', '[0, 0]') n JOIN p ON p.id = n.rowid WHERE p.colour IS NULL AND n.rowid % 2 LIMIT 3",
            "1 3 5",
        ),
        (
            "SELECT n.rowid FROM knn_annoy('ix', '[0, 0]') n JOIN p ON p.id = n.rowid WHERE p.note IS NOT NULL LIMIT 3",
            "",
        ),
        // Pages, the other end, the whole table.
        (
            "SELECT rowid FROM knn_annoy('ix', '[0, 0]') ORDER BY distance LIMIT 2 OFFSET 1500",
            "1500 1501",
        ),
        (
            "SELECT rowid FROM knn_annoy('ix', '[0, 0]') ORDER BY distance DESC LIMIT 2",
            "1999 1998",
        ),
        (
            "SELECT count(*), max(distance) FROM knn_annoy('ix', '[0, 0]', 1000000)",
            "2000|1999.0",
        ),
        (
            "SELECT rowid FROM knn_annoy('ix', '[0, 0]') WHERE distance BETWEEN 4 AND 6",
            "4 5 6",
        ),
        (
            "SELECT rowid, count(*) FROM knn_annoy('ix', '[0, 0]', 4) GROUP BY rowid % 2 ORDER BY 1",
            "0|2 1|2",
        ),
        (
            "SELECT DISTINCT rowid / 2 FROM knn_annoy('ix', '[0, 0]') LIMIT 3",
            "0 1 2",
        ),
        // k nearest of every row; all pairs within a distance.
        (
            "SELECT count(*), sum(a.id = n.rowid) FROM p a, knn_annoy('ix', a.v, 3) n WHERE a.id < 200",
            "600|200",
        ),
        (
            "SELECT count(*) FROM p a, knn_exact('p', 'v', a.v, NULL, '{\"metric\":\"l2\"}') n WHERE a.id < 100 AND n.distance <= 2 AND n.rowid > a.id",
            "200",
        ),
        // The MATCH form.
        (
            "SELECT rowid FROM ix WHERE v MATCH '[10.2, 0]' AND k = 2",
            "10 11",
        ),
        (
            "SELECT rowid FROM ix WHERE v MATCH '[10.2, 0]' AND k = 2 AND rowid IN (1, 2, 3)",
            "3 2",
        ),
        (
            "SELECT q.id, ix.rowid FROM q JOIN ix ON ix.v MATCH q.v AND ix.k = 1 ORDER BY 1",
            "1|3 2|40",
        ),
    ] {
        assert_eq!(text(&conn, sql), expected, "{sql}");
    }
    conn.execute_batch(
        "INSERT INTO kept SELECT q.id, n.rowid, n.distance FROM q, knn_annoy('ix', q.v, 2) n;
         UPDATE p SET note = 'near' FROM knn_annoy('ix', '[10.2, 0]', 2) n WHERE n.rowid = p.id;
         DELETE FROM p WHERE id IN (SELECT rowid FROM knn_annoy('ix', '[20, 0]', 2));",
    )
    .unwrap();
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM kept"), 4);
    assert_eq!(text(&conn, "SELECT id FROM p WHERE note = 'near'"), "10 11");
    assert_eq!(
        text(&conn, "SELECT rowid FROM knn_annoy('ix', '[20, 0]', 2)"),
        "21 18"
    );
}

/// The lines of a plan, the names of the loops alone.
fn plan(conn: &Connection, sql: &str) -> String {
    rows(conn, &format!("EXPLAIN QUERY PLAN {sql}"))
        .into_iter()
        .map(|row| match &row[3] {
            Value::Text(line) => line.split(" VIRTUAL").next().unwrap_or_default().to_owned(),
            other => format!("{other:?}"),
        })
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn a_plain_search_is_the_outer_loop_and_a_search_of_queries_the_inner_one() {
    let conn = line();
    let found = "SEARCH p USING INTEGER PRIMARY KEY (rowid=?)";
    let sort = "USE TEMP B-TREE FOR ORDER BY";
    for (sql, expected) in [
        (
            "SELECT * FROM p JOIN knn_annoy('ix', '[0,0]', 5) n ON p.id = n.rowid",
            format!("SCAN n; {found}"),
        ),
        (
            "SELECT * FROM p JOIN knn_annoy('ix', '[0,0]') n ON p.id = n.rowid WHERE colour = 'red' LIMIT 5",
            format!("SCAN n; {found}"),
        ),
        (
            "SELECT * FROM p JOIN knn_annoy('ix', '[0,0]') n ON p.id = n.rowid ORDER BY n.distance LIMIT 5",
            format!("SCAN n; {found}"),
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[0,0]', 5) n JOIN p ON p.id = n.rowid ORDER BY n.distance, n.rowid",
            format!("SCAN n; {found}"),
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[0,0]', 5) n ORDER BY distance DESC",
            format!("SCAN n; {sort}"),
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[0,0]', 5) n ORDER BY rowid",
            format!("SCAN n; {sort}"),
        ),
        (
            "SELECT * FROM knn_annoy('ix', '[0,0]') n ORDER BY distance LIMIT 5 OFFSET 5",
            "SCAN n".to_owned(),
        ),
        (
            "SELECT * FROM knn_annoy('ix', q.v, 5) n, q",
            "SCAN q; SCAN n".to_owned(),
        ),
        (
            "SELECT * FROM q LEFT JOIN knn_exact('p', 'v', q.v, 5) n",
            "SCAN q; SCAN n".to_owned(),
        ),
        (
            "SELECT * FROM ix, q WHERE ix.v MATCH q.v AND k = 3",
            "SCAN q; SCAN ix".to_owned(),
        ),
    ] {
        assert_eq!(
            plan(&conn, sql).replace(" LEFT-JOIN", ""),
            expected,
            "{sql}"
        );
    }
    // Whatever ANALYZE has told the planner: rows come nearest first only from the outer loop. A statement that sorts may
    // search for each row instead.
    conn.execute_batch(
        "CREATE TABLE few(id INTEGER PRIMARY KEY); INSERT INTO few VALUES(7), (3); ANALYZE",
    )
    .unwrap();
    for (sql, expected) in [
        (
            "SELECT n.rowid FROM knn_annoy('ix', '[9,0]') n JOIN few ON few.id = n.rowid LIMIT 1",
            "7",
        ),
        (
            "SELECT n.rowid FROM few JOIN knn_annoy('ix', '[9,0]') n ON few.id = n.rowid WHERE few.id < 100 LIMIT 1",
            "7",
        ),
        (
            "SELECT n.rowid FROM few, knn_exact('p', 'v', '[9,0]', NULL, '{\"metric\":\"l2\"}') n WHERE few.id = n.rowid LIMIT 2",
            "7 3",
        ),
    ] {
        assert!(
            plan(&conn, sql).starts_with("SCAN n; SEARCH"),
            "{}",
            plan(&conn, sql)
        );
        assert_eq!(text(&conn, sql), expected, "{sql}");
    }
    let sql = "SELECT n.rowid FROM knn_annoy('ix', '[9,0]') n JOIN few ON few.id = n.rowid ORDER BY n.distance LIMIT 1";
    assert_eq!(text(&conn, sql), "7");
    // One search meets both sides of an OR, or the nearest of one side would come before those of the other.
    let (red, far) = (
        "rowid IN (SELECT id FROM p WHERE colour = 'red')",
        "rowid IN (SELECT id FROM p WHERE id BETWEEN 4 AND 6)",
    );
    for (from, and) in [
        ("knn_annoy('ix', '[8,0]')", ""),
        (
            "knn_exact('p', 'v', '[8,0]', NULL, '{\"metric\":\"l2\"}')",
            "",
        ),
        ("ix", "v MATCH '[8,0]' AND "),
    ] {
        for sides in [[red, far], [far, red]] {
            let sql = format!(
                "SELECT rowid FROM {from} WHERE {and}({} OR {}) LIMIT 3",
                sides[0], sides[1]
            );
            assert!(
                plan(&conn, &sql).starts_with("SCAN "),
                "{}",
                plan(&conn, &sql)
            );
            assert_eq!(text(&conn, &sql), "7 6 5", "{sql}");
        }
    }
    assert_eq!(
        text(
            &conn,
            "SELECT rowid FROM ix WHERE v MATCH '[8,0]' AND k = 9 AND (rowid = 7 OR rowid = 6)"
        ),
        "7 6"
    );
    assert_eq!(
        text(
            &conn,
            "SELECT rowid FROM ix WHERE rowid = 7 OR rowid = 6 ORDER BY 1"
        ),
        "6 7"
    );
    // A set is made once, not a search for each of its members.
    let sql = "SELECT rowid FROM knn_annoy('ix', '[0,0]', 5) n WHERE rowid IN (SELECT id FROM p WHERE colour = 'red') ORDER BY distance";
    assert!(
        plan(&conn, sql).starts_with("SCAN n; LIST SUBQUERY"),
        "{}",
        plan(&conn, sql)
    );
    assert!(!plan(&conn, sql).contains(sort));
    assert_eq!(text(&conn, sql), "7 107 207 307 407");
    assert_eq!(stat::<i64>(&conn, "queries"), 1);
}

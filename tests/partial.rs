//! Partial indexes: `annoy(t, v, where='...')` has the rows that satisfy the expression, whatever happens to them.
//!
//! The oracle is `knn_exact` over a view with the same WHERE, which no index helps with.

mod common;

use common::{error, ids, memory, one, rows, stat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;

const DIM: usize = 6;

fn vector(rng: &mut StdRng) -> Vec<u8> {
    (0..DIM)
        .flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes())
        .collect()
}

/// `docs(id, slug UNIQUE, lang, n, v)` with a view `english` of the rows that `docs_en` indexes.
fn docs(conn: &Connection, n: usize, rng: &mut StdRng) {
    conn.execute_batch(
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, slug TEXT UNIQUE, lang TEXT, n INTEGER, v BLOB);
         CREATE VIEW english AS SELECT id, v FROM docs WHERE lang = 'en' AND n > 2;",
    )
    .unwrap();
    for _ in 0..n {
        insert(conn, "INSERT", rng);
    }
    conn.execute_batch(
        "CREATE VIRTUAL TABLE docs_en USING annoy(docs, v, where='lang = ''en'' AND n > 2')",
    )
    .unwrap();
}

fn insert(conn: &Connection, how: &str, rng: &mut StdRng) {
    let lang = ["en", "de", "fr"][rng.random_range(0..3)];
    let slug = format!("s{}", rng.random_range(0..5_000));
    let _ = conn.execute(
        &format!("{how} INTO docs(slug, lang, n, v) VALUES(?1, ?2, ?3, ?4)"),
        (slug, lang, rng.random_range(0..6), vector(rng)),
    );
}

/// The index answers what the view does, on every path.
fn check(conn: &Connection, rng: &mut StdRng, what: &str) {
    for _ in 0..3 {
        let query = vector(rng);
        let answer = |sql: &str| -> Vec<(i64, f64)> {
            conn.prepare_cached(sql)
                .unwrap()
                .query_map([&query], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap_or_else(|e| panic!("{what}: {sql}: {e}"))
        };
        let truth = answer("SELECT rowid, distance FROM knn_exact('english', 'v', ?1, 9)");
        for sql in [
            "SELECT rowid, distance FROM knn_annoy('docs_en', ?1, 9)",
            "SELECT rowid, distance FROM knn_annoy('docs_en', ?1) LIMIT 9",
            "SELECT rowid, distance FROM docs_en WHERE v MATCH ?1 AND k = 9",
            "SELECT rowid, distance FROM knn_annoy('docs_en', ?1, 9) WHERE rowid IN (SELECT id FROM docs)",
        ] {
            assert_eq!(answer(sql), truth, "{what}: {sql}");
        }
    }
    let listed = ids(conn, "SELECT rowid FROM docs_en ORDER BY rowid");
    assert_eq!(
        listed,
        ids(
            conn,
            "SELECT id FROM english WHERE v IS NOT NULL ORDER BY id"
        ),
        "{what}"
    );
}

#[test]
fn rows_enter_and_leave_a_partial_index_with_every_kind_of_write() {
    let seed: u64 = 20_261_128;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let conn = memory();
    docs(&conn, 400, &mut rng);
    check(&conn, &mut rng, "after the build");
    for step in 0..400 {
        let id: i64 = one(&conn, "SELECT id FROM docs ORDER BY random() LIMIT 1");
        let rng = &mut rng;
        let what = rng.random_range(0..14);
        let run = |sql: &str| {
            // Some break a UNIQUE constraint, and change nothing.
            let _ = conn.execute_batch(sql);
        };
        match what {
            0 => insert(&conn, "INSERT", rng),
            1 => insert(&conn, "INSERT OR REPLACE", rng),
            2 => run(&format!(
                "UPDATE docs SET lang = 'en', n = 5 WHERE id = {id}"
            )),
            3 => run(&format!("UPDATE docs SET lang = 'de' WHERE id = {id}")),
            4 => run(&format!("UPDATE docs SET n = n + 1 WHERE id = {id}")),
            5 => run(&format!("UPDATE docs SET lang = NULL WHERE id = {id}")),
            6 => run(&format!("DELETE FROM docs WHERE id = {id}")),
            7 => run(&format!(
                "UPDATE OR REPLACE docs SET id = id + 1 WHERE id = {id}"
            )),
            8 => run(&format!(
                "UPDATE OR REPLACE docs SET slug = (SELECT slug FROM docs ORDER BY random() LIMIT 1) WHERE id = {id}"
            )),
            9 => {
                conn.execute("UPDATE docs SET v = ?1 WHERE id = ?2", (vector(rng), id))
                    .unwrap();
            }
            10 => run(&format!("UPDATE docs SET v = NULL WHERE id = {id}")),
            11 => {
                run("BEGIN");
                run("UPDATE docs SET lang = 'en' WHERE id % 7 = 3");
                check(&conn, rng, "in a transaction");
                run(if rng.random_range(0..2) == 0 {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                });
            }
            12 => run(if rng.random_range(0..2) == 0 {
                "PRAGMA recursive_triggers = ON"
            } else {
                "PRAGMA recursive_triggers = OFF"
            }),
            _ => run("INSERT INTO docs_en(docs_en) VALUES('refresh')"),
        }
        check(&conn, rng, &format!("step {step}, kind {what}"));
        if step % 50 == 49 {
            conn.execute_batch("INSERT INTO docs_en(docs_en) VALUES('integrity-check')")
                .unwrap();
        }
    }
    assert!(
        one::<i64>(&conn, "SELECT count(*) FROM english") > 20,
        "the test has rows to find"
    );
}

#[test]
fn what_happens_outside_of_a_partial_index_is_not_noted() {
    let mut rng = StdRng::seed_from_u64(1);
    let conn = memory();
    docs(&conn, 300, &mut rng);
    conn.execute_batch(
        "UPDATE docs SET v = vec_f32('[1,2,3,4,5,6]'), n = 0 WHERE lang = 'de';
         DELETE FROM docs WHERE lang = 'fr';
         INSERT INTO docs(slug, lang, n, v) VALUES ('new', 'de', 5, NULL);
         UPDATE docs SET slug = slug || '!'",
    )
    .unwrap();
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM docs_en_changes"), 0);
    conn.execute_batch("UPDATE docs SET n = 4 WHERE id = (SELECT min(id) FROM english)")
        .unwrap();
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM docs_en_changes"), 1);
    check(&conn, &mut rng, "at the end");
}

#[test]
fn knn_exact_takes_no_partial_index_for_the_whole_table() {
    let mut rng = StdRng::seed_from_u64(2);
    let conn = memory();
    docs(&conn, 200, &mut rng);
    let all = "SELECT rowid FROM knn_exact('docs', 'v', '[1,0,0,0,0,0]', 1000)";
    assert_eq!(
        rows(&conn, all).len() as i64,
        one::<i64>(&conn, "SELECT count(*) FROM docs")
    );
    assert_eq!(stat::<String>(&conn, "answered_by"), "table");
    // Several indexes on one table: each has its rows, and only the whole one answers for the table.
    conn.execute_batch(
        "CREATE VIRTUAL TABLE docs_de USING annoy(docs, v, where='lang = ''de''');
         CREATE VIRTUAL TABLE docs_all USING annoy(docs, v);
         UPDATE docs SET lang = 'de' WHERE id % 5 = 0",
    )
    .unwrap();
    assert_eq!(
        rows(&conn, all).len() as i64,
        one::<i64>(&conn, "SELECT count(*) FROM docs")
    );
    assert_eq!(stat::<String>(&conn, "answered_by"), "index, exactly");
    for (index, condition) in [("docs_de", "lang = 'de'"), ("docs_all", "1")] {
        assert_eq!(
            rows(
                &conn,
                &format!("SELECT rowid FROM knn_annoy('{index}', '[1,0,0,0,0,0]', 1000)")
            )
            .len() as i64,
            one::<i64>(
                &conn,
                &format!("SELECT count(*) FROM docs WHERE {condition}")
            ),
        );
    }
    check(&conn, &mut rng, "beside other indexes");
    conn.execute_batch("DROP TABLE docs_de").unwrap();
    check(&conn, &mut rng, "after one has gone");
}

#[test]
fn a_partial_index_survives_renames_of_everything_it_names() {
    let mut rng = StdRng::seed_from_u64(3);
    let conn = memory();
    docs(&conn, 200, &mut rng);
    conn.execute_batch(
        "DROP VIEW english; ALTER TABLE docs RENAME COLUMN lang TO \"the language\"",
    )
    .unwrap();
    conn.execute_batch(
        "ALTER TABLE docs RENAME COLUMN n TO number; ALTER TABLE docs RENAME TO papers",
    )
    .unwrap();
    conn.execute_batch(
        "ALTER TABLE docs_en RENAME TO papers_en;
         UPDATE papers SET \"the language\" = 'en', number = 7 WHERE id % 2 = 0;
         UPDATE papers SET number = 1 WHERE id % 5 = 0",
    )
    .unwrap();
    let inside = "SELECT id FROM papers WHERE \"the language\" = 'en' AND number > 2 ORDER BY id";
    let found = "SELECT rowid FROM knn_annoy('papers_en', '[1,0,0,0,0,0]', 1000) ORDER BY rowid";
    assert_eq!(ids(&conn, found), ids(&conn, inside));
    conn.execute_batch("INSERT INTO papers_en(papers_en) VALUES('rebuild')")
        .unwrap();
    conn.execute_batch("UPDATE papers SET number = 9 WHERE id % 10 = 0")
        .unwrap();
    assert_eq!(ids(&conn, found), ids(&conn, inside));
    conn.execute_batch("INSERT INTO papers_en(papers_en) VALUES('integrity-check')")
        .unwrap();
    let shown: String = one(
        &conn,
        "SELECT value FROM annoy_info('papers_en') WHERE key = 'where'",
    );
    assert_eq!(shown.trim(), "\"the language\" = 'en' AND number > 2");
    assert!(error(&conn, "ALTER TABLE papers DROP COLUMN number").contains("number"));
}

#[test]
fn expressions_of_any_form_are_taken_whole() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b AS (json_extract(a, '$.x')) VIRTUAL, v BLOB);
         INSERT INTO t(a, v) VALUES('{\"x\":1}', '[1,0]'), ('{\"x\":2}', '[0,1]'), (NULL, '[1,1]'), ('{\"x\":1}', NULL)",
    )
    .unwrap();
    for (filter, want) in [
        ("b = 1", vec![1]),
        ("b = 1 -- only these", vec![1]),
        ("b = 1 OR a IS NULL", vec![1, 3]),
        ("t.a IS NOT NULL", vec![1, 2]),
        ("/* all */ 1", vec![1, 2, 3]),
        ("0", vec![]),
        ("id > 1", vec![2, 3]),
        ("v IS NOT NULL", vec![1, 2, 3]),
        ("a LIKE '%:* where: */%' OR b IN (2, 3)", vec![2]),
    ] {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE i USING annoy(t, v, where='{}')",
            filter.replace('\'', "''")
        ))
        .unwrap_or_else(|e| panic!("{filter}: {e}"));
        let found = || {
            ids(
                &conn,
                "SELECT rowid FROM knn_annoy('i', '[1,0]', 10) ORDER BY rowid",
            )
        };
        assert_eq!(found(), want, "{filter}");
        conn.execute_batch("BEGIN; UPDATE t SET a = '{\"x\":2}'")
            .unwrap();
        let inside = ids(
            &conn,
            &format!("SELECT id FROM t WHERE v IS NOT NULL AND ({filter}\n) ORDER BY id"),
        );
        assert_eq!(found(), inside, "{filter}, changed");
        conn.execute_batch("ROLLBACK").unwrap();
        assert_eq!(found(), want, "{filter}, rolled back");
        conn.execute_batch("DROP TABLE i").unwrap();
    }
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM sqlite_schema"), 1);
}

/// Each write takes row 10 out of the index, or makes another of it.
#[test]
fn what_equal_values_hide_and_what_replace_removes_is_noted() {
    let cases = [
        // (columns, options, write)
        (
            "lang TEXT",
            "where='lang = ''en'''",
            "INSERT OR REPLACE INTO t(id, lang, v) SELECT id, 'de', v FROM t WHERE id = 10",
        ),
        (
            "lang TEXT COLLATE NOCASE",
            "where='lang GLOB ''en'''",
            "UPDATE t SET lang = 'EN' WHERE id = 10",
        ),
        (
            "n",
            "where='typeof(n) = ''integer'''",
            "UPDATE t SET n = 3.0 WHERE id = 10",
        ),
        (
            "u TEXT NOT NULL DEFAULT '10' UNIQUE",
            "trees=1",
            "INSERT OR REPLACE INTO t(id, u, v) VALUES(77, NULL, '[77, 1]')",
        ),
        (
            "u TEXT NOT NULL DEFAULT '10' UNIQUE",
            "trees=1",
            "UPDATE OR REPLACE t SET u = NULL WHERE id = 20",
        ),
        (
            "g INTEGER",
            "group=g, combine=mean",
            "INSERT OR REPLACE INTO t(id, g, v) VALUES(10, 90, '[0, 90]')",
        ),
        (
            "g",
            "group=g, combine=mean",
            "UPDATE t SET g = 5.0 WHERE id = 10",
        ),
        (
            "g INTEGER",
            "group=g, combine=mean, where='rowid < 40'",
            "UPDATE t SET id = 60 WHERE id = 10",
        ),
    ];
    for (columns, options, write) in cases {
        let conn = memory();
        let (name, value) = match columns.split(' ').next() {
            Some("lang") => ("lang", "'en'"),
            Some("n") => ("n", "3"),
            Some("u") => ("u", "i"),
            _ => ("g", "i / 2"),
        };
        conn.execute_batch(&format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v, {columns});
             CREATE INDEX by_it ON t({name});
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
             INSERT INTO t(id, v, {name}) SELECT i, vec_f32('[' || i || ', 1]'), {value} FROM n"
        ))
        .unwrap();
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE i USING annoy(t, v, metric=l2, {options})"
        ))
        .unwrap();
        let answers = || rows(&conn, "SELECT * FROM knn_annoy('i', '[10, 1]', 60)");
        // From now on it is the triggers alone that tell.
        answers();
        let done = conn.execute(write, []).unwrap();
        assert_eq!(done, 1, "{write}");
        let found = answers();
        conn.execute_batch("INSERT INTO i(i) VALUES('integrity-check')")
            .unwrap_or_else(|e| panic!("{options}, {write}: {e}"));
        conn.execute_batch("INSERT INTO i(i) VALUES('rebuild')")
            .unwrap();
        assert_eq!(found, answers(), "{options}, {write}");
    }
}

/// SQLite asks the clock for the value 'now' wherever it comes from: only whoever computes the expression finds out.
#[test]
fn an_expression_that_asks_the_clock_is_refused_whether_it_says_so_or_a_row_does() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, y TEXT, d TEXT, v BLOB);
         INSERT INTO t(y, d, v) VALUES('2024-05-01', 'localtime', '[1,0]'), ('1999-05-01', 'x', '[0,1]'), (NULL, 'x', '[1,1]')",
    )
    .unwrap();
    let create = |filter: &str| {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE i USING annoy(t, v, where='{}')",
            filter.replace('\'', "''")
        ))
    };
    let says = "a function of date and time changes its answer while no row does";
    for (filter, row) in [
        ("y > date('now')", ""),
        ("y > DATE (\n'NOW')", ""),
        ("y > date('n' || 'ow')", ""),
        ("y > strftime('%Y')", ""),
        ("y > 1 OR julianday() > 2", ""),
        ("datetime(y, d) > '2000'", "row 1 of t: "),
        ("datetime(t.y, t.d) > '2000'", "row 1 of t: "),
        ("date(coalesce(y, 'now')) > '2000'", ""),
        (
            "CASE WHEN id = 3 THEN date('n' || substr(d || 'ow', 2)) END > '2000'",
            "row 3 of t: ",
        ),
    ] {
        let error = create(filter).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("{row}{says}")),
            "{filter}: {error}"
        );
    }
    assert_eq!(
        one::<i64>(&conn, "SELECT count(*) FROM temp.sqlite_schema"),
        0
    );
    // What only looks like it is none of it.
    create("y <> 'date(now' /* date('now') */").unwrap();
    conn.execute_batch("DROP TABLE i").unwrap();

    create("date(y) > '2000-01-01'").unwrap();
    let found = || {
        ids(
            &conn,
            "SELECT rowid FROM knn_annoy('i', '[1,0]', 10) ORDER BY 1",
        )
    };
    assert_eq!(found(), [1]);
    conn.execute_batch(
        "INSERT INTO t(y, v) VALUES('2023-01-01', '[1,0]'), ('1823-01-01', '[1,0]')",
    )
    .unwrap();
    assert_eq!(found(), [1, 4]);
    conn.execute_batch("INSERT INTO i(i) VALUES('refresh')")
        .unwrap();
    assert_eq!(found(), [1, 4]);
    conn.execute_batch("UPDATE t SET y = 'now' WHERE id IN (2, 4)")
        .unwrap();
    for command in ["refresh", "rebuild"] {
        let error = error(&conn, &format!("INSERT INTO i(i) VALUES('{command}')"));
        assert!(error.ends_with(&format!("row 2 of t: {says}")), "{error}");
    }
    conn.execute_batch(
        "UPDATE t SET y = '2022-01-01' WHERE y = 'now'; INSERT INTO i(i) VALUES('refresh')",
    )
    .unwrap();
    assert_eq!(found(), [1, 2, 4]);
}

//! The edges that every kind of index and every form of a search meets: few rows, equal rows, odd numbers, odd tables, odd
//! names. All forms must give the rows and distances of a scan of the table.
//!
//! | edge | here, or in |
//! |---|---|
//! | n = 0, 1, less than k; k = 0, 1, 10^6 | `no_number_of_rows...` |
//! | k NULL, negative, text | `knn.rs` `a_query_that_makes_no_sense...`, `sql/errors.sql` |
//! | equal and duplicate vectors, zero, denormal, huge | `no_number_of_rows...` |
//! | NaN and infinity; empty and odd blobs | `what_is_no_vector...`; `vector_sql.rs` `what_is_no_vector_is_refused...` |
//! | NULL vectors | `no_number_of_rows...`, `index.rs` `an_empty_table_is_indexed...` |
//! | dim 1 and 65,536 | `no_number_of_rows...` |
//! | rowids negative and sparse | `no_number_of_rows...` |
//! | WITHOUT ROWID, no INTEGER PRIMARY KEY, views as tables | `knn.rs` `views_are_searched...`, `sql/errors.sql` |
//! | generated columns, STRICT; quotes, spaces, unicode in names | `odd_tables_and_names...` |
//! | attached, temp, `:memory:`, read-only database and folder | `movement.rs`, `index.rs` `indexes_live_in...` |
//! | ALTER RENAME, DROP and recreate, `.dump`, VACUUM, backup | `movement.rs`; by option: `partial.rs`, `groups.rs` |
//! | DELETE without WHERE, REPLACE without `recursive_triggers` | `index.rs` `every_kind_of_write...`, `common/world.rs` |
//! | WAL with a reader on an old snapshot | `transactions.rs` |

mod common;

use common::{error, memory, rows};
use rusqlite::Connection;
use rusqlite::types::Value;

/// A rowid and its vector.
type Row = (i64, Option<Vec<f32>>);

/// Kinds of index: options, and whether they are over all rows.
const KINDS: [&str; 6] = [
    "",
    ", storage=inline, trees=3",
    ", store=none",
    ", where='id > -9223372036854775808'",
    ", group=id, combine=best",
    ", group=id, combine=mean",
];

/// Makes the indexes `i0`, `i1`, ... over `t(id, v)`.
fn index_all(conn: &Connection, metric: &str) {
    for (i, options) in KINDS.iter().enumerate() {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE i{i} USING annoy(t, v, metric={metric}{options})"
        ))
        .unwrap_or_else(|error| panic!("{options}: {error}"));
    }
}

fn ask(conn: &Connection, what: &str, sql: &str, query: &[f32], k: i64) -> Vec<Vec<Value>> {
    let query: Vec<u8> = query.iter().flat_map(|x| x.to_le_bytes()).collect();
    let found = conn.prepare(sql).and_then(|mut statement| {
        statement
            .query_map((&query, k), |row| Ok(vec![row.get(0)?, row.get(1)?]))?
            .collect()
    });
    found.unwrap_or_else(|error| panic!("{what}: {sql}: {error}"))
}

/// Every form of a search through every index gives what a scan of the table gives.
fn all_agree(conn: &Connection, what: &str, metric: &str, query: &[f32]) {
    conn.execute_batch("CREATE VIEW IF NOT EXISTS bare AS SELECT id, v FROM t")
        .unwrap();
    for k in [0, 1, 7, 1_000_000] {
        let truth = format!(
            "SELECT rowid, distance FROM knn_exact('bare', 'v', ?1, ?2, '{{\"metric\":\"{metric}\"}}')"
        );
        let truth = ask(conn, what, &truth, query, k);
        for i in 0..KINDS.len() {
            let mut forms = vec![
                format!("SELECT rowid, distance FROM knn_annoy('i{i}', ?1, ?2)"),
                format!("SELECT rowid, distance FROM knn_annoy('i{i}', ?1, ?2, 100000000)"),
                format!("SELECT rowid, distance FROM i{i} WHERE v MATCH ?1 AND k = ?2"),
                format!("SELECT rowid, distance FROM knn_annoy('i{i}', ?1) LIMIT ?2"),
            ];
            if i == 0 {
                let exact = format!("'{{\"metric\":\"{metric}\"}}'");
                forms.push(format!(
                    "SELECT rowid, distance FROM knn_exact('t', 'v', ?1, ?2, {exact})"
                ));
                forms.push("SELECT id, distance FROM (SELECT rowid AS id, distance FROM knn_annoy('i0', ?1, ?2) WHERE rowid IN (SELECT id FROM t))".into());
            }
            for form in forms {
                assert_eq!(
                    ask(conn, what, &form, query, k),
                    truth,
                    "{what}: k = {k}: {form}"
                );
            }
        }
    }
}

/// A table `t` of these rows.
fn table(conn: &Connection, rows: &[Row]) {
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        .unwrap();
    insert(conn, rows);
}

fn insert(conn: &Connection, rows: &[Row]) {
    for (id, vector) in rows {
        let blob: Option<Vec<u8>> = vector
            .as_ref()
            .map(|v| v.iter().flat_map(|x| x.to_le_bytes()).collect());
        conn.execute("INSERT INTO t VALUES(?1, ?2)", (id, blob))
            .unwrap();
    }
}

#[test]
fn no_number_of_rows_and_no_kind_of_number_makes_an_index_differ_from_its_table() {
    let some = |id: i64, v: &[f32]| (id, Some(v.to_vec()));
    let many = |n: i64, v: fn(i64) -> [f32; 3]| (1..=n).map(|i| (i, Some(v(i).to_vec()))).collect();
    let wide = |x: f32| {
        (0..65_536)
            .map(|i| (i % 5) as f32 + x)
            .collect::<Vec<f32>>()
    };
    let edges: Vec<(&str, Vec<Row>, Vec<f32>)> = vec![
        ("no row", vec![], vec![1.0, 2.0, 3.0]),
        (
            "one row",
            vec![some(1, &[1.0, 2.0, 3.0])],
            vec![1.0, 2.0, 3.0],
        ),
        (
            "fewer than k",
            many(4, |i| [i as f32, 1.0, -1.0]),
            vec![2.0, 1.0, 0.0],
        ),
        (
            "all equal",
            many(300, |_| [1.0, -2.0, 0.5]),
            vec![1.0, -2.0, 0.5],
        ),
        (
            "in pairs",
            many(60, |i| [(i / 2) as f32, 1.0, 2.0]),
            vec![10.0, 1.0, 2.0],
        ),
        ("all zero", many(70, |_| [0.0; 3]), vec![1.0, 0.0, 0.0]),
        (
            "some zero",
            many(90, |i| {
                if i % 3 == 0 {
                    [0.0; 3]
                } else {
                    [i as f32, 1.0, 0.0]
                }
            }),
            vec![0.0; 3],
        ),
        (
            "denormal",
            many(70, |i| [i as f32 * 1e-42, 2e-44, 0.0]),
            vec![3e-42, 1e-44, 0.0],
        ),
        (
            "huge and tiny",
            many(70, |i| {
                if i % 2 == 0 {
                    [1e18 * i as f32, 1.0, 0.0]
                } else {
                    [1e-20, i as f32, 0.0]
                }
            }),
            vec![1e18, 1e-20, 1.0],
        ),
        (
            "rowids at the ends",
            [
                i64::MIN + 1,
                -1_000_000_000_000,
                -1,
                0,
                7,
                1_000_000_000_000,
                i64::MAX,
            ]
            .iter()
            .map(|&id| some(id, &[(id % 7) as f32, 1.0, 0.0]))
            .collect(),
            vec![1.0, 1.0, 0.0],
        ),
        (
            "NULL between",
            (0..50)
                .map(|i| (i, (i % 4 != 0).then(|| vec![i as f32, 1.0, 1.0])))
                .collect(),
            vec![9.0, 1.0, 1.0],
        ),
        ("all NULL", (0..5).map(|i| (i, None)).collect(), vec![1.0]),
        (
            "one dimension",
            (0..80)
                .map(|i| some(i, &[((i * 37) % 80) as f32 - 40.0]))
                .collect(),
            vec![3.5],
        ),
        (
            "65,536 dimensions",
            (0..3).map(|i| (i, Some(wide(i as f32)))).collect(),
            wide(1.2),
        ),
    ];
    for (what, rows, query) in edges {
        // Wide vectors are slow, and no metric treats them otherwise.
        let metrics = ["l2", "cosine", "dot"];
        for metric in &metrics[..if query.len() > 100 { 1 } else { 3 }] {
            let what = format!("{what}, {metric}");
            let conn = memory();
            table(&conn, &rows);
            index_all(&conn, metric);
            all_agree(&conn, &what, metric, &query);
            // The same with the rows as changes, then folded in, and then with none left.
            conn.execute_batch("CREATE TABLE kept AS SELECT * FROM t; DELETE FROM t")
                .unwrap();
            all_agree(&conn, &format!("{what}, deleted"), metric, &query);
            conn.execute_batch("INSERT OR REPLACE INTO t SELECT * FROM kept; INSERT OR REPLACE INTO t SELECT * FROM kept")
                .unwrap();
            all_agree(&conn, &format!("{what}, changed"), metric, &query);
            for command in ["refresh", "rebuild", "integrity-check"] {
                for i in 0..KINDS.len() {
                    conn.execute_batch(&format!("INSERT INTO i{i}(i{i}) VALUES('{command}')"))
                        .unwrap_or_else(|error| panic!("{what}: i{i}: {command}: {error}"));
                }
                all_agree(&conn, &format!("{what}, {command}"), metric, &query);
            }
        }
    }
}

#[test]
fn what_is_no_vector_stops_a_build_and_a_search_with_its_row_and_never_comes_first() {
    let bad: [(&str, &[u8]); 5] = [
        ("NaN", &[0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0x3f]),
        ("infinity", &[0, 0, 0x80, 0x7f, 0, 0, 0x80, 0x3f]),
        ("odd", &[1, 2, 3]),
        ("empty", &[]),
        ("longer", &[0; 12]),
    ];
    // A mean is SQL's to compute, which knows no rows (CONTRIBUTING, "Known gaps").
    let names = |said: &str, options: &str| {
        said.contains("17") || options.contains("mean") && said.contains("vector")
    };
    for (what, blob) in bad {
        for options in KINDS {
            let conn = memory();
            table(
                &conn,
                &(0..30)
                    .map(|i| (i, Some(vec![i as f32, 1.0])))
                    .collect::<Vec<_>>(),
            );
            let create = format!("CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2{options})");
            conn.execute_batch(&create).unwrap();
            conn.execute("UPDATE t SET v = ?1 WHERE id = 17", [blob])
                .unwrap();
            for sql in [
                "SELECT * FROM knn_annoy('ix', '[1, 1]', 3)",
                "SELECT rowid FROM ix WHERE v MATCH '[1, 1]' AND k = 3",
                "SELECT * FROM knn_exact('t', 'v', '[1, 1]', 3)",
                "INSERT INTO ix(ix) VALUES('refresh')",
                "INSERT INTO ix(ix) VALUES('rebuild')",
            ] {
                let said = error(&conn, sql);
                assert!(names(&said, options), "{what}{options}: {sql}: {said}");
            }
            // Mended, it is as if nothing had been.
            conn.execute_batch("UPDATE t SET v = vec_f32('[17, 1]') WHERE id = 17")
                .unwrap();
            assert_eq!(
                rows(&conn, "SELECT rowid FROM knn_annoy('ix', '[17, 1]', 1)"),
                [[Value::Integer(17)]]
            );
            conn.execute_batch("INSERT INTO ix(ix) VALUES('integrity-check'); DROP TABLE ix")
                .unwrap();
            conn.execute("UPDATE t SET v = ?1 WHERE id = 17", [blob])
                .unwrap();
            let said = error(&conn, &create);
            assert!(names(&said, options), "{what}{options}: {said}");
            assert_eq!(
                rows(
                    &conn,
                    "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'ix%'"
                ),
                [[Value::Integer(0)]]
            );
        }
    }
}

#[test]
fn names_of_which_an_index_would_have_two_columns_are_refused() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, k BLOB); INSERT INTO t VALUES(1, zeroblob(8), zeroblob(8));
         CREATE VIEW w AS SELECT id, v FROM t",
    )
    .unwrap();
    for (index, column, said) in [
        ("v", "v", "can't have the name v"),
        ("V", "v", "can't have the name V"),
        ("distance", "v", "can't have the name distance"),
        ("rowid", "v", "can't have the name rowid"),
        ("i", "k", "a column named k can't be indexed"),
    ] {
        let error = common::error(
            &conn,
            &format!("CREATE VIRTUAL TABLE {index} USING annoy(t, {column})"),
        );
        assert!(error.contains(said), "{error}");
    }
    let error = common::error(&conn, "CREATE VIRTUAL TABLE i USING annoy(w, v)");
    assert!(error.contains("w is a view"), "{error}");
    let error = common::error(
        &conn,
        "CREATE VIRTUAL TABLE i USING annoy(t, v, trees=2, TREES=3)",
    );
    assert!(error.contains("TREES is given twice"), "{error}");

    conn.execute_batch("CREATE VIRTUAL TABLE i USING annoy(t, v)")
        .unwrap();
    for name in ["v", "options"] {
        let error = common::error(&conn, &format!("ALTER TABLE i RENAME TO {name}"));
        assert!(error.contains("give it another name"), "{error}");
    }
    // The index's column is called as the table's, as far as that can be.
    let nearest = |column: &str| {
        common::ids(
            &conn,
            &format!("SELECT rowid FROM i WHERE {column} MATCH zeroblob(8) AND k = 1"),
        )
    };
    conn.execute_batch("ALTER TABLE t RENAME COLUMN v TO emb")
        .unwrap();
    assert_eq!(nearest("emb"), [1]);
    for odd in ["i", "distance"] {
        conn.execute_batch(&format!("ALTER TABLE t RENAME COLUMN emb TO {odd}"))
            .unwrap();
        assert_eq!(nearest("v"), [1], "{odd}");
        conn.execute_batch(&format!(
            "INSERT INTO i(i) VALUES('rebuild'); ALTER TABLE t RENAME COLUMN {odd} TO emb"
        ))
        .unwrap();
    }
    let error = common::error(&conn, "ALTER TABLE i RENAME TO emb");
    assert!(error.contains("give it another name"), "{error}");
    conn.execute_batch("DROP TABLE i").unwrap();
}

#[test]
fn an_index_is_searched_like_a_table_function_too() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO t VALUES(1, vec_f32('[1, 0]')), (2, vec_f32('[0, 1]')), (3, vec_f32('[1, 1]'));
         CREATE VIRTUAL TABLE i USING annoy(t, v, metric=l2)",
    )
    .unwrap();
    for sql in [
        "SELECT rowid FROM i('[1, 0]', 2)",
        "SELECT rowid FROM i('[1, 0]', 2, 100)",
        "SELECT rowid FROM i('[1, 0]') LIMIT 2",
        "SELECT rowid FROM i WHERE i MATCH '[1, 0]' AND k = 2",
        "SELECT n.rowid FROM t, i(t.v, 2) n WHERE t.id = 1",
    ] {
        assert_eq!(common::ids(&conn, sql), [1, 3], "{sql}");
    }
    let error = common::error(&conn, "SELECT rowid FROM i('rebuild')");
    assert!(error.contains("Query vector"), "{error}");
}

#[test]
fn odd_tables_and_names_are_indexed_like_any_other() {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let tables = [
        "(id INTEGER PRIMARY KEY, v BLOB, note TEXT) STRICT",
        "(note TEXT, v BLOB, id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "(x TEXT AS (hex(v)) VIRTUAL, id INTEGER PRIMARY KEY, y TEXT AS (id || '!') STORED, v BLOB NOT NULL, note TEXT UNIQUE)",
        "(id INTEGER PRIMARY KEY, note TEXT, v BLOB CHECK(typeof(v) = 'blob' AND length(v) = 8), UNIQUE(v, note))",
    ];
    let names = [
        "plain",
        "two words",
        "a\"quote",
        "it's",
        "naïve—日本",
        "sel[ect]",
        "select",
        "semi;colon--",
        "100%_",
    ];
    for declaration in tables {
        for name in names {
            for options in KINDS {
                let what = format!("{name} {declaration}{options}");
                let conn = memory();
                let (t, v, i) = (
                    quoted(&format!("t {name}")),
                    quoted(&format!("v {name}")),
                    quoted(&format!("i {name}")),
                );
                let declaration = declaration
                    .replace("v BLOB", &format!("{v} BLOB"))
                    .replace("(v)", &format!("({v})"))
                    .replace("(v,", &format!("({v},"));
                let run = |sql: &str| {
                    conn.execute_batch(sql)
                        .unwrap_or_else(|error| panic!("{what}: {sql}: {error}"));
                };
                run(&format!("CREATE TABLE {t}{declaration}"));
                run(&format!(
                    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 30)
                     INSERT INTO {t}(id, {v}, note) SELECT i, vec_f32('[' || i || ',1]'), i FROM c"
                ));
                run(&format!(
                    "CREATE VIRTUAL TABLE {i} USING annoy({t}, {v}, metric=l2{options})"
                ));
                run(&format!(
                    "UPDATE {t} SET {v} = vec_f32('[5.25,1]') WHERE id = 20; DELETE FROM {t} WHERE id = 6"
                ));
                let ids = |sql: &str| common::ids(&conn, sql);
                let name = format!("i {name}").replace('\'', "''");
                for _ in 0..2 {
                    assert_eq!(
                        ids(&format!(
                            "SELECT rowid FROM knn_annoy('{name}', '[5.5,1]', 3)"
                        )),
                        [20, 5, 4],
                        "{what}"
                    );
                    assert_eq!(
                        ids(&format!(
                            "SELECT rowid FROM {i} WHERE {v} MATCH '[5.5,1]' AND k = 3"
                        )),
                        [20, 5, 4],
                        "{what}"
                    );
                    run(&format!("INSERT INTO {i}({i}) VALUES('refresh')"));
                }
                run(&format!("INSERT INTO {i}({i}) VALUES('integrity-check')"));
                run(&format!(
                    "INSERT INTO {i}({i}) VALUES('rebuild'); ALTER TABLE {i} RENAME TO j; DROP TABLE j; DROP TABLE {t}"
                ));
                assert_eq!(
                    ids("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"),
                    [0],
                    "{what}"
                );
            }
        }
    }
}

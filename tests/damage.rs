//! Shadow tables that somebody has edited, and files that a crash has left: what is said, and that `rebuild` mends and DROP
//! removes whatever there is.

mod common;

use std::path::Path;

use common::{error, one, open};
use rusqlite::Connection;
use rusqlite::types::Value;

const SEARCH: &str = "SELECT group_concat(rowid) FROM knn_annoy('ix', '[3,4]', 5)";
const TRUTH: &str = "SELECT group_concat(rowid) FROM (SELECT id AS rowid FROM t
                     ORDER BY vec_distance_l2(v, '[3,4]'), id LIMIT 5)";
const STATE: &str = "SELECT value FROM annoy_info('ix') WHERE key = 'state'";
const REBUILD: &str = "INSERT INTO \"ix\"(\"ix\") VALUES('rebuild')";

/// A table of 40 rows and an index over it, with a part that `refresh` made.
fn prepare(folder: &Path, storage: &str) -> Connection {
    let conn = open(folder.join("app.db"));
    conn.execute_batch(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40)
         INSERT INTO t SELECT i, vec_f32('[' || i || ',' || (i * 7 % 11) || ']') FROM c;
         CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, storage={storage});
         UPDATE t SET v = vec_f32('[3, 3]') WHERE id = 7;
         INSERT INTO ix(ix) VALUES('refresh');
         DELETE FROM t WHERE id = 9;"
    ))
    .unwrap();
    conn
}

/// The index files in a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".annoy"))
        .collect();
    all.sort();
    all
}

/// Rebuilds, damages again, drops: nothing stays.
fn mends(conn: &Connection, folder: &Path, what: &str, damage: impl Fn(&Connection)) {
    let truth: String = one(conn, TRUTH);
    let run = |sql: &str| {
        conn.execute_batch(sql)
            .unwrap_or_else(|error| panic!("{what}: {sql}: {error}"));
    };
    // One of each kind of damage meets all commands.
    let commands = ["refresh", "auto-refresh", "rebuild"];
    let commands = &commands[..if what.contains("None") || what.contains("no ") {
        3
    } else {
        0
    }];
    for command in commands {
        run(&format!(
            "SAVEPOINT s; INSERT INTO ix(ix) VALUES('{command}')"
        ));
        assert_eq!(one::<String>(conn, SEARCH), truth, "{what}: {command}");
        run("ROLLBACK TO s; RELEASE s");
    }
    run(REBUILD);
    assert_eq!(one::<String>(conn, STATE), "current", "{what}");
    assert_eq!(one::<String>(conn, SEARCH), truth, "{what}");
    run("INSERT INTO ix(ix) VALUES('integrity-check')");
    run("UPDATE t SET v = vec_f32('[3, 4]') WHERE id = 30");
    assert_eq!(
        one::<String>(conn, SEARCH),
        one::<String>(conn, TRUTH),
        "{what}"
    );
    damage(conn);
    run("BEGIN; DROP TABLE ix; ROLLBACK");
    run("DROP TABLE ix");
    let left: i64 = one(
        conn,
        "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'ix%'",
    );
    assert_eq!((left, files(folder)), (0, vec![]), "{what}");
    run("DELETE FROM t WHERE id = 3");
    run("CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2)");
    assert_eq!(
        one::<String>(conn, SEARCH),
        one::<String>(conn, TRUTH),
        "{what}"
    );
}

#[test]
fn an_edited_catalogue_is_a_clear_error_or_the_answer_of_the_table_and_rebuild_mends_it() {
    let keys = common::CATALOGUE;
    let values = [
        // Not there.
        None,
        Some(Value::Integer(-7)),
        Some(Value::Text("x".into())),
        Some(Value::Text("{}".into())),
        Some(Value::Blob(vec![0xff; 9])),
    ];
    for storage in ["file", "inline"] {
        for key in keys {
            let values = &values[..if storage == "file" { values.len() } else { 2 }];
            for value in values {
                let what = format!("{storage}, {key} = {value:?}");
                let folder = tempfile::tempdir().unwrap();
                let conn = prepare(folder.path(), storage);
                let damage = |conn: &Connection| {
                    let done = match value {
                        None => conn.execute("DELETE FROM ix_catalog WHERE key = ?1", [key]),
                        Some(value) => {
                            conn.execute("REPLACE INTO ix_catalog VALUES(?1, ?2)", (key, value))
                        }
                    };
                    done.unwrap();
                };
                damage(&conn);
                // Also for a connection that finds it so.
                for conn in [&conn, &open(folder.path().join("app.db"))] {
                    match conn.query_row(SEARCH, [], |row| row.get::<_, String>(0)) {
                        Ok(answer) => assert_eq!(answer, one::<String>(conn, TRUTH), "{what}"),
                        Err(said) => {
                            let said = said.to_string();
                            let clear = said.contains(&format!(
                                "catalogue of index ix is damaged: its '{key}' is "
                            )) && said.contains("expected")
                                && said.contains(REBUILD);
                            assert!(clear, "{what}: {said}");
                        }
                    }
                    let exact = "SELECT group_concat(rowid) FROM knn_exact('t', 'v', '[3,4]', 5, '{\"metric\":\"l2\"}')";
                    assert_eq!(
                        one::<String>(conn, exact),
                        one::<String>(conn, TRUTH),
                        "{what}"
                    );
                    let of_another_type = !matches!(value, None | Some(Value::Text(_)));
                    if of_another_type && key != "generation" {
                        let said = error(conn, "INSERT INTO ix(ix) VALUES('integrity-check')");
                        assert!(
                            said.contains(&format!("its '{key}' is of type")),
                            "{what}: {said}"
                        );
                    }
                    let states: String = one(conn, "SELECT group_concat(state) FROM annoy_indexes");
                    assert!(!states.contains("Invalid"), "{what}: {states}");
                }
                mends(&conn, folder.path(), &what, damage);
            }
        }
    }
}

#[test]
fn an_index_that_has_lost_its_tables_says_so_and_rebuild_makes_them_again() {
    for storage in ["file", "inline"] {
        for table in ["ix_catalog", "ix_changes"] {
            let what = format!("{storage}, no {table}");
            let folder = tempfile::tempdir().unwrap();
            let conn = prepare(folder.path(), storage);
            let damage = |conn: &Connection| {
                conn.execute_batch(&format!("DROP TABLE {table}")).unwrap();
            };
            damage(&conn);
            for sql in [
                SEARCH,
                STATE,
                "INSERT INTO ix(ix) VALUES('integrity-check')",
            ] {
                let said = error(&conn, sql);
                assert!(
                    said.contains("has lost its table") && said.contains(REBUILD),
                    "{what}: {sql}: {said}"
                );
            }
            mends(&conn, folder.path(), &what, damage);
        }
    }
}

#[test]
fn an_inline_index_that_has_lost_its_parts_answers_from_its_table_until_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path(), "inline");
    conn.execute_batch("DROP TABLE ix_parts").unwrap();
    let conn = open(folder.path().join("app.db"));
    assert_eq!(one::<String>(&conn, SEARCH), one::<String>(&conn, TRUTH));
    assert!(one::<String>(&conn, STATE).starts_with("fallback: "));
    conn.execute_batch(REBUILD).unwrap();
    let storage: String = one(
        &conn,
        "SELECT value FROM annoy_info('ix') WHERE key = 'storage'",
    );
    assert_eq!((storage.as_str(), files(folder.path())), ("inline", vec![]));
    assert_eq!(one::<String>(&conn, STATE), "current");
}

#[test]
fn a_table_of_somebody_elses_that_is_named_like_the_parts_stays() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path(), "file");
    conn.execute_batch(
        "CREATE TABLE ix_parts(generation, mine); INSERT INTO ix_parts VALUES(1, 2)",
    )
    .unwrap();
    conn.execute_batch("INSERT INTO ix(ix) VALUES('rebuild'); DROP TABLE ix")
        .unwrap();
    assert_eq!(one::<i64>(&conn, "SELECT mine FROM ix_parts"), 2);
    let said = error(
        &conn,
        "CREATE VIRTUAL TABLE ix USING annoy(t, v, storage=inline)",
    );
    assert!(
        said.contains("cannot make the table that is to hold the index"),
        "{said}"
    );
}

#[test]
fn entries_that_no_trigger_wrote_change_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path(), "file");
    conn.execute_batch(
        "INSERT INTO ix_changes(id, stamp) VALUES('x', 'y'), (x'00ff', NULL), (12, NULL), (13, 'z'), (14.5, 1)",
    )
    .unwrap();
    for conn in [&conn, &open(folder.path().join("app.db"))] {
        for (id, sql) in [
            (12, "UPDATE t SET v = vec_f32('[3, 4]') WHERE id = 12"),
            (14, "DELETE FROM t WHERE id = 12"),
        ] {
            assert_eq!(
                one::<String>(conn, SEARCH),
                one::<String>(conn, TRUTH),
                "{id}"
            );
            conn.execute_batch(sql).unwrap();
            assert_eq!(
                one::<String>(conn, SEARCH),
                one::<String>(conn, TRUTH),
                "{id}"
            );
        }
    }
    conn.execute_batch(
        "INSERT INTO ix(ix) VALUES('refresh'); INSERT INTO ix(ix) VALUES('integrity-check')",
    )
    .unwrap();
    assert_eq!(one::<String>(&conn, SEARCH), one::<String>(&conn, TRUTH));
}

#[test]
fn any_build_or_drop_sweeps_what_a_crash_has_left_of_other_indexes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let conn = prepare(folder.path(), "file");
    conn.execute_batch("CREATE VIRTUAL TABLE Gone USING annoy(t, v)")
        .unwrap();
    let strays = [
        "app.db-Gone-1.annoy",
        "app.db-Gone-5.annoy",
        "app.db-what%20ever-2.annoy",
    ];
    let unfinished = [
        "app.db-ix-9.annoy.tmp-1",
        "app.db-Gone-2.annoy.tmp-77",
        "app.db-other-1.annoy.tmp-3",
    ];
    let others = [
        // Of no index, of another database, of another kind.
        "app.db-notes-3.annoy",
        "app.db-2-ix-3.annoy",
        "app.db-copy-Gone-1.annoy",
        "app.db-Gone-1.ann",
        "app.db-Gone-x.annoy",
        "bpp.db-Gone-1.annoy",
    ];
    let ours = std::fs::read(at("app.db-Gone-1.annoy")).unwrap();
    let leave = || {
        for name in strays {
            std::fs::write(at(name), &ours).unwrap();
        }
        for name in unfinished {
            std::fs::write(at(name), &ours[..5]).unwrap();
        }
        for name in others {
            std::fs::write(at(name), &ours).unwrap();
        }
        std::fs::write(at("app.db-notes-3.annoy"), "dear diary").unwrap();
        #[cfg(unix)]
        let _ = std::os::unix::fs::symlink(at("app.db"), at("app.db-link-1.annoy"));
    };
    let is_there = |name: &&&str| at(name).symlink_metadata().is_ok();
    conn.execute_batch("DROP TABLE Gone").unwrap();
    for (work, files_of_ix) in [
        ("CREATE VIRTUAL TABLE other USING annoy(t, v)", 2),
        ("DROP TABLE other", 2),
        (
            "CREATE VIRTUAL TABLE other USING annoy(t, v, storage=inline)",
            2,
        ),
        ("DROP TABLE other", 2),
        (REBUILD, 1),
    ] {
        leave();
        // What a living index has is not looked at, but by that index.
        let before: Vec<String> = files(folder.path())
            .into_iter()
            .filter(|f| f.starts_with("app.db-ix-"))
            .collect();
        conn.execute_batch(work).unwrap();
        assert_eq!(
            strays.iter().chain(&unfinished).filter(is_there).count(),
            0,
            "{work}: {:?}",
            files(folder.path())
        );
        assert_eq!(
            others.iter().filter(is_there).count(),
            others.len(),
            "{work}"
        );
        assert!(
            cfg!(not(unix)) || is_there(&&"app.db-link-1.annoy"),
            "{work}"
        );
        let after = files(folder.path())
            .into_iter()
            .filter(|f| f.starts_with("app.db-ix-"))
            .count();
        assert_eq!(after, files_of_ix, "{work}: {before:?}");
        assert_eq!(
            one::<String>(&conn, SEARCH),
            one::<String>(&conn, TRUTH),
            "{work}"
        );
        assert!(
            !one::<String>(&conn, STATE).starts_with("fallback"),
            "{work}"
        );
    }
    // What the open transaction may return to stays.
    conn.execute_batch("BEGIN; DROP TABLE ix; CREATE VIRTUAL TABLE other USING annoy(t, v); DROP TABLE other; ROLLBACK")
        .unwrap();
    assert_eq!(one::<String>(&conn, STATE), "current");
    let conn = open(at("app.db"));
    assert_eq!(one::<String>(&conn, STATE), "current");
}

//! What users read and call: every error word for word, and the exact list of registered names.
//!
//! `GOLDEN=update cargo test --test golden` writes the expected files anew; read the difference before you commit it.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{one, open, rows};
use rusqlite::{Connection, OpenFlags};

/// A file beside this package's sources.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares with the expected file, or writes it.
fn compare(name: &str, found: &str) {
    let file = path(name);
    if std::env::var("GOLDEN").as_deref() == Ok("update") {
        std::fs::write(&file, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    for (i, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", i + 1);
    }
    assert_eq!(
        found.lines().count(),
        expected.lines().count(),
        "lines of {name}"
    );
}

/// All that is in a database: its schema, the rows of its ordinary tables, and the files around it.
fn state(conn: &Connection, folder: &Path) -> String {
    let mut state = format!("{:?}", rows(conn, "SELECT * FROM sqlite_schema"));
    let tables = "SELECT name FROM pragma_table_list
                  WHERE schema = 'main' AND type IN ('table', 'shadow') ORDER BY name";
    let names: Vec<String> = conn
        .prepare(tables)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for name in names {
        let all = rows(conn, &format!("SELECT * FROM \"{name}\""));
        state += &format!("{name} {all:?}\n");
    }
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), entry.metadata().unwrap().len())
        })
        .collect();
    files.sort();
    state + &format!("{files:?}")
}

/// One statement of the file, and how it is run.
struct Case<'a> {
    how: &'a str,
    sql: &'a str,
}

/// The statements before and after the line that begins with `-- Errors`.
fn cases(script: &str) -> (&str, Vec<Case<'_>>) {
    let (setup, rest) = script.split_once("\n-- Errors").unwrap();
    let mut cases = Vec::new();
    let mut how = "";
    for line in rest.lines().skip(1) {
        if let Some(name) = line.strip_prefix("--! ") {
            how = name;
        } else if !line.is_empty() && !line.starts_with("--") {
            assert!(line.ends_with(';'), "one statement a line: {line}");
            cases.push(Case { how, sql: line });
            how = "";
        }
    }
    (setup, cases)
}

/// Runs one statement to its end; its message, or what it did instead of failing.
fn message(conn: &Connection, sql: &str) -> String {
    let outcome = conn.prepare(sql).and_then(|mut statement| {
        let mut rows = statement.query([])?;
        let mut n = 0;
        while rows.next()?.is_some() {
            n += 1;
        }
        Ok(n)
    });
    match outcome {
        Ok(n) => format!("NO ERROR, {n} rows"),
        Err(
            rusqlite::Error::SqliteFailure(_, Some(message))
            | rusqlite::Error::SqlInputError { msg: message, .. },
        ) => message,
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_error_says_what_was_expected_and_leaves_the_database_as_it_was() {
    let script = std::fs::read_to_string(path("sql/errors.sql")).unwrap();
    let (setup, cases) = cases(&script);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("golden.db");
    let conn = open(&file);
    conn.execute_batch(setup).unwrap();
    let here = std::env::current_dir().unwrap().display().to_string();

    let mut found = String::new();
    let before = state(&conn, folder.path());
    for Case { how, sql } in cases {
        let message = match how {
            "" => message(&conn, sql),
            "read-only" => message(&read_only(&file), sql),
            "interrupted" => interrupted(&conn, sql),
            _ => panic!("--! {how}"),
        };
        if !how.is_empty() {
            found += &format!("--! {how}\n");
        }
        found += &format!("{sql}\n  => {}\n", message.replace(&here, "<folder>"));
        assert_eq!(state(&conn, folder.path()), before, "after {sql}");
    }
    assert_eq!(one::<String>(&conn, "PRAGMA integrity_check"), "ok");
    compare("sql/errors.expected", &found);
}

fn read_only(file: &Path) -> Connection {
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    #[cfg(not(feature = "loadable"))]
    sqlite_annoy::register(&conn).unwrap();
    conn
}

fn interrupted(conn: &Connection, sql: &str) -> String {
    let mut said = String::new();
    common::stops_soon(|| {
        let (outcome, late) =
            common::interrupted(conn, Duration::from_millis(50), || message(conn, sql));
        said = outcome;
        late
    });
    said
}

#[test]
fn a_script_walks_every_function_and_every_table_function() {
    let script = include_str!("hosts/walk.sql");
    let words = |text: &'static str| -> std::collections::HashSet<&str> {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect()
    };
    let walked = words(script);
    let names = include_str!("../sql/names.expected").lines();
    let missing: Vec<&str> = names
        .filter(|line| !line.starts_with("--"))
        .map(|line| line.split(['(', ' ']).next().unwrap())
        // Refused outside of `knn_exact`, which calls it.
        .filter(|name| *name != "annoy_scan" && !walked.contains(name))
        .collect();
    assert!(missing.is_empty(), "tests/hosts/walk.sql lacks {missing:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("questions"), ": all\nmoon night star night\n").unwrap();
    std::fs::write(
        file("judgements"),
        "moon\tstar\t9\nnight\tbread\t2\nmoon\tbutter\t1\n",
    )
    .unwrap();
    let conn = common::open(file("walk.db"));
    let script = script.replace("{folder}", folder.path().to_str().unwrap());
    conn.execute_batch(&script).unwrap();
}

#[test]
fn exactly_these_names_are_registered() {
    let conn = common::memory();
    // What SQLite brings along is what its other extensions register for each connection.
    let mut found =
        String::from("-- functions: name(arguments), direct: not in views and triggers\n");
    let functions = "SELECT DISTINCT name || '(' || iif(narg < 0, '...', narg) || ')' ||
                            iif(flags & 0x80000, ' direct', '') AS f
                     FROM pragma_function_list WHERE NOT builtin ORDER BY f";
    let others = [
        "fts",
        "rtree",
        "bm25",
        "highlight",
        "snippet",
        "match",
        "geopoly",
        "offsets",
        "optimize",
    ];
    let ours = |sql| {
        let names = rows(&conn, sql).into_iter().flatten();
        let names = names.map(|name| match name {
            rusqlite::types::Value::Text(name) => name,
            other => panic!("{other:?}"),
        });
        names.filter(|name| !others.iter().any(|o| name.starts_with(o)))
    };
    for name in ours(functions) {
        found += &format!("{name}\n");
    }
    found += "-- table functions and virtual tables\n";
    for name in ours("SELECT name FROM pragma_module_list ORDER BY name") {
        if !["dbstat", "json_each", "json_tree", "sqlite_stmt"].contains(&name.as_str())
            && !name.starts_with("pragma")
        {
            found += &format!("{name}\n");
        }
    }
    compare("sql/names.expected", &found);
}

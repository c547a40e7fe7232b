//! What shows: charts, times, memory, and the lines of a file.

mod common;

use common::{error, memory, one, rows};
use rusqlite::types::Value;

const CURVE: &str = "CREATE TABLE curve(x, y, name);
    INSERT INTO curve VALUES (3, 9.5, 'a'), (1, 1, 'a'), (2, 4, 'a'), (1, NULL, 'a'), (NULL, 7, 'c'), (1, 2, 'b <&>');";

#[test]
fn a_chart_has_one_line_for_each_series_and_leaves_out_nulls() {
    let conn = memory();
    conn.execute_batch(CURVE).unwrap();
    let svg: String = one(
        &conn,
        r#"SELECT plot_line(x, y, name, '{"title": "A <title>", "x_label": "the x", "y_label": "the y"}') FROM curve"#,
    );
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("<circle").count(), 4, "{svg}");
    for text in ["A &lt;title&gt;", "the x", "the y", "b &lt;&amp;&gt;"] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn the_points_of_a_line_are_sorted_by_x() {
    let conn = memory();
    conn.execute_batch(CURVE).unwrap();
    let chart = |order| -> String {
        one(
            &conn,
            &format!(
                "SELECT plot_line(x, y) FROM (SELECT * FROM curve WHERE name = 'a' ORDER BY {order})"
            ),
        )
    };
    assert_eq!(chart("x"), chart("x DESC"));
}

#[test]
fn a_chart_of_nothing_says_so() {
    let conn = memory();
    conn.execute_batch(CURVE).unwrap();
    for sql in [
        "SELECT plot_line(x, y) FROM curve WHERE false",
        "SELECT plot_line(x, y, name, '{\"log_x\": true}') FROM curve WHERE y IS NULL",
    ] {
        let svg: String = one(&conn, sql);
        assert!(svg.contains("no points"), "{svg}");
    }
}

#[test]
fn any_numbers_make_a_chart() {
    let conn = memory();
    for (x, y) in [
        ("0", "0"),
        ("1e300", "-1e300"),
        ("5e-324", "1e15"),
        ("-7", "1e-200"),
    ] {
        let svg: String = one(
            &conn,
            &format!(
                "SELECT plot_line(column1, column2) FROM (VALUES ({x}, {y}), ({x}, {y}), (1, 2))"
            ),
        );
        assert!(
            svg.contains("<circle") && !svg.contains("NaN"),
            "{x} {y} {svg}"
        );
    }
}

#[test]
fn a_chart_says_what_is_wrong_with_its_arguments() {
    let conn = memory();
    for (arguments, message) in [
        ("'a', 1", "plot_line: x: expected a number, got a text"),
        ("1, x'00'", "plot_line: y: expected a number, got a blob"),
        (
            "1, 9e999",
            "plot_line: y: expected a number from -1e300 to 1e300, got inf",
        ),
        (
            "1, 0, NULL, '{\"log_y\":true}'",
            "plot_line: y: expected a number above zero because of log_y, got 0",
        ),
        (
            "1, 2, x'00'",
            "plot_line: series: expected a name, got a blob",
        ),
        (
            "1, 2, 'a', '{\"colour\":1}'",
            "plot_line options: unknown field `colour`, expected one of `title`, `x_label`, `y_label`, `width`, `height`, `log_x`, `log_y` at line 1 column 9",
        ),
        (
            "1, 2, 'a', '{\"width\":1}'",
            "plot_line: option width: expected pixels from 100 to 10000, got 1",
        ),
        (
            "1, 2, 'a', '{\"log_x\":2}'",
            "plot_line options: invalid type: integer `2`, expected a boolean at line 1 column 10",
        ),
        (
            "1, 2, 'a', 5",
            "plot_line options must be JSON such as {\"title\":\"Recall\"}, got Integer",
        ),
        (
            "1, 2, 'a', '{'",
            "plot_line options: EOF while parsing an object at line 1 column 1",
        ),
    ] {
        assert_eq!(
            error(&conn, &format!("SELECT plot_line({arguments})")),
            message
        );
    }
}

#[test]
fn a_query_is_timed_cold_and_warm() {
    let conn = memory();
    let row = rows(
        &conn,
        "SELECT first_ms > 0, median_ms >= min_ms, min_ms > 0, runs, rows
         FROM annoy_time('SELECT 1 UNION ALL SELECT 2', 7)",
    );
    assert_eq!(row, [[1, 1, 1, 7, 2].map(Value::Integer)]);
    assert_eq!(
        one::<i64>(&conn, "SELECT runs FROM annoy_time('SELECT 1')"),
        25
    );
}

#[test]
fn only_queries_are_timed() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE t(a)").unwrap();
    for sql in [
        "INSERT INTO t VALUES (1)",
        "BEGIN",
        "ATTACH '':memory:'' AS m",
    ] {
        assert_eq!(
            error(&conn, &format!("SELECT * FROM annoy_time('{sql}')")),
            "annoy_time: expected a statement that only reads, such as SELECT; this one does not"
        );
    }
    for (arguments, message) in [
        (
            "'SELECT :a'",
            "annoy_time: expected a statement without parameters; write their values into it",
        ),
        ("5", "annoy_time: expected the text of a query, got none"),
        (
            "'SELECT 1', 0",
            "annoy_time: repeat: expected an integer from 1 to 1000000",
        ),
        (
            "'SELECT 1; SELECT 2'",
            "annoy_time: expected one statement, got several",
        ),
        (
            "'SELECT * FROM nowhere'",
            "annoy_time: no such table: nowhere",
        ),
    ] {
        assert_eq!(
            error(&conn, &format!("SELECT * FROM annoy_time({arguments})")),
            message
        );
    }
    assert_eq!(
        error(&conn, "SELECT * FROM annoy_time"),
        "annoy_time: argument sql is missing; expected annoy_time(sql, repeat)"
    );
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM t"), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_that_of_this_process() {
    let conn = memory();
    let row = rows(
        &conn,
        "SELECT pid, rss >= private AND private > 100000 AND pss >= private, mapped, mapped_private FROM annoy_memory",
    );
    let pid = i64::from(std::process::id());
    assert_eq!(row, [[pid, 1, 0, 0].map(Value::Integer)]);
}

#[test]
fn a_file_is_imported_line_by_line() {
    let conn = memory();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it's a corpus.txt");
    std::fs::write(&path, "one\r\n\nthree äöü").unwrap();
    let sql_path = path.display().to_string().replace('\'', "''");
    assert_eq!(
        rows(
            &conn,
            &format!("SELECT line, text, rowid FROM text_lines('{sql_path}')")
        ),
        [(1, "one"), (2, ""), (3, "three äöü")].map(|(n, text)| vec![
            Value::Integer(n),
            Value::Text(text.to_string()),
            Value::Integer(n)
        ])
    );
    // The path may come from a table, which is then the outer loop.
    conn.execute_batch(&format!(
        "CREATE TABLE files(path); INSERT INTO files VALUES ('{sql_path}'), ('{sql_path}')"
    ))
    .unwrap();
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT count(*) FROM text_lines(files.path) AS l, files WHERE l.line > 1"
        ),
        4
    );
}

#[test]
fn a_missing_file_is_an_error_that_helps() {
    let conn = memory();
    let message = error(&conn, "SELECT * FROM text_lines('no/such/file.txt')");
    assert!(
        message.starts_with(
            "text_lines: cannot open 'no/such/file.txt' (give a full path, or one relative to /"
        ),
        "{message}"
    );
    assert_eq!(
        error(&conn, "SELECT * FROM text_lines(NULL)"),
        "text_lines: expected the path of a text file, got no text"
    );
}

#[test]
fn what_touches_files_or_runs_sql_is_kept_out_of_views() {
    let conn = memory();
    for call in ["text_lines('/etc/hostname')", "annoy_time('SELECT 1')"] {
        conn.execute_batch(&format!(
            "DROP VIEW IF EXISTS v; CREATE VIEW v AS SELECT * FROM {call}"
        ))
        .unwrap();
        let message = error(&conn, "SELECT * FROM v");
        assert!(
            message.starts_with("unsafe use of virtual table"),
            "{message}"
        );
    }
}

#[test]
fn charts_of_all_sizes_are_drawn() {
    let conn = memory();
    conn.execute_batch(CURVE).unwrap();
    for (width, height) in [(100, 100), (10_000, 100), (100, 10_000)] {
        let svg: String = one(
            &conn,
            &format!(
                r#"SELECT plot_line(x, y, name, '{{"title":"t", "x_label":"x", "y_label":"y", "width":{width}, "height":{height}}}') FROM curve"#
            ),
        );
        assert!(
            svg.contains(&format!("width=\"{width}\" height=\"{height}\"")),
            "{svg}"
        );
    }
}

/// 2,000 vectors of 8 components, spread without structure; not every SQLite has `sin`.
const VECTORS: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, v BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO items SELECT i, vec_f32(json_array(i * 7919 % 1009 - 500, i * 6007 % 1013 - 500, i * 4001 % 1019 - 500,
        i * 3001 % 1021 - 500, i * 2003 % 1031 - 500, i * 9001 % 1033 - 500, i * 8009 % 1039 - 500,
        i * 7001 % 1049 - 500)) FROM n;";

#[test]
fn a_sweep_shows_what_trees_cost_and_find() {
    let conn = memory();
    conn.execute_batch(VECTORS).unwrap();
    for options in [
        "{}",
        r#"{"sample": 50, "metric": "l2", "seed": 7, "threads": 1}"#,
    ] {
        let rows = rows(
            &conn,
            &format!(
                "SELECT trees, build_seconds > 0, bytes > 64000, recall > 0 AND recall <= 1, query_us > 0
                 FROM annoy_sweep('items', 'v', '1,4..5,30', 10, '{options}')"
            ),
        );
        assert_eq!(
            rows,
            [1, 4, 5, 30].map(|n| [n, 1, 1, 1, 1].map(Value::Integer))
        );
    }
    // The more rows the trees may look at, the more they find; all of them are the whole truth.
    let recall = |search_k: usize| -> f64 {
        let options = format!("{{\"search_k\": {search_k}, \"sample\": 100}}");
        one(
            &conn,
            &format!("SELECT recall FROM annoy_sweep('items', 'v', 1, 10, '{options}')"),
        )
    };
    assert!(recall(1) < 1.0);
    assert!(recall(1) < recall(500));
    assert_eq!(recall(2000), 1.0);
}

#[test]
fn an_index_is_judged_against_exact_search() {
    let conn = memory();
    conn.execute_batch(VECTORS).unwrap();
    conn.execute_batch("CREATE VIRTUAL TABLE items_index USING annoy(items, v, trees=4)")
        .unwrap();
    let row = rows(
        &conn,
        "SELECT recall BETWEEN 0.5 AND 1, exact_qps > 100, annoy_qps > 100, build_seconds > 0,
                break_even IS NULL OR break_even > 0
         FROM annoy_recall('items_index', 10, 200)",
    );
    assert_eq!(row, [[1, 1, 1, 1, 1].map(Value::Integer)]);
    let all = "SELECT recall FROM annoy_recall('items_index', 10, 50, '{\"search_k\": 1000000}')";
    assert_eq!(one::<f64>(&conn, all), 1.0);
    // Rows that have changed are judged too: here nine of ten, most of them in no file yet.
    conn.execute_batch(
        "UPDATE items SET v = vec_scale(v, -3) WHERE id % 10 < 3;
         INSERT INTO items_index(items_index) VALUES('refresh');
         UPDATE items SET v = vec_scale(v, 2) WHERE id % 10 IN (2, 3, 4); DELETE FROM items WHERE id % 10 > 5",
    )
    .unwrap();
    assert_eq!(one::<f64>(&conn, all), 1.0);
    let half = "SELECT recall FROM annoy_recall('items_index', 10, 1200, '{\"search_k\": 300}')";
    let found = one::<f64>(&conn, half);
    assert!((0.5..1.0).contains(&found), "{found}");
    conn.execute_batch("INSERT INTO items_index(items_index) VALUES('rebuild')")
        .unwrap();
    let rebuilt = one::<f64>(&conn, half);
    assert!((found - rebuilt).abs() < 0.2, "{found} {rebuilt}");
    conn.execute_batch("DELETE FROM items").unwrap();
    assert!(error(&conn, all).contains("the table of index items_index has no vectors"));
}

#[test]
fn measurements_say_what_is_wrong_with_their_arguments() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE items(id INTEGER PRIMARY KEY, v BLOB)")
        .unwrap();
    for (call, message) in [
        (
            "annoy_sweep('items', 'v')",
            "annoy_sweep: argument tree_list is missing; expected annoy_sweep(table_name, column_name, tree_list, k, options)",
        ),
        (
            "annoy_sweep('items', 'v', 1)",
            "annoy_sweep: items.v has no vectors",
        ),
        (
            "annoy_sweep('items', 'v', 0)",
            "annoy_sweep: tree_list: expected numbers from 1 to 10000 and ranges, such as '1..5,10,20', got '0'",
        ),
        (
            "annoy_sweep('items', 'v', 1, 0)",
            "annoy_sweep: k: expected an integer from 1 up",
        ),
        (
            r#"annoy_sweep('items', 'v', 1, 5, '{"sample": 0}')"#,
            "annoy_sweep: option sample: expected a number of rows from 1 up, got 0",
        ),
        (
            r#"annoy_sweep('items', 'v', 1, 5, '{"tree": 0}')"#,
            "annoy_sweep options: unknown field `tree`, expected one of `metric`, `seed`, `threads`, `sample`, `search_k` at line 1 column 7",
        ),
        ("annoy_sweep('nowhere', 'v', 1)", "no such table: nowhere"),
        (
            "annoy_recall('nowhere')",
            "no such index: nowhere; there are none yet: CREATE VIRTUAL TABLE name USING annoy(table, column)",
        ),
    ] {
        assert_eq!(error(&conn, &format!("SELECT * FROM {call}")), message);
    }
}

#[test]
fn a_sweep_stops_within_a_second_of_an_interrupt() {
    let conn = memory();
    conn.execute_batch(VECTORS).unwrap();
    common::stops_soon(|| {
        let (outcome, late) =
            common::interrupted(&conn, std::time::Duration::from_millis(300), || {
                conn.query_row(
                    "SELECT count(*) FROM annoy_sweep('items', 'v', '9000..10000')",
                    [],
                    |row| row.get::<_, i64>(0),
                )
            });
        match outcome {
            Err(rusqlite::Error::SqliteFailure(e, _)) => {
                assert_eq!(e.code, rusqlite::ErrorCode::OperationInterrupted);
            }
            other => panic!("{other:?}"),
        }
        late
    });
}

#[test]
fn tables_that_are_merely_named_like_those_of_an_index_are_none() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE product_catalog(a); CREATE TABLE product_changes(b);")
        .unwrap();
    let indexes: i64 = one(&conn, "SELECT count(*) FROM annoy_indexes");
    assert_eq!(indexes, 0);
    let said = error(&conn, "SELECT * FROM annoy_info('product')");
    assert!(said.contains("no such index: product"), "{said}");
}
